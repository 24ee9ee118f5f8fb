"""Members that cannot form one ensemble, as error lines of `predict` and `aggregate` name them."""

import dataclasses

import pytest

from beam_zoo.errors import UserError
from beam_zoo.members.compatible import check_compatible
from beam_zoo.members.member import Member

TREE = Member(
    name="a", zoobot_class="ZoobotTree", checkpoint="a.ckpt", path="/a.ckpt", sha256="0" * 64, revision=None,
    architecture=None, architecture_kwargs={}, encoder=None, schema={"dependencies": {"q": None}},
    outputs=("q_x",), view={}, greyscale=False, dropout_rate=0.2, random_view=False, trust_checkpoint=False,
)  # fmt: skip


def other(**changes):
    return dataclasses.replace(TREE, name="b", **changes)


def test_members_that_differ_in_what_moves_no_output():
    check_compatible([("a", TREE)])
    check_compatible([("a", TREE), ("b", other(zoobot_class="FinetuneableZoobotTree", dropout_rate=0.0))])


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (
            TREE,
            other(zoobot_class="FinetuneableZoobotRegressor"),
            "do not go together: a tree and a regressor",
        ),
        (TREE, other(outputs=("q_y",)), "have different questions and answers"),
        (TREE, other(schema={"dependencies": {"q": "p_z"}}), "have schemas with different dependencies"),
        *(
            (other(zoobot_class=kind), other(zoobot_class=kind, outputs=("y",)), f"have different {what}")
            for kind, what in (
                ("FinetuneableZoobotClassifier", "class_names"),
                ("FinetuneableZoobotRegressor", "value_name"),
            )
        ),
    ],
)
def test_members_that_do_not_go_together(first, second, words):
    with pytest.raises(UserError) as refused:
        check_compatible([("a of /out", first), ("again", first), ("b", second)])
    assert str(refused.value) == f"members a of /out and b {words}"

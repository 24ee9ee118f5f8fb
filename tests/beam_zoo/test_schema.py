"""A schema is refused where it is no tree, and zoobot's own all pass."""

import pytest
from zoobot.shared import schemas as zoobots

from beam_zoo.errors import UserError
from beam_zoo.members import member as members
from beam_zoo.members import schema

NAMES = [name for name, value in vars(zoobots).items() if isinstance(value, zoobots.Schema)]


@pytest.mark.parametrize("name", NAMES)
def test_zoobots_own(name):
    given = schema.named_schema(name)
    plain = members.schema_json(given)
    made = schema.make_schema(plain["question_answer_pairs"], plain["dependencies"])
    assert list(made.label_cols) == list(given.label_cols)
    for ours, theirs in zip(made.questions, given.questions, strict=True):
        assert (ours.text, ours.start_index, ours.end_index) == (
            theirs.text,
            theirs.start_index,
            theirs.end_index,
        )
        after = (ours.asked_after and ours.asked_after.text, theirs.asked_after and theirs.asked_after.text)
        assert after[0] == after[1]


PAIRS = {"a": ["_x", "_y"], "b": ["_x", "_y"]}


@pytest.mark.parametrize(
    ("pairs", "dependencies", "words"),
    [
        (None, {}, "question_answer_pairs must map every question"),
        ({}, {}, "question_answer_pairs must map every question"),
        (PAIRS, None, "dependencies must map every question"),
        ({"a": "_x"}, {"a": None}, "question 'a' must have a list of answer names"),
        ({"a": []}, {"a": None}, "question 'a' must have a list of answer names"),
        ({"a": [True]}, {"a": None}, "question 'a' must have a list of answer names"),
        ({3: ["_x"]}, {3: None}, "question 3 must have a list of answer names"),
        ({"a": ["_x", "_x"]}, {"a": None}, "two answers have the same label 'a_x'"),
        ({"a": ["b_x"], "ab": ["_x"]}, {"a": None, "ab": None}, "two answers have the same label 'ab_x'"),
        (PAIRS, {"a": None, "b": "a_z"}, "'b' is asked after no known answer 'a_z' (did you mean"),
        (PAIRS, {"a": None, "c": None}, "dependencies name no question 'c' (choose from a, b)"),
        (PAIRS, {"a": None}, "dependencies lack the question 'b' (null if it is always asked)"),
        (PAIRS, {"a": "a_x", "b": None}, "'a' is asked after itself, through 'a_x'"),
        (PAIRS, {"a": "b_x", "b": "a_y"}, "is asked after itself"),
    ],
)
def test_no_tree(pairs, dependencies, words):
    with pytest.raises(UserError) as caught:
        schema.make_schema(pairs, dependencies)
    assert words in str(caught.value)


def test_difference():
    assert schema.difference({"a": ("_x", "_y")}, {"a": ["_x", "_y"]}) is None
    assert schema.difference({"a": ["_x"]}, {"a": ["_x", "_y"]}) == "it has 1 answers, where the schema has 2"
    assert "its answer 1 is 'a_y', where the schema has 'a_z'" in schema.difference(
        {"a": ["_x", "_y"]}, {"a": ["_x", "_z"]}
    )
    # The same labels, cut into other questions.
    assert schema.difference({"a": ["_x"], "a_": ["y"]}, {"a": ["_x", "_y"]}) is not None

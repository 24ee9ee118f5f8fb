"""A sample is a function of (seed, galaxy, member, pass), however the work is cut."""

import pandas as pd
import pytest

from tests import checkpoints, oracle


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    """One member with dropout and a deterministic view, one with dropout and random views."""
    folder = tmp_path_factory.mktemp("members")
    still, moving = (
        checkpoints.tree(folder / f"{n}.ckpt", seed=s) for s, n in enumerate(("still", "moving"))
    )
    return [
        checkpoints.member(folder / "still.yaml", still),
        checkpoints.member(folder / "moving.yaml", moving, view={"base": "default", "output_size": 64}),
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, few, members):
    """All galaxies in one snippet and one batch."""
    from pipelines.predict import main

    output = tmp_path_factory.mktemp("whole") / "out"
    argv = ["--catalogue", few, "--models", *members, "--output", output, "--batch_size", 64, "--passes", 10]
    assert main([str(word) for word in argv]) == 0
    return pd.read_parquet(output / "samples")


def chosen(samples: pd.DataFrame, passes: range) -> pd.DataFrame:
    return samples[samples["pass"].isin(passes)]


@pytest.mark.parametrize("batch_size", [1, 7, 64])
@pytest.mark.parametrize("snippet_size", [10, 1000])
def test_batches_and_snippets(predict, few, members, whole, batch_size, snippet_size):
    options = ["--batch_size", batch_size, "--snippet_size", snippet_size, "--passes", 3]
    result = predict(few, members, *options)
    oracle.assert_same_samples(result.table("samples"), chosen(whole, range(3)))
    assert list(result.table("friendly")["id_str"]) == list(pd.read_csv(few)["id_str"])


def test_another_order_of_the_catalogue(predict, few, members, whole, tmp_path):
    shuffled = pd.read_csv(few).sample(frac=1, random_state=1)
    shuffled.to_csv(tmp_path / "shuffled.csv", index=False)
    result = predict(
        tmp_path / "shuffled.csv", members, "--image_root", few.parent, "--passes", 3, "--snippet_size", 10
    )
    oracle.assert_same_samples(result.table("samples"), chosen(whole, range(3)))
    assert list(result.table("friendly")["id_str"]) == list(shuffled["id_str"])


def test_a_galaxy_alone(predict, few, members, whole, tmp_path):
    alone = pd.read_csv(few).iloc[[17]]
    alone.to_parquet(tmp_path / "alone.parquet")
    result = predict(tmp_path / "alone.parquet", members, "--image_root", few.parent, "--passes", 3)
    expected = chosen(whole, range(3))
    oracle.assert_same_samples(
        result.table("samples"), expected[expected["id_str"] == alone["id_str"].item()]
    )


def test_first_pass(predict, few, members, whole):
    result = predict(few, members, "--first_pass", 5, "--passes", 5)
    oracle.assert_same_samples(result.table("samples"), chosen(whole, range(5, 10)))


def test_another_seed(predict, few, members, whole):
    result = predict(few, members, "--seed", 1, "--passes", 1)
    keys = ["id_str", "member", "pass"]
    one = result.table("samples").set_index(keys).sort_index()
    other = chosen(whole, range(1)).set_index(keys).sort_index()
    assert one.index.equals(other.index)
    differs = ((one - other).abs() > 1e-3).any(axis=1)
    assert differs.all()


def test_passes_and_members_differ(whole):
    """Draws are not repeated between passes, galaxies or members."""
    values = whole.drop(columns=["id_str", "member", "pass"])
    assert not values.round(4).duplicated().any()


def test_the_same_batches_give_the_same_bytes(predict, few, members):
    outputs = [predict(few, members, "--snippet_size", 5, "--passes", 2).output for _ in range(2)]
    for folder in ("samples", "friendly", "advanced", "failures"):
        names = [sorted(p.name for p in (output / folder).iterdir()) for output in outputs]
        assert names[0] == names[1]
        for name in names[0]:
            assert (outputs[0] / folder / name).read_bytes() == (outputs[1] / folder / name).read_bytes()

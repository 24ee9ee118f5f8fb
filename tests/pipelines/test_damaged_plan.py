"""An output whose plan is damaged or lost: one line, and nothing is predicted."""

import pytest

OPTIONS = ["--snippet_size", 4, "--passes", 1]


@pytest.mark.parametrize("content", ["[]", '{"format": 1}', "{", '"x"', '{"format": 99}'])
def test_a_damaged_plan(predict, own_catalogue, trees, content):
    first = predict(own_catalogue, trees, *OPTIONS)
    (first.output / "_plan" / "plan.json").write_text(content)
    second = predict(own_catalogue, trees, *OPTIONS, output=first.output)
    assert second.code == 2 and "plan" in second.err.splitlines()[-1]
    assert second.err.splitlines()[-1].startswith("error: ")


def test_a_lost_plan(predict, own_catalogue, trees):
    first = predict(own_catalogue, trees, *OPTIONS)
    (first.output / "_plan" / "plan.json").unlink()
    second = predict(own_catalogue, trees, *OPTIONS, output=first.output)
    assert second.code == 2 and "has lost its plan" in second.err and "--overwrite" in second.err
    assert predict(own_catalogue, trees, *OPTIONS, "--overwrite", output=first.output).code == 0


@pytest.mark.parametrize("damage", ["truncate", "remove"])
def test_damaged_rows_of_the_plan(predict, own_catalogue, trees, damage):
    first = predict(own_catalogue, trees, *OPTIONS)
    (rows,) = first.output.glob("_plan/rows-*/000000.parquet")
    data = rows.read_bytes()
    rows.unlink() if damage == "remove" else rows.write_bytes(data[:50])
    (first.output / "samples" / "part-0000000.parquet").unlink()
    second = predict(own_catalogue, trees, *OPTIONS, output=first.output)
    assert second.code == 2 and "is damaged" in second.err.splitlines()[-1]

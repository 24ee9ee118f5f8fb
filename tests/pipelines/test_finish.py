"""Snippets predicted by separate tasks, then `python -m pipelines.finish`."""

import json
import threading

import pandas as pd
import pytest

from beam_zoo.tables.reports import remove_reports
from pipelines import finish
from tests import galaxies

OPTIONS = ["--snippet_size", 4, "--passes", 2]


def tables(output):
    names = ("friendly", "advanced", "failures", "samples")
    return {p.relative_to(output): p.read_bytes() for n in names for p in (output / n).iterdir()}


def test_tasks_then_finish(predict, few, trees, capfd):
    """Three tasks in any order, one of them twice; the tables are those of one run."""
    whole = predict(few, trees, *OPTIONS)
    output = None
    for part in ("4:", "0:2", "2:4", "0:2"):
        task = predict(few, trees, *OPTIONS, "--snippets", part, output=output)
        assert task.code == 0, task.err
        output = task.output
        if part != "2:4":
            assert not (output / "friendly").exists() and not (output / "manifest.json").exists()
    assert finish.main([str(output)]) == 0
    assert tables(output) == tables(whole.output)
    manifest = json.loads((output / "manifest.json").read_text())
    assert (manifest["rows_in"], manifest["rows_predicted"], manifest["rows_reused"]) == (23, 23, 23)
    assert finish.main([str(output)]) == 0


def test_what_is_left_is_listed(predict, few, trees, capfd):
    first = predict(few, trees, *OPTIONS, "--snippets", "1:2")
    predict(few, trees, *OPTIONS, "--snippets", "4:5", output=first.output)
    capfd.readouterr()
    assert finish.main([str(first.output)]) == 1
    out = capfd.readouterr().out.splitlines()
    assert [line for line in out if line.startswith("--snippets")] == [
        "--snippets 0:1",
        "--snippets 2:4",
        "--snippets 5:6",
    ]
    assert not (first.output / "friendly").exists() and not (first.output / "manifest.json").exists()


def test_old_tables_are_not_complete_without_their_samples(predict, few, trees):
    done = predict(few, trees, *OPTIONS)
    (done.output / "samples" / "part-0000003.parquet").unlink()
    assert finish.main([str(done.output)]) == 1
    assert not (done.output / "manifest.json").exists()


def test_failures_that_may_pass_do_not_stop_it(predict, trees, tmp_path, capfd):
    """A task never applies the fraction of failures; finish does, and lists what may pass."""
    galaxies.simulated(tmp_path / "sky", 8)
    for number in range(4):
        (tmp_path / "sky" / "images" / f"000{number}.jpg").unlink()
    task = predict(tmp_path / "sky" / "catalogue.csv", trees, *OPTIONS, "--snippets", ":")
    assert task.code == 0, task.err
    capfd.readouterr()
    assert finish.main([str(task.output)]) == 3
    captured = capfd.readouterr()
    assert "gal 0003 (images/0003.jpg), --snippets 0:1" in captured.out
    assert "4 failures of 1 snippet may pass" in captured.out
    assert "more than --max_failure_fraction 0.05 allows" in captured.err
    assert finish.main([str(task.output), "--max_failure_fraction", "0.5"]) == 0
    assert len(task.table("friendly")) == 4 and len(task.table("failures")) == 4


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["nowhere"], "is not an output of predict or represent"),
        ([], "required: OUT"),
        (["x", "--max_failure_fraction", "2"], "must be at most 1"),
        (["x", "--max_failure_fractoin", "0.1"], "did you mean '--max_failure_fraction'?"),
        (["x", "y"], "'y' belongs to no option"),
    ],
)
def test_mistakes_are_one_line(argv, said, capfd):
    assert finish.main(argv) == 2
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and said in lines[0]


def test_three_jobs_finish_one_output(predict, own_catalogue, trees):
    """All of them build the tables of the same samples at the same time, again and again."""
    first = predict(own_catalogue, trees, *OPTIONS)
    healthy = first.table("advanced")
    ended = []

    def again():
        for _ in range(4):
            remove_reports(str(first.output), 0)  # so that there is something to build
            finish.finish(str(first.output), 0.05, [])
            ended.append(True)

    threads = [threading.Thread(target=again) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ended) == 12
    pd.testing.assert_frame_equal(first.table("advanced"), healthy)

"""Commands with another runner than the local one: one that is absent, and one that this process plays."""

import pytest

from pipelines import aggregate, audit, finish

NOWHERE = ["--runner=FlinkRunner", "--flink_master=127.0.0.1:9", "--environment_type=PROCESS"]
NO_JAR = [*NOWHERE, "--flink_job_server_jar=/nowhere.jar"]
NO_CLUSTER = ["--runner=FlinkRunner"]
IN_THREE_SNIPPETS = ["--snippet_size", 4, "--passes", 1]


@pytest.fixture(scope="module")
def output(runs, few, trees):
    """A run."""
    return runs(few, trees[0], "--passes", 1)


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (NOWHERE, 1, "the runner failed: "),
        (NO_JAR, 2, "there is no --flink_job_server_jar /nowhere.jar"),
        (NO_CLUSTER, 2, "--runner=FlinkRunner needs --flink_master=HOST:PORT"),
    ],
    ids=["no cluster there", "no jar", "no cluster named"],
)
@pytest.mark.parametrize("command", ["audit", "aggregate"])
def test_one_line(output, tmp_path, capfd, command, flags, code, said):
    """The command ends with a line, and leaves nothing."""
    words = {
        "audit": [str(output), "--report", str(tmp_path / "new")],
        "aggregate": ["--samples", str(output), "--output", str(tmp_path / "new")],
    }
    main = {"audit": audit.main, "aggregate": aggregate.main}[command]
    capfd.readouterr()
    assert main([*words[command], *flags]) == code
    captured = capfd.readouterr()
    assert captured.out == "" and not (tmp_path / "new").exists()
    (line,) = (each for each in captured.err.splitlines() if "rror" in each or "Traceback" in each)
    assert line.startswith(f"error: {said}")


def test_finish_builds_here(output, capfd):
    """It says so, and does it."""
    (output / "manifest.json").unlink()
    capfd.readouterr()
    assert finish.main([str(output), *NOWHERE]) == 0
    said = capfd.readouterr().err.splitlines()
    assert said[0] == (
        "note: the tables are built on this machine; predict with --runner=FlinkRunner builds them there"
    )
    assert (output / "manifest.json").exists()


def test_a_workers_device_is_its_own(predict, own_catalogue, trees, cluster):
    """The submitting machine need not have a GPU; a worker without one says so before its first image."""
    asked = predict(own_catalogue, trees, *IN_THREE_SNIPPETS, "--device", "cuda")
    assert asked.code == 2
    assert asked.err.splitlines()[-1].startswith("error: --device=cuda, but this machine has no usable GPU")
    assert (asked.output / "_plan").exists() and not (asked.output / "samples").exists()
    assert predict(own_catalogue, trees, *IN_THREE_SNIPPETS, "--device", "auto").code == 0


def test_snippets_on_a_cluster_build_no_tables(predict, own_catalogue, trees, cluster):
    result = predict(own_catalogue, trees, *IN_THREE_SNIPPETS, "--snippets", "1:2")
    assert result.code == 0, result.err
    assert [p.name for p in (result.output / "samples").iterdir()] == ["part-0000001.parquet"]
    assert not (result.output / "friendly").exists()

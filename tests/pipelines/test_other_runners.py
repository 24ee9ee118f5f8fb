"""Commands that are given another runner than the local one, which is not there."""

import pytest

from pipelines import aggregate, audit, finish

NOWHERE = ["--runner=PortableRunner", "--job_endpoint=127.0.0.1:9", "--job_server_timeout=1"]
NO_JAR = ["--runner=FlinkRunner", "--flink_master=127.0.0.1:9", "--flink_job_server_jar=/nowhere.jar"]


@pytest.fixture(scope="module")
def output(runs, few, trees):
    """A run."""
    return runs(few, trees[0], "--passes", 1)


@pytest.mark.parametrize(
    ("flags", "said"),
    [(NOWHERE, "the runner failed: FutureTimeoutError"), (NO_JAR, 'jar URL "/nowhere.jar"')],
    ids=["no job server", "no jar"],
)
@pytest.mark.parametrize("command", ["audit", "aggregate"])
def test_one_line(output, tmp_path, capfd, command, flags, said):
    """The command ends with a line, and leaves nothing."""
    words = {
        "audit": [str(output), "--report", str(tmp_path / "new")],
        "aggregate": ["--samples", str(output), "--output", str(tmp_path / "new")],
    }
    main = {"audit": audit.main, "aggregate": aggregate.main}[command]
    capfd.readouterr()
    assert main([*words[command], *flags]) == 1
    captured = capfd.readouterr()
    assert captured.out == "" and not (tmp_path / "new").exists()
    (line,) = (each for each in captured.err.splitlines() if "rror" in each or "Traceback" in each)
    assert line.startswith("error: the runner failed: ") and said in line


def test_finish_builds_here(output, capfd):
    """It says so, and does it."""
    (output / "manifest.json").unlink()
    capfd.readouterr()
    assert finish.main([str(output), *NOWHERE]) == 0
    said = capfd.readouterr().err.splitlines()
    assert said[0] == (
        "note: the tables are built on this machine; predict with --runner=PortableRunner builds them there"
    )
    assert (output / "manifest.json").exists()

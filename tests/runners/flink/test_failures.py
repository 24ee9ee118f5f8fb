"""What Flink says went wrong, in one line."""

import pytest

from beam_zoo.errors import RunFailed, StorageFull, UserError
from runners.flink.failures import Failure, Failures, last_cause, last_line
from runners.stack_traces import summary

PYTHON = """java.lang.RuntimeException: Error received from SDK harness for instruction 4: \
Traceback (most recent call last):
  File "apache_beam/runners/worker/sdk_worker.py", line 315, in _execute
    response = task()
{error} [while running 'infer a']

\tat org.apache.beam.runners.fnexecution.control.FnApiControlClient(FnApiControlClient.java:180)
Caused by: java.lang.IllegalStateException: something of Java's
\t... 6 more
"""
NO_START = """java.lang.Exception: The user defined 'open()' method caused an exception
Caused by: java.lang.IllegalStateException: Process died with exit code 3
\tat org.apache.beam.runners.fnexecution.environment.ProcessManager
"""
NO_PROGRAM = """java.lang.Exception: open
Caused by: java.io.IOException: Cannot run program "/nope": error=2, No such file or directory
\t... 15 more
Caused by: java.io.IOException: error=2, No such file or directory
\t... 29 more
"""


def test_summary():
    """Python's error, or the cause that says most."""
    assert (
        summary(PYTHON.format(error="ValueError: 3 is not 4"))
        == "ValueError: 3 is not 4 [while running 'infer a']"
    )
    assert summary(NO_START) == "java.lang.IllegalStateException: Process died with exit code 3"
    assert summary(NO_PROGRAM).startswith('java.io.IOException: Cannot run program "/nope"')
    assert summary("org.example.Failed: no more slots\n\tat x") == "org.example.Failed: no more slots"


@pytest.mark.parametrize(("name", "kind"), [("UserError", UserError), ("StorageFull", StorageFull)])
def test_our_own_errors(tmp_path, name, kind):
    """No restart mends them: they end the job at once, as they would a local run."""
    text = PYTHON.format(error=f"beam_zoo.errors.{name}: member a has changed")
    with pytest.raises(kind, match=r"^member a has changed$"):
        Failures(tmp_path).look([Failure(1, text)])


def test_a_failure_is_told_once(tmp_path):
    """Flink keeps all of them in its answer."""
    failures = Failures(tmp_path)
    first, second = (Failure(n, PYTHON.format(error=f"OSError: {n}")) for n in (1, 2))
    assert failures.look([first]) == ["OSError: 1 [while running 'infer a']"]
    assert failures.look([first, second]) == ["OSError: 2 [while running 'infer a']"]


def test_workers_that_cannot_start(tmp_path):
    """One may have been killed; the second ends the job, with what the newest worker said."""
    failures = Failures(tmp_path)
    assert len(failures.look([Failure(1, NO_START)])) == 1
    (tmp_path / "worker-n1-7.log").write_text("2026 worker 1-1\nNo module named torch\n\n")
    with pytest.raises(RunFailed, match=r"cannot start: No module named torch; see .*worker-n1-7\.log"):
        failures.look([Failure(1, NO_START), Failure(2, NO_START)])


def test_two_in_a_day_are_accidents(tmp_path):
    """A node that is overloaded kills a worker now and then."""
    failures = Failures(tmp_path)
    for hour in range(24):
        assert failures.look([Failure(hour * 3_600_000, NO_START)])


def test_logs(tmp_path):
    """The last cause of Flink's log, the last line of any other; a log that is not there is empty."""
    log = tmp_path / "jobmanager.log"
    log.write_text(
        "INFO a\nCaused by: java.net.BindException: Address already in use\n\tat x\nINFO stopped\n\n"
    )
    assert last_cause(log) == "java.net.BindException: Address already in use"
    assert last_line(log) == "INFO stopped"
    assert last_cause(tmp_path / "none") == last_line(tmp_path / "none") == ""

"""Errors of the program, recognised in the shapes in which runners raise them again."""

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from beam_zoo.errors import RunFailed, StorageFull, UserError, known_error
from beam_zoo.runtime.logs import worth_showing

TRACE = """Traceback (most recent call last):
  File "worker.py", line 3, in process
    raise {line}
{line}
"""


SHAPES = [
    "instruction 4 failed: {trace}",
    "java.lang.RuntimeException: Error received from SDK harness: {trace}\n\tat org.x(Y.java:1)",
    "Dataflow pipeline failed. State: FAILED, Error:\nError message from worker: {trace}\n",
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", [UserError, StorageFull, RunFailed])
def test_the_line_of_a_stack_trace(kind, shape):
    line = f"beam_zoo.errors.{kind.__name__}: member a has changed [while running 'infer a']"
    found = known_error(RuntimeError(shape.format(trace=TRACE.format(line=line))))
    assert type(found) is kind and str(found) == "member a has changed"


def test_a_message_that_quotes_a_stack_trace():
    """The header inside of a message starts no stack trace: it has no line of its own."""
    text = TRACE.format(line="beam_zoo.errors.UserError: a.py failed: Traceback (most recent call last): x")
    assert str(known_error(RuntimeError(text))) == "a.py failed: Traceback (most recent call last): x"


def _raise(error):
    raise error


@pytest.mark.parametrize(
    ("error", "known"),
    [
        (UserError("member a has changed"), "member a has changed"),
        (ValueError("cannot read beam_zoo.errors.UserError: a.jpg"), None),
        (ValueError("a.jpg\nbeam_zoo.errors.UserError: b.jpg"), None),
    ],
)
def test_what_the_local_runner_makes_of_an_error(error, known):
    with pytest.raises(Exception) as raised, beam.Pipeline(runner=FnApiRunner()) as pipeline:
        _ = pipeline | beam.Create([error]) | beam.Map(_raise)
    found = known_error(raised.value)
    assert known == (None if found is None else str(found))


@pytest.mark.parametrize(
    "text",
    [
        "cannot read beam_zoo.errors.UserError: nothing.jpg",
        "beam_zoo.errors.UserError: without a stack trace",
        TRACE.format(line="ValueError: 'beam_zoo.errors.UserError: of a file name'"),
        TRACE.format(line="FileNotFoundError: [Errno 2] no file: 'a\\nbeam_zoo.errors.UserError: b.jpg'"),
        TRACE.format(line="beam_zoo.errors.UserErrors: of another name"),
        # The last stack trace is of the error that counts.
        TRACE.format(line="beam_zoo.errors.UserError: handled") + "\n\n" + TRACE.format(line="KeyError: 3"),
    ],
)
def test_a_text_that_names_our_errors_is_none(text):
    assert known_error(RuntimeError(text)) is None


def test_causes_and_their_own_type():
    ours = UserError("what is wrong")
    wrapped = RuntimeError("a runner's")
    wrapped.__cause__ = ours
    assert known_error(wrapped) is ours
    assert str(known_error(UserError("what is wrong [while running 'load images']"))) == "what is wrong"


def test_logs_show_a_file_of_that_name(caplog):
    """Only a stack trace that the command reports in a line of its own is left out."""
    import logging

    def record(text):
        return logging.LogRecord("x", logging.ERROR, "f", 1, text, None, None)

    assert worth_showing(record("cannot read beam_zoo.errors.UserError.jpg"))
    assert not worth_showing(record(TRACE.format(line="beam_zoo.errors.UserError: x")))

"""The commands as functions: the same numbers, errors that can be caught, settings that are restored."""

import gc
import inspect
import logging
import signal
import subprocess
import sys
import threading
import warnings

import pandas as pd
import pytest
import torch

import beam_zoo
from beam_zoo.members.member import read_member
from pipelines.options import OPTIONS


def test_the_numbers_are_those_of_the_command(predict, few, trees, tmp_path):
    command = predict(few, trees, "--passes", 2, "--carry", "ra")
    output = beam_zoo.predict(few, trees, tmp_path / "out", passes=2, carry=["ra"])
    assert (output.rows, output.predicted, output.failed) == (23, 23, 0)
    for table in ("friendly", "advanced", "samples"):
        pd.testing.assert_frame_equal(getattr(output, table)(), command.table(table))
    again = beam_zoo.predict(
        few, [read_member(str(tree)) for tree in trees], tmp_path / "out", passes=2, carry="ra"
    )
    assert again.manifest["rows_reused"] == 23


def test_every_option_is_a_keyword():
    for function in (beam_zoo.predict, beam_zoo.represent):
        parameters = inspect.signature(function).parameters
        left_out = {option.name for option in OPTIONS} - set(parameters)
        assert left_out == {"snippets", "dry_run", "print_config"}
        assert all(parameters[o.name].default == o.default for o in OPTIONS if o.name == "passes")
        assert all(name in inspect.getdoc(function) for name in parameters)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pases": 3}, "no option 'pases' (did you mean 'passes'?)"),
        ({"passes": 2.5}, "--passes must be a whole number, not 2.5"),
        ({"passes": "many"}, "--passes must be a whole number"),
        ({"compile": "yes"}, "--compile must be true or false"),
        ({"snippets": "0:1"}, "no option 'snippets'"),
        ({"carry": ["rah"]}, "has no column 'rah' (did you mean 'ra'?)"),
        ({"beam_options": ["--runer=DirectRunner"]}, "there is no option --runer (did you mean '--runner'?)"),
        ({"beam_options": ["--direct_num_workers=2"]}, "the local runner is one process"),
    ],
)
def test_mistakes_are_errors(few, trees, tmp_path, options, said):
    with pytest.raises(beam_zoo.UserError, match=r"^[^\n]*$") as caught:
        beam_zoo.predict(few, trees, tmp_path / "out", **options)
    assert said in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_documented_errors(predict, few, trees, tmp_path):
    rows = pd.read_csv(few)
    rows["file_loc"] = [str(few.parent / location) for location in rows["file_loc"]]
    rows.loc[[3, 9, 20], "file_loc"] = "missing.jpg"
    rows.to_csv(tmp_path / "some.csv", index=False)
    with pytest.raises(beam_zoo.TooManyFailures, match="3 of 23 galaxies failed"):
        beam_zoo.predict(tmp_path / "some.csv", trees, tmp_path / "out", passes=1)
    assert beam_zoo.open_output(tmp_path / "out").failed == 3
    assert beam_zoo.finish(tmp_path / "out", max_failure_fraction=0.5).failed == 3
    part = next((tmp_path / "out" / "samples").iterdir())
    part.unlink()
    with pytest.raises(beam_zoo.RunFailed, match="the samples of 1 snippet are missing"):
        beam_zoo.finish(tmp_path / "out")
    with pytest.raises(beam_zoo.UserError, match="there is no output"):
        beam_zoo.export(tmp_path / "none", tmp_path / "x.hdf5")


def test_an_audit_that_finds_something(predict, few, trees):
    done = predict(few, trees, "--passes", 1)
    assert beam_zoo.audit(done.output).is_sound and "23 rows" in beam_zoo.audit(done.output).summary
    next((done.output / "friendly").iterdir()).unlink()
    report = beam_zoo.audit(done.output)
    assert not report.is_sound and any("friendly" in line and "missing" in line for line in report.problems)


PROGRAM = """
import gc, logging, signal, sys, threading, warnings
import torch, beam_zoo, apache_beam
from tests.pipelines.test_library import state
torch.manual_seed(7); torch.set_num_threads(2); torch.backends.cudnn.allow_tf32 = True
catalogue, models, output = sys.argv[1], sys.argv[2:4], sys.argv[4]
import PIL.Image, galaxy_datasets.transforms, zoobot.pytorch.training.finetune
before = state()
made = beam_zoo.predict(catalogue, models, output, passes=2)
assert made.predicted == 23
assert beam_zoo.finish(output).predicted == 23
assert beam_zoo.audit(output).is_sound
beam_zoo.aggregate([output], output + "-again")
try:
    beam_zoo.predict(catalogue, models, output, passes=3)
except beam_zoo.UserError:
    pass
after = state()
assert before == after, [(a, b) for a, b in zip(before, after) if a != b]
"""


def state() -> list[object]:
    """What a library must not change."""
    root = logging.getLogger()
    signals = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)]
    torchs = [
        torch.get_rng_state().tolist(),
        torch.get_num_threads(),
        torch.backends.cudnn.allow_tf32,
        torch.backends.cuda.matmul.allow_tf32,
    ]
    logs = [root.level, [*map(id, root.handlers)], [len(handler.filters) for handler in root.handlers]]
    collector = [gc.isenabled(), gc.get_threshold(), gc.get_freeze_count()]
    others = [threading.excepthook, sys.excepthook, [*warnings.filters]]
    return [*signals, *torchs, *logs, *collector, *others]


@pytest.mark.slow
def test_the_process_is_left_as_it_was(few, trees, tmp_path):
    """In a process of its own: here other tests have tuned it."""
    words = [sys.executable, "-c", PROGRAM, few, *trees, tmp_path / "out"]
    done = subprocess.run([*map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def test_mallopt_is_for_commands(monkeypatch):
    from beam_zoo.runtime import tuning

    called = []

    class Glibc:
        @staticmethod
        def mallopt(parameter, value):
            called.append(parameter)
            return 1

    monkeypatch.setattr(tuning.ctypes, "CDLL", lambda name: Glibc)
    with tuning.callers_process():
        tuning.keep_freed_memory()
        assert not tuning.is_ours()
    assert not called
    tuning.keep_freed_memory()
    assert called and tuning.is_ours()
    assert gc.isenabled()

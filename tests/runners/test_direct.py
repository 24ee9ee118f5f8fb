"""The local runner's options are Beam's, and its worker processes have their share of the cores."""

import contextlib
import copy
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import (
    DebugOptions,
    DirectOptions,
    GoogleCloudOptions,
    PipelineOptions,
)

from runners import direct
from runners.direct import ViewedOptions

FLAGS = ["--direct_num_workers=3", "--experiments=one", "--job_name=job", "--pickle_library=cloudpickle"]


@pytest.mark.parametrize("flags", [[], FLAGS])
def test_views_are_those_of_beam(flags):
    ours, beams = ViewedOptions(flags), PipelineOptions(flags)
    for view in PipelineOptions.__subclasses__():
        made = ours.view_as(view)
        assert type(made) is view
        assert made is ours.view_as(view)
        assert vars(made._visible_options) == vars(beams.view_as(view)._visible_options)
    assert ours.get_all_options() == beams.get_all_options()


def test_what_one_view_changes_others_see():
    options = ViewedOptions(FLAGS)
    options.view_as(DebugOptions).experiments.append("two")
    options.view_as(DirectOptions).direct_num_workers = 4
    assert options.view_as(DebugOptions).experiments == ["one", "two"]
    assert options.get_all_options()["experiments"] == ["one", "two"]
    assert options.get_all_options()["direct_num_workers"] == 4


@pytest.mark.parametrize("account", [[], ["--impersonate_service_account=somebody"]])
def test_views_of_a_copy_are_of_the_copy(account):
    """Beam copies options, and leaves an account out of copies."""
    options = ViewedOptions([*FLAGS, *account])
    options.view_as(GoogleCloudOptions).temp_location = "/tmp/a"
    copied = copy.deepcopy(options)
    copied.view_as(GoogleCloudOptions).temp_location = "/tmp/b"
    assert copied.get_all_options()["temp_location"] == "/tmp/b"
    assert copied.view_as(GoogleCloudOptions).impersonate_service_account is None
    assert options.view_as(GoogleCloudOptions).temp_location == "/tmp/a"


@pytest.mark.parametrize("chosen", [None, "5"])
def test_workers_threads_are_theirs_alone(chosen, tmp_path, monkeypatch):
    """As many as their share of the cores, or as the user chose; what this process starts later is not concerned."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if chosen:
        monkeypatch.setenv("OMP_NUM_THREADS", chosen)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    python = tmp_path / "a=b" / "it's python"  # no path is too odd
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(python))

    def build(pipeline: beam.Pipeline) -> None:
        numbers = pipeline | beam.Create(range(8))
        said = numbers | beam.Map(lambda _: f"{os.getpid()} {os.environ['OMP_NUM_THREADS']}")
        said | beam.io.WriteToText(str(tmp_path / "said"))

    direct.run(build, ["--direct_running_mode=multi_processing", "--direct_num_workers=2"])
    said = [line.split() for path in tmp_path.glob("said*") for line in path.read_text().splitlines()]
    assert len(said) == 8
    assert {number for _, number in said} == {chosen or "3"}
    assert str(os.getpid()) not in {process for process, _ in said}
    assert os.environ.get("OMP_NUM_THREADS") == chosen


INTERRUPTED = """
import concurrent.futures, os, signal, sys, time
import apache_beam as beam
from beam_zoo.quiet import set_up_logging
from runners import direct

FOLDER, STAGE = sys.argv[1:]

class AtWork(beam.DoFn):
    def __init__(self):
        self.folder, self.stage = FOLDER, STAGE

    def setup(self):
        self.pool = concurrent.futures.ThreadPoolExecutor(2)
        if self.stage == "setup":
            self.work()

    def process(self, number):
        self.work()

    def work(self):
        self.pool.submit(self.write)
        while True:  # as forward passes, which look at nothing else
            self.pool.submit(time.sleep, 0.001).result()

    def write(self):  # as a part is written
        name = os.path.join(self.folder, str(os.getpid()))
        open(name + ".begun", "w").close()
        time.sleep(1.5)
        open(name + ".written", "w").close()

    def teardown(self):
        self.pool.shutdown()

set_up_logging()
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    direct.run(
        lambda p: p | beam.Create([0, 1]) | beam.Reshuffle() | beam.ParDo(AtWork()),
        ["--direct_running_mode=multi_processing", "--direct_num_workers=2", "--save_main_session"],
    )
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("stage", ["setup", "process"])
@pytest.mark.parametrize("whom", ["the command", "all"])
def test_interrupted_workers_say_nothing(stage, whom, tmp_path):
    """Whether the signal came to the command or, by a terminal's Ctrl-C, to all; and what they are writing is written."""
    script = tmp_path / "interrupted.py"
    script.write_text(INTERRUPTED)
    process = subprocess.Popen(
        [sys.executable, script, tmp_path, stage],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while len(workers := [path.stem for path in tmp_path.glob("*.begun")]) < 2:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        if whom == "all":
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=120) == ("interrupted\n", "")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0
    if stage == "process":
        assert sorted(path.stem for path in tmp_path.glob("*.written")) == sorted(workers)

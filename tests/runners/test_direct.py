"""The local runner's options are Beam's, and its worker processes have their share of the cores."""

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
    workers = os.cpu_count() or 1

    def build(pipeline: beam.Pipeline) -> None:
        names = pipeline | beam.Create(range(8))
        said = names | beam.Map(lambda _: f"{os.getpid()} {os.environ['OMP_NUM_THREADS']}")
        said | beam.io.WriteToText(str(tmp_path / "said"))

    direct.run(build, ["--direct_running_mode=multi_processing", f"--direct_num_workers={max(2, workers)}"])
    said = [line.split() for path in tmp_path.glob("said*") for line in path.read_text().splitlines()]
    assert len(said) == 8
    assert {number for _, number in said} == {chosen or "1"}
    assert str(os.getpid()) not in {process for process, _ in said}
    assert os.environ.get("OMP_NUM_THREADS") == chosen


INTERRUPTED = """
import concurrent.futures, os, signal, sys, time
import apache_beam as beam
from beam_zoo.quiet import set_up_logging
from runners import direct

class AtWork(beam.DoFn):
    def setup(self):
        self.pool = concurrent.futures.ThreadPoolExecutor(2)
    def process(self, number):
        open(sys.argv[1] + str(number), "w").write(str(os.getpid()))
        while True:  # as forward passes, which look at nothing else
            self.pool.submit(time.sleep, 0.001).result()
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


def test_interrupted_workers_say_nothing(tmp_path):
    """Nor do they go on: their steps are not torn down while they are at work, which would end in complaints."""
    script = tmp_path / "interrupted.py"
    script.write_text(INTERRUPTED.replace("sys.argv[1]", repr(f"{tmp_path}/worker-")))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, script], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not (started := list(tmp_path.glob("worker-*"))):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)
    assert said == ("interrupted\n", "")
    assert process.returncode == 0
    for path in started:
        assert not Path("/proc", path.read_text()).exists()

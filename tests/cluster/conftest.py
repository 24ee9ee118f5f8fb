"""A real Slurm, a real Flink, and predictions that are submitted to them."""

import dataclasses
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipelines import predict
from runners.slurm.__main__ import main as slurm_main
from runners.slurm.jobs import ENDED
from tests import checkpoints
from tests.cluster import job_server, slurm
from tests.waiting import wait_for

SECONDS = 200
CLEAR = 60
"""Seconds in which a job that cannot go on has ended: 30 are promised, and this machine may be a busy one."""
RUN = ["--snippet_size", 8, "--carry", "ra"]
"""Options of the prediction that `direct_run` makes on this machine, to be held against those of clusters."""
SLOW = ["--snippet_size", 4, "--passes", 10]
"""Options of predictions with the member `slow`: long enough for something to happen to their job."""
MEMORY = ["--taskmanager_memory", "1200m", "--jobmanager_memory", "800m"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """These tests need what a laptop rarely has; CI has it, and there its absence is an error."""
    lacking = slurm.missing()
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)
            if lacking and "CI" not in os.environ:
                item.add_marker(pytest.mark.skip(reason=f"cluster tests need {', '.join(lacking)}"))


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two nodes."""
    assert not slurm.missing()
    folder = tmp_path_factory.mktemp("slurm") / "slurm"
    # Two workers share the cores of one host here.
    with pytest.MonkeyPatch.context() as patch, slurm.running(folder):
        patch.setenv("OMP_NUM_THREADS", "1")
        scratch = folder.parent / "scratch"
        scratch.mkdir()
        patch.setenv("TMPDIR", str(scratch))
        yield folder


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """What several processes of the tests need, and what the first of them makes.

    Args:
        factory: of temporary folders.
        name: of the file or folder.
        make: makes it, with the path as its argument.

    Returns:
        Its path.
    """
    base = factory.getbasetemp()
    # A process of pytest-xdist has a folder of its own in the folder of the session.
    path = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    done = path.with_name(f"{name}.done")
    with open(path.with_name(f"{name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            make(path)
            done.touch()
    return path


@pytest.fixture(scope="session")
def flink(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Flink, as a user installs it."""

    def install(folder: Path) -> None:
        words = [sys.executable, "-m", "runners.flink", "install", folder]
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    return made_once(tmp_path_factory, "flink", install)


@pytest.fixture(scope="session")
def job_server_jar(flink: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job server, which Beam would otherwise download."""
    name = "beam-runners-flink-1.19-job-server.jar"
    return made_once(tmp_path_factory, name, lambda jar: job_server.make(flink, jar))


@pytest.fixture(scope="session")
def direct_run(catalogue: Path, trees: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of the local runner: both trees, with `RUN`."""
    return made_once(tmp_path_factory, "direct", lambda output: predict_here(catalogue, trees, output, *RUN))


def predict_here(catalogue: Path, models: list[Path], output: Path, *options: object) -> None:
    """Predict with the local runner, in this process."""
    words = ["--catalogue", catalogue, "--models", *models, "--output", output, *options]
    assert predict.main([str(word) for word in words]) == 0


@pytest.fixture(scope="session")
def slow(trees: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A member that takes its time: an encoder pass, and a view, for every pass."""
    path = tmp_path_factory.mktemp("slow") / "slow.yaml"
    return checkpoints.member(
        path, trees[0].with_suffix(".ckpt"), view="default", schema=checkpoints.TREE_SCHEMA
    )


@dataclasses.dataclass
class Job:
    """A job that was submitted.

    Attributes:
        id: Slurm's.
        output: folder of the output.
        finish: id of the job that builds an array's tables.
    """

    id: str
    output: Path
    finish: str | None = None

    @property
    def folder(self) -> Path:
        """Where Flink's logs are."""
        return self.output / "_slurm" / self.id

    def log(self) -> str:
        """The job's log."""
        path = self.output / "_slurm" / f"{self.id}.log"
        return path.read_text() if path.exists() else ""

    def last_line(self) -> str:
        """Of its log."""
        return self.log().strip().splitlines()[-1]

    def field(self, name: str, job: str | None = None) -> str:
        """What Slurm says of it, such as `JobState`."""
        words = ["scontrol", "--oneliner", "show", "job", job or self.id]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        found = re.findall(rf"\b{name}=(\S+)", done.stdout)
        return ",".join(sorted(set(found)))

    def wait(self, seconds: float = SECONDS) -> str:
        """Its state when it has ended."""
        wait_for(lambda: self.has_ended(self.id), seconds, self.log)
        return self.field("JobState")

    def has_ended(self, job: str) -> bool:
        """Whether it, or all tasks of an array, are in a state that lasts."""
        return set(self.field("JobState", job).split(",")) <= ENDED

    def parts(self) -> dict[str, int]:
        """Stored parts, by name, with their inodes: a part that was written again has another."""
        return {path.name: path.stat().st_ino for path in (self.output / "samples").glob("part-*.parquet")}

    def wait_for_parts(self, count: int) -> None:
        """Until so many are stored."""
        wait_for(lambda: len(self.parts()) >= count, SECONDS, self.log)

    def manifest(self) -> dict:
        """The output's manifest."""
        return json.loads((self.output / "manifest.json").read_text())

    def processes(self) -> dict[int, list[str]]:
        """Command lines of all that the job has started and that is still there."""
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                environment = (entry / "environ").read_bytes().split(b"\0")
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if f"SLURM_JOB_ID={self.id}".encode() in environment and words != [""]:
                found[int(entry.name)] = words
        return found

    def workers(self) -> list[int]:
        """Python workers that are there, the youngest last."""
        logs = sorted(self.folder.glob("worker-*.log"), key=lambda log: log.stat().st_ctime)
        pids = [int(log.stem.rpartition("-")[2]) for log in logs]
        return [pid for pid in pids if Path(f"/proc/{pid}").exists()]

    def kill(self, words: str, number: int = signal.SIGKILL) -> None:
        """A signal to one of its processes whose command line holds these words."""
        pid = next(pid for pid, line in self.processes().items() if words in " ".join(line))
        os.kill(pid, number)

    def assert_nothing_left(self) -> None:
        """No process, no key, no scratch."""
        wait_for(lambda: not self.processes(), 20, lambda: str(self.processes()))
        assert not (self.folder / "private").exists()
        assert not list(Path(os.environ["TMPDIR"]).glob("beam-zoo-*"))


@pytest.fixture
def submit(cluster, flink, catalogue, trees, tmp_path, capfd):
    """Submits a prediction as a user does: options of the job, then those of predict."""
    jobs: list[Job] = []

    def submit(
        job_options: list[object], *options: object, models=trees, output: Path | None = None, flink=flink
    ) -> Job:
        folder = output or tmp_path / f"output-{len(jobs)}"
        words = ["submit", "--time", "00:10:00", *job_options]
        if "array" not in job_options:
            words += ["--flink", flink, *MEMORY]
        words += ["--", "--catalogue", catalogue, "--models", *models, "--output", folder, *options]
        capfd.readouterr()
        code = slurm_main([str(word) for word in words])
        said = capfd.readouterr()
        assert code == 0, said.err
        ids = re.findall(r"^job (\d+)", said.out, re.MULTILINE)
        jobs.append(Job(ids[0], folder, *ids[1:]))
        return jobs[-1]

    yield submit
    for job in jobs:
        subprocess.run(["scancel", "--quiet", job.id, *([job.finish] if job.finish else [])])
    for job in jobs:
        job.wait()


@pytest.fixture
def slurm_command(capfd):
    """Runs `python -m runners.slurm` with these words in this process: code, stdout, stderr."""

    def run(*words: object) -> tuple[int, str, str]:
        capfd.readouterr()
        code = slurm_main([str(word) for word in words])
        said = capfd.readouterr()
        return code, said.out, said.err

    return run

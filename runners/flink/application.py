"""One pipeline as one Flink application, with a JobManager and TaskManagers of its own."""

import dataclasses
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from beam_zoo.errors import RunFailed, UserError
from runners.flink import failures, jvm, keys
from runners.flink.job_manager import JobManager, Ports
from runners.flink.nodes import MISTAKE, Nodes, Start, end

if TYPE_CHECKING:
    import apache_beam as beam

POLL_SECONDS = 0.5
STOP_SECONDS = 20.0
SILENCE_SECONDS = 60.0
CUT_OFF_SECONDS = 10.0
"""How long a host may be unreachable after its TaskManager was lost, before the job fails."""
FAILED_STARTS = 3
"""After so many starts of a TaskManager in a row without a registration the job fails."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How Flink is run; nothing here changes results.

    Attributes:
        installation: folder of `python -m runners.flink install`.
        folder: of this job's logs, with mode 700.
        ports: of the JobManager.
        jobmanager_memory, taskmanager_memory: of a JVM, in Flink's format (`1536m`), without Python workers.
        registration_seconds: how long to wait for all TaskManagers.
        restarts: limit of the restarts of TaskManagers, and of those of the job.
    """

    installation: Path
    folder: Path
    ports: Ports
    jobmanager_memory: str
    taskmanager_memory: str
    registration_seconds: float
    restarts: int


class Application:
    """A Flink cluster for one pipeline, which other users cannot connect to.

    It is a context manager: TaskManagers start when it is entered, while the pipeline is prepared; then call
    `run`.

    Args:
        settings: how Flink is run.
        nodes: starts TaskManagers on nodes.
    """

    def __init__(self, settings: Settings, nodes: Nodes) -> None:
        self._settings, self._nodes = settings, nodes
        self._taskmanagers: dict[str, subprocess.Popen[bytes]] = {}
        self._count = dict.fromkeys(nodes.names, 0)
        self._starts: dict[str, Start] = {}
        self._started: dict[str, float] = {}
        self._registered: set[str] = set()  # identities that have registered at any time
        self._ended: dict[str, float] = {}  # identities that were lost -> when they were ended
        self._asked_to_end = False
        self._failed_starts = dict.fromkeys(nodes.names, 0)
        self._restarts_left = settings.restarts
        self._failures = failures.Failures(settings.folder)
        self._private = settings.folder / keys.FOLDER
        self._manager = JobManager(
            settings.installation,
            self._private,
            settings.folder,
            uuid.uuid4().hex,
            nodes.address,
            settings.ports,
        )

    def __enter__(self) -> "Application":
        """Make the job's key, and start the TaskManagers.

        Raises:
            UserError: there is no suitable Java on this host.
        """
        jvm.check()
        shutil.rmtree(self._private, ignore_errors=True)  # left over if the job was requeued
        self._private.mkdir(mode=0o700, parents=True)
        try:
            self._manager.configure(keys.Key.make(self._private), self._flink_settings())
            for name in self._nodes.names:
                self._start(name)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop all processes, and remove the key."""
        self._ask_to_end()
        deadline = time.monotonic() + STOP_SECONDS
        self._manager.wait(STOP_SECONDS)
        for process in self._taskmanagers.values():
            end(process, max(0.0, deadline - time.monotonic()))
        shutil.rmtree(self._private, ignore_errors=True)

    def run(self, build: Callable[["beam.Pipeline"], object], flags: list[str]) -> None:
        """Run a pipeline to its end.

        Args:
            build: adds the steps to a pipeline.
            flags: Beam's options.

        Raises:
            RunFailed: the job failed, or too many processes were lost; the same command goes on.
            UserError: a node or a worker reported an error that the user can correct.
            StorageFull: a worker found the output's disk full.
        """
        from runners.flink import job_jar  # imports Beam, which takes seconds

        manager = self._manager
        job_jar.write(manager.job_jar, build, [*self._beam_flags(), *map(_for_java, flags)])
        manager.start(self._nodes)
        # The time to register begins now, when there is a JobManager.
        self._started = dict.fromkeys(self._nodes.names, time.monotonic())
        _say(
            f"Flink's dashboard: https://127.0.0.1:{self._settings.ports.rest} on {os.uname().nodename}, "
            f"key in {self._private}"
        )
        self._watch()
        self._ask_to_end()  # now, so that they end while the manifest is written
        manager.check_result()

    def _ask_to_end(self) -> None:
        if self._taskmanagers and not self._asked_to_end:
            self._asked_to_end = True
            self._nodes.stop()

    def _flink_settings(self) -> dict[str, object]:
        settings = self._settings
        return {
            "jobmanager.memory.process.size": settings.jobmanager_memory,
            "taskmanager.memory.process.size": settings.taskmanager_memory,
            # All slots of a TaskManager share one Python process. So each has one slot, and each GPU a
            # TaskManager.
            "taskmanager.numberOfTaskSlots": 1,
            # The default needs 16 MiB of network buffers for each shuffle, and little is shuffled.
            "taskmanager.network.sort-shuffle.min-buffers": 64,
            "taskmanager.memory.network.fraction": 0.2,
            "slot.request.timeout": int((settings.registration_seconds + 60) * 1000),
            "restart-strategy.type": "fixed-delay",
            "restart-strategy.fixed-delay.attempts": settings.restarts,
            "restart-strategy.fixed-delay.delay": "2 s",
            "cluster.registration.error-delay": 500,
            # TaskManagers start long before the JobManager; `_look_at` has a timeout of its own.
            "taskmanager.registration.timeout": "30 d",
            "heartbeat.interval": 4000,
            "heartbeat.timeout": 20000,
            # Cancelling a task that reads from a lost TaskManager may hang: then its TaskManager is
            # restarted.
            "task.cancellation.interval": 5000,
            "task.cancellation.timeout": 30000,
        }

    def _beam_flags(self) -> list[str]:
        return [
            "--default_sdk_harness_log_level=WARN",
            "--environment_type=PROCESS",
            f"--environment_config={self._manager.environment_config()}",
            "--sdk_worker_parallelism=1",
            # Python processes are not kept for later steps: Beam would also keep one that was killed.
            "--environment_cache_millis=0",
            f"--parallelism={len(self._nodes.names)}",
        ]

    def _start(self, name: str) -> None:
        self._count[name] += 1
        flink = self._settings.installation / "flink"
        identity, log = self._identity(name), self._log(name)
        self._starts[name] = Start(self._nodes, log)
        self._taskmanagers[name] = self._nodes.start(name, identity, self._manager.environment(), flink, log)
        self._started[name] = time.monotonic()

    def _identity(self, name: str) -> str:
        """The id under which a TaskManager registers: its name and the number of its start."""
        return f"{name}~{self._count[name]}"

    def _log(self, name: str) -> Path:
        return self._settings.folder / f"taskmanager-{name}.log"

    def _watch(self) -> None:
        """Watch the job until the JobManager ends, which it does when the job ends."""
        manager = self._manager
        answered = time.monotonic()
        while manager.is_running():
            for name, process in list(self._taskmanagers.items()):
                if (code := process.poll()) is not None:
                    self._start_again(name, code)
            registered = manager.taskmanagers()
            if registered is not None:
                answered = time.monotonic()
                self._look_at(registered)
            elif time.monotonic() - answered > SILENCE_SECONDS:
                silence = f"Flink's JobManager has not answered for {SILENCE_SECONDS:.0f} s"
                raise RunFailed(f"{silence}: see {self._settings.folder}")
            for line in self._failures.look(manager.failures()):
                _say(f"Flink goes on after a failure: {line}")
            time.sleep(POLL_SECONDS)

    def _look_at(self, registered: set[str]) -> None:
        """End TaskManagers that were lost; fail if one does not register in time."""
        late = []
        for name, process in self._taskmanagers.items():
            identity = self._identity(name)
            if identity in registered:
                self._registered.add(identity)
            elif identity in self._registered:
                if identity not in self._ended:
                    _say(f"TaskManager {name} does not answer any more: it is ended")
                    self._ended[identity] = time.monotonic()
                    process.terminate()  # srun then kills its task
                elif not self._nodes.reaches(name):
                    self._fail_if_cut_off(name, process, since=self._ended[identity])
            elif time.monotonic() - self._started[name] > self._settings.registration_seconds:
                late.append(name)
        if late:
            refusals = [f" ({refusal})" for name in late if (refusal := self._starts[name].refusal())]
            raise RunFailed(
                f"{len(late)} of {len(self._taskmanagers)} TaskManagers did not register in "
                f"{self._settings.registration_seconds:.0f} s: {', '.join(late)}"
                f"{refusals[0] if refusals else ''}; see their logs in {self._settings.folder}"
            )

    def _fail_if_cut_off(self, name: str, process: "subprocess.Popen[bytes]", since: float) -> None:
        if time.monotonic() - since > CUT_OFF_SECONDS:
            process.kill()  # srun would wait for an answer of that host
            raise RunFailed(
                f"the host of TaskManager {name} cannot be reached on the network any more: "
                "the same command goes on where the nodes reach each other"
            )

    def _start_again(self, name: str, code: int) -> None:
        if code == MISTAKE:
            raise UserError(failures.last_line(self._log(name)).removeprefix("error: "))
        what = f"TaskManager {name} ended (exit code {code})"
        registered = self._identity(name) in self._registered
        self._failed_starts[name] = 0 if registered else self._failed_starts[name] + 1
        if self._failed_starts[name] >= FAILED_STARTS:
            last = self._starts[name].refusal() or failures.last_cause(self._log(name))
            times = f"{what} before it registered, {FAILED_STARTS} times"
            raise RunFailed(f"{times}: {last}; see {self._log(name)}")
        if not self._restarts_left:
            raise RunFailed(f"{what}, and was started again often enough: see {self._settings.folder}")
        self._restarts_left -= 1
        _say(f"{what}: it is started again, {self._restarts_left} more times at most")
        self._start(name)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _for_java(flag: str) -> str:
    """A flag with a log level as Java names it: Flink's runner reads the options too."""
    name, equals, level = flag.partition("=")
    if name != "--default_sdk_harness_log_level":
        return flag
    return f"{name}{equals}{ {'WARNING': 'WARN', 'CRITICAL': 'ERROR'}.get(level.upper(), level) }"

"""The JobManager of one application: its configuration, its process and its REST interface."""

import dataclasses
import json
import os
import shutil
import ssl
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from beam_zoo.errors import RunFailed
from runners.flink import failures, install
from runners.flink.boot import LOGS, PYTHON
from runners.flink.failures import Failure, Failures
from runners.flink.keys import Key
from runners.flink.nodes import Nodes, Start, end

JOB_CLASS = "org.apache.beam.runners.flink.FlinkPipelineRunner"
FAST_START = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
"""Options of Java for a faster start; the JVMs do little work besides moving data."""
REST_SECONDS = 5.0
LOOPBACK = "127.0.0.1"


@dataclasses.dataclass(frozen=True)
class Ports:
    """Ports of the JobManager: for TaskManagers, and of its REST interface on loopback."""

    rpc: int
    rest: int


class JobManager:
    """A JobManager that runs one job and ends with it.

    Args:
        installation: folder of `python -m runners.flink install`.
        private: folder of mode 700, on a shared file system.
        logs: folder of the logs.
        job_id: 32 hexadecimal digits.
        address: IP address of this host for TaskManagers.
        ports: of the JobManager.
    """

    def __init__(
        self, installation: Path, private: Path, logs: Path, job_id: str, address: str, ports: Ports
    ) -> None:
        self._installation, self._logs, self._job_id = installation, logs, job_id
        self._address, self._ports = address, ports
        self.conf = private / "conf"
        self.job_jar = private / "job.jar"
        self._archive = private / "archive"
        self._scratch = private / "jobmanager"
        self._process: subprocess.Popen[bytes] | None = None
        self._start: Start | None = None
        self._client: ssl.SSLContext | None = None
        self._job_is_there = False

    def configure(self, key: Key, settings: dict[str, object]) -> None:
        """Write Flink's configuration, for the JobManager and the TaskManagers.

        Args:
            key: of this job.
            settings: Flink's other settings.
        """
        self._client = key.context()
        shutil.copytree(self._installation / "flink" / "conf", self.conf)
        self._archive.mkdir()
        self._scratch.mkdir()
        file = self.conf / "config.yaml"
        shipped = yaml.safe_load(file.read_text())
        # On Java 17 Flink needs the options of its default configuration.
        java = f"{shipped['env']['java']['opts']['all']} {FAST_START}"
        chosen: dict[str, object] = {"env.java.opts.all": java, **settings, **key.settings()}
        chosen |= {
            "jobmanager.rpc.address": self._address,
            "jobmanager.rpc.port": self._ports.rpc,
            "jobmanager.bind-host": self._address,
            "rest.address": LOOPBACK,
            "rest.bind-address": LOOPBACK,
            "rest.port": self._ports.rest,
            "web.submit.enable": False,
            "web.cancel.enable": False,
            "jobmanager.archive.fs.dir": f"file://{self._archive}",  # Flink does not decode %20
        }
        # Flink logs to its output; a second copy in rolling files is not needed.
        logging = self.conf / "log4j-console.properties"
        lines = logging.read_text().splitlines()
        logging.write_text("\n".join(line for line in lines if "rolling" not in line.lower()))
        file.unlink()
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as out:
            yaml.safe_dump(chosen, out)

    def environment(self) -> dict[str, str]:
        """Environment variables of Flink's scripts, which Python workers inherit."""
        return {
            **os.environ,
            PYTHON: sys.executable,
            LOGS: str(self._logs),
            "FLINK_CONF_DIR": str(self.conf),
            "FLINK_LOG_DIR": str(self._logs),
            "HADOOP_CLASSPATH": f"{install.class_path(self._installation)}:{self.job_jar}",
        }

    def environment_config(self) -> str:
        """Value of Beam's `--environment_config`: how a TaskManager starts its Python worker."""
        return json.dumps({"command": str(self._installation / "boot")})

    def start(self, nodes: Nodes) -> None:
        """Start the JobManager's process on this host."""
        script = self._installation / "flink" / "bin" / "standalone-job.sh"
        words = [str(script), "start-foreground", "--job-classname", JOB_CLASS, "--job-id", self._job_id]
        words += ["-D", f"io.tmp.dirs={self._scratch}", "-D", f"web.tmpdir={self._scratch}"]
        log = self._logs / "jobmanager.log"
        self._start = Start(nodes, log)
        self._process = nodes.start_here(words, self.environment(), log)

    def is_running(self) -> bool:
        """Whether the JobManager's process is running."""
        return self._process is not None and self._process.poll() is None

    def wait(self, seconds: float) -> None:
        """Wait for its end, and kill it if that takes longer."""
        if self._process is not None:
            end(self._process, seconds)

    def check_result(self) -> None:
        """After the JobManager's end, raise the job's error, if there is one.

        Raises:
            UserError: a worker reported an error that the user can correct.
            StorageFull: a worker found the output's disk full.
            RunFailed: any other error.
        """
        assert self._process is not None and self._start is not None
        file = self._archive / self._job_id
        if not file.exists():
            if refusal := self._start.refusal():
                raise RunFailed(f"Flink's JobManager cannot be started: {refusal}; see {self._logs}")
            last = failures.last_cause(self._logs / "jobmanager.log")
            raise RunFailed(
                f"Flink's JobManager ended with exit code {self._process.returncode} and left no result"
                f"{f' ({last})' if last else ''}: the same command goes on; see {self._logs}"
            )
        said = {entry["path"]: json.loads(entry["json"]) for entry in json.loads(file.read_text())["archive"]}
        state = said[f"/jobs/{self._job_id}"]["state"]
        if state == "FINISHED":
            return
        # Empty if the job was cancelled through the REST interface.
        text = said[f"/jobs/{self._job_id}/exceptions"].get("root-exception") or f"its state is {state}"
        raise Failures(self._logs).error(text)

    def taskmanagers(self) -> set[str] | None:
        """Ids of the registered TaskManagers; None if the JobManager does not answer."""
        found = self._get("/taskmanagers").get("taskmanagers")
        return None if found is None else {each["id"] for each in found}

    def failures(self) -> list[Failure]:
        """The failures that made the job restart, so far."""
        self._job_is_there = self._job_is_there or bool(self._get("/jobs").get("jobs"))
        if not self._job_is_there:
            return []
        entries = self._get(f"/jobs/{self._job_id}/exceptions").get("exceptionHistory", {}).get("entries", [])
        return [Failure(entry["timestamp"], entry["stacktrace"]) for entry in entries]

    def _get(self, path: str) -> dict[str, Any]:
        """An answer of the REST interface; empty if there is none, as at the start and at the end."""
        url = f"https://{LOOPBACK}:{self._ports.rest}{path}"
        try:
            with urllib.request.urlopen(url, timeout=REST_SECONDS, context=self._client) as answer:
                return json.load(answer)
        except (OSError, ValueError):
            return {}

"""Run a pipeline on an existing Flink cluster: upload one jar through its REST interface.

Beam itself would start a job server, or a service for staged files, that runs requests of anybody who can
connect as the user. Here no port is opened and no code is sent: it is installed on the workers.
"""

import contextlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
import requests
from apache_beam.options.pipeline_options import FlinkRunnerOptions, PipelineOptions, PortableOptions
from apache_beam.runners.portability.flink_runner import MAGIC_HOST_NAMES, FlinkRunner
from apache_beam.runners.portability.flink_uber_jar_job_server import FlinkUberJarJobServer

from beam_zoo.errors import RunFailed, UserError, known_error, near_path, one_line
from runners.flink import install, job_jar
from runners.flink.job_manager import JOB_CLASS
from runners.stack_traces import summary

POLL_SECONDS = 1.0
SILENCE_SECONDS = 60.0
REQUEST_SECONDS = 60.0
ENDED = ("FINISHED", "FAILED", "CANCELED")


def check(flags: list[str]) -> None:
    """Check that a cluster is named, and that workers need no services on the network.

    Args:
        flags: Beam's options.

    Raises:
        UserError: an option is missing or not allowed.
    """
    options = PipelineOptions(flags)
    if options.view_as(FlinkRunnerOptions).flink_master in MAGIC_HOST_NAMES:
        raise UserError(
            "--runner=FlinkRunner needs --flink_master=HOST:PORT, of a cluster that runs already; "
            "inside a job of Slurm python -m runners.slurm submit starts one"
        )
    jar = options.view_as(FlinkRunnerOptions).flink_job_server_jar
    if jar and "://" not in jar and not Path(jar).is_file():
        raise UserError(f"there is no --flink_job_server_jar {jar}{near_path(jar)}")
    if options.view_as(PortableOptions).environment_type != "PROCESS":
        raise UserError(
            "--runner=FlinkRunner needs --environment_type=PROCESS: workers in containers or pools are "
            "served over the network, without a password (docs/clusters.md has the options)"
        )


def run(build: Callable[[beam.Pipeline], object], flags: list[str]) -> None:
    """Run a pipeline to its end; Ctrl-C cancels it.

    Args:
        build: adds the steps to a pipeline.
        flags: Beam's options, `--flink_master` among them.

    Raises:
        UserError: there is no jar of Beam's Flink runner.
        RunFailed: the cluster does not answer, or the job failed.
    """
    options = PipelineOptions(flags)
    cluster = _Cluster(FlinkRunner.add_http_scheme(options.view_as(FlinkRunnerOptions).flink_master))
    if "flink-version" not in cluster.ask("GET", "config"):
        raise UserError(f"--flink_master={cluster.url} is no Flink cluster")
    with tempfile.TemporaryDirectory(prefix="beam-zoo-flink-") as folder:
        jar = Path(folder, "job.jar")
        # The jar runs on the JobManager, which needs no address.
        theirs = [flag for flag in flags if not flag.startswith("--flink_master")]
        runner = _runner_jar(cluster.url, options)
        # `ServerFactory` is replaced, so that other users cannot connect to workers.
        job_jar.write(jar, build, theirs, runner, install.classes(runner, str(runner)))
        uploaded = cluster.upload(jar)
    try:
        job = cluster.ask("POST", f"jars/{uploaded}/run", json={"entryClass": JOB_CLASS})["jobid"]
        try:
            while (state := cluster.state(job)) not in ENDED:
                time.sleep(POLL_SECONDS)
        except KeyboardInterrupt:
            with contextlib.suppress(RunFailed):
                cluster.ask("PATCH", f"jobs/{job}?mode=cancel")
            raise
        if state != "FINISHED":
            cause = cluster.ask("GET", f"jobs/{job}/exceptions").get("root-exception")
            text = cause or f"its state is {state}"
            failed = RunFailed(f"the runner failed: {summary(text)}; try the same command again")
            raise known_error(RuntimeError(text)) or failed
    finally:
        with contextlib.suppress(RunFailed):
            cluster.ask("DELETE", f"jars/{uploaded}")


def _runner_jar(url: str, options: PipelineOptions) -> Path:
    """The jar of Beam's Flink runner: that of the option, or one that Beam downloads for the cluster."""
    given = options.view_as(FlinkRunnerOptions).flink_job_server_jar
    try:
        return Path(FlinkUberJarJobServer(url, options).executable_jar())
    except requests.RequestException as error:
        raise RunFailed(f"the runner failed: {one_line(error)}") from None
    except Exception as error:
        option = f"--flink_job_server_jar {given} cannot be had"
        what = option if given else "Beam cannot download its Flink runner"
        raise UserError(
            f"{what} ({one_line(error)}): give --flink_job_server_jar PATH, a jar named "
            "beam-runners-flink-VERSION-job-server from a Maven repository, of the cluster's version of Flink"
        ) from None


class _Cluster:
    """The REST interface of a Flink cluster.

    Args:
        url: with http:// or https://.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def upload(self, jar: Path) -> str:
        """Upload a jar; returns its id on the cluster."""
        with open(jar, "rb") as file:
            answer = self.ask("POST", "jars/upload", files={"jarfile": ("beam-zoo.jar", file)}, timeout=None)
        return answer["filename"].rpartition("/")[2]

    def state(self, job: str) -> str:
        """The state of a job; retried if the cluster does not answer, for example during a failover."""
        begin = time.monotonic()
        while True:
            try:
                return self.ask("GET", f"jobs/{job}")["state"]
            except RunFailed:
                if time.monotonic() - begin > SILENCE_SECONDS:
                    raise RunFailed(
                        f"{self.url} has not answered for {SILENCE_SECONDS:.0f} s: its job {job} may go on; "
                        "end it there, then try the same command again"
                    ) from None
                time.sleep(POLL_SECONDS)

    def ask(
        self, method: str, path: str, timeout: float | None = REQUEST_SECONDS, **more: Any
    ) -> dict[str, Any]:
        """The answer of a request, as JSON.

        Raises:
            RunFailed: the cluster does not answer, or answers with an error.
        """
        try:
            answer = requests.request(method, f"{self.url}/v1/{path}", timeout=timeout, **more)
            answer.raise_for_status()
            return answer.json() if answer.text else {}
        except requests.RequestException as error:
            said = "" if error.response is None else f": {error.response.text[:2000]}"
            raise RunFailed(
                f"the runner failed: {one_line(error)}{one_line(said)}; try the same command again"
            ) from None

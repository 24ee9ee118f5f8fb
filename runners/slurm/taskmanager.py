"""A step of the job: one TaskManager with its GPU and its Python workers; it removes its files at its end."""

import argparse
import glob
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from types import FrameType

from beam_zoo.errors import UserError
from beam_zoo.runtime.python import python
from runners.flink import jvm
from runners.flink.boot import SOCKETS
from runners.flink.nodes import MISTAKE
from runners.slurm import cores
from runners.slurm.address import address_towards

WORKER = "runners.flink.worker"
SOCKET_PATH = 107
"""Longest path of a Unix socket, in bytes."""
NAME = 8
"""Bytes for a socket's name: a slash and a number."""


def main(argv: list[str] | None = None) -> int:
    """Run a TaskManager until it ends; returns its exit code, or prints an error and returns `MISTAKE`."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for name in ("name", "identity", "flink", "jobmanager"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--gpu", type=int)
    parser.add_argument("--of", type=int, default=1)
    options = parser.parse_args(argv)
    try:
        jvm.check()
        environment = dict(os.environ)
        if options.gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = _gpu(options.gpu, options.of)
        own = address_towards(options.jobmanager)
    except UserError as error:
        print(f"error: {error}", flush=True)
        return MISTAKE
    if not environment.get("OMP_NUM_THREADS"):
        environment["OMP_NUM_THREADS"] = str(cores.share(options.of))
    return _run(options, own, environment)


def _run(options: argparse.Namespace, own: str, environment: dict[str, str]) -> int:
    prefix = f"beam-zoo-{os.environ.get('SLURM_JOB_ID', '')}-{options.name}-"
    for old in glob.glob(os.path.join(glob.escape(tempfile.gettempdir()), f"{prefix}*")):
        shutil.rmtree(old, ignore_errors=True)  # left over from a start that was killed
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as scratch:
        try:
            environment[SOCKETS] = _socket_folder(scratch)
        except UserError as error:
            print(f"error: {error}", flush=True)
            return MISTAKE
        words = [os.path.join(options.flink, "bin", "taskmanager.sh"), "start-foreground"]
        for setting in (
            f"taskmanager.resource-id={options.identity}",
            f"taskmanager.host={own}",
            f"taskmanager.bind-host={own}",
            f"io.tmp.dirs={scratch}",
        ):
            words += ["-D", setting]
        environment["TMPDIR"] = scratch
        workers = subprocess.Popen(python(WORKER), env=environment, stdin=subprocess.PIPE)
        process = subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL)
        stopped, failed = threading.Event(), threading.Event()

        def stop(number: int, frame: FrameType | None) -> None:
            stopped.set()
            process.terminate()

        def end_with_workers() -> None:
            workers.wait()
            failed.set()
            process.terminate()

        signal.signal(signal.SIGTERM, stop)
        threading.Thread(target=end_with_workers, daemon=True).start()
        code = process.wait()
        if failed.is_set() and not stopped.is_set():
            print(f"the process that starts workers has ended (exit code {workers.returncode})", flush=True)
            return 1
        assert workers.stdin is not None
        workers.stdin.close()
        workers.wait()
        return 0 if stopped.is_set() else code


def _socket_folder(scratch: str) -> str:
    """A folder of mode 700 for the sockets between the TaskManager and its Python workers.

    Raises:
        UserError: its path is too long for a socket.
    """
    folder = os.path.realpath(os.path.join(scratch, "s"))
    os.mkdir(folder, 0o700)
    if (length := len(os.fsencode(folder)) + NAME) > SOCKET_PATH:
        raise UserError(
            f"TMPDIR={tempfile.gettempdir()} on {os.uname().nodename} is too long for Unix sockets in it "
            f"({length} bytes, {SOCKET_PATH} at most): export TMPDIR=/tmp before you submit"
        )
    return folder


def _gpu(number: int, wanted: int) -> str:
    """The id of one of the GPUs that Slurm gave to this step."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    gpus = [gpu for gpu in given.split(",") if gpu]
    if len(gpus) < wanted:
        raise UserError(
            f"{os.uname().nodename} gives this job {len(gpus)} GPUs "
            f"(CUDA_VISIBLE_DEVICES={given!r}), {wanted} were asked for"
        )
    return gpus[number]


if __name__ == "__main__":
    sys.exit(main())

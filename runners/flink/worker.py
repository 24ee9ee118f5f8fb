"""Beam's Python workers on one node: a process that has imported what they need, and forks one whenever Flink asks.

Each step of the graph after a shuffle gets workers of its own, which would spend seconds on imports. `boot`, which Flink
starts, asks for one through a Unix socket beside those of the TaskManager, and ends with it.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import threading
import traceback
from typing import NoReturn

from runners.flink import boot

NEEDED = (
    "apache_beam.runners.worker.sdk_worker_main",
    "beam_zoo.images.kernels.compiled_image",
    "beam_zoo.tables.quantiles",
    "galaxy_datasets.transforms",
    "omegaconf",
    "pipelines.samples",
    "pipelines.tables",
    "zoobot.pytorch.training.finetune",
)
"""Modules that workers would import."""
PR_SET_PDEATHSIG = 1
BYTES = 4096
"""Of a request at most."""


def main() -> None:
    """Serve until standard input, which the TaskManager's own step holds open, is closed."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is for the TaskManager, which ends first
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody here waits for workers
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(boot.workers_socket())
        listener.listen()  # who asks while modules are imported waits
        # A process that has used a GPU cannot be forked: torch is to look for one in another way.
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
        for module in NEEDED:
            importlib.import_module(module)
        gc.freeze()  # the collector of a worker would copy all that it shares with the others
        while sys.stdin not in select.select([sys.stdin, listener], [], [])[0]:
            connection, _ = listener.accept()
            with connection:
                if os.fork() == 0:
                    listener.close()
                    _become_worker(connection)


def _become_worker(connection: socket.socket) -> NoReturn:
    """Run a worker to its end, and tell `boot` its exit code."""
    code = 1
    try:
        # Also where it holds the interpreter's lock, so that none of its threads could see the end.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        for number in (signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        options = json.loads(connection.recv(BYTES))
        threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
        boot.begin(options)
        boot.work(options)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):  # where the log is on a full disk, or boot has ended before
            connection.send(bytes([code & 0xFF]))
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _end_with(connection: socket.socket) -> None:
    """End this worker when `boot` ends, which says nothing more, or the TaskManager's step."""
    select.select([sys.stdin, connection], [], [])
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()

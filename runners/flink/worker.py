"""A process on each node that imports the modules of Beam's Python workers, and forks a worker on request.

Each step of the graph after a shuffle gets new workers, which would spend seconds on imports. `boot`, which
Flink starts, requests one through a Unix socket, and ends when the worker ends.
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
REQUEST_BYTES = 4096
"""Largest size of a request."""


def main() -> None:
    """Serve until standard input is closed, by `runners.slurm.taskmanager`."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the TaskManager must end first
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so that workers leave no zombies
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(boot.workers_socket())
        listener.listen()  # requests wait while modules are imported
        # torch must look for GPUs without CUDA: a process that has initialised CUDA cannot be forked.
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
        for module in NEEDED:
            importlib.import_module(module)
        gc.freeze()  # otherwise the collector writes to, and so copies, memory that workers share
        while sys.stdin not in select.select([sys.stdin, listener], [], [])[0]:
            connection, _ = listener.accept()
            with connection:
                if os.fork() == 0:
                    listener.close()
                    _become_worker(connection)


def _become_worker(connection: socket.socket) -> NoReturn:
    """Run a worker until it ends, and send `boot` its exit code."""
    code = 1
    try:
        # Besides the thread below, which cannot run while another one holds the interpreter's lock.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        for number in (signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        options = json.loads(connection.recv(REQUEST_BYTES))
        threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
        boot.begin(options)
        boot.work(options)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):  # the log's disk is full, or boot has ended
            connection.send(bytes([code & 0xFF]))
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _end_with(connection: socket.socket) -> None:
    """Kill this worker when `boot`, or the step of the TaskManager, ends."""
    select.select([sys.stdin, connection], [], [])
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()

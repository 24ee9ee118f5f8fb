"""A real Slurm of two nodes on this host, as root: its own key, sockets and ports, on loopback.

    python -m tests.cluster.slurm DIR

runs it until its standard input is closed, so that it ends with whoever started it.
"""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
NODES = ("n1", "n2")
GPUS = 2
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge.socket
CredType=cred/munge
SlurmctldPort={controller}
SlurmdPort={first}
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool-%n
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
MailProg=/bin/true
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=2
SlurmdTimeout=60
InactiveLimit=0
KillWait=20
MinJobAge=300
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=n[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{first}-{second}] CPUs=4 RealMemory=9000 Gres=gpu:{gpus} State=UNKNOWN
PartitionName=main Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> list[str]:
    """What is not installed here, or is not allowed."""
    found = [name for name in (*DAEMONS, "srun", "java", "javac") if shutil.which(name) is None]
    return found if os.geteuid() == 0 else [*found, "root"]


@contextlib.contextmanager
def running(root: Path) -> Iterator[None]:
    """Slurm, while the block runs; its clients find it through SLURM_CONF."""
    root.mkdir(parents=True)
    words = [sys.executable, "-m", "tests.cluster.slurm", root]
    with open(root / "daemons.log", "wb") as log:
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
    assert process.stdin is not None and process.stdout is not None
    try:
        assert process.stdout.readline() == b"up\n", (root / "daemons.log").read_text()
        os.environ["SLURM_CONF"] = str(root / "slurm.conf")
        yield
    finally:
        os.environ.pop("SLURM_CONF", None)
        process.stdin.close()
        assert process.wait(60) == 0


def _free_ports(count: int) -> list[int]:
    """Neighbouring ports that nobody uses."""
    for first in range(21_000 + os.getpid() % 1000 * 8, 32_000, 8):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + count):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return list(range(first, first + count))
    raise AssertionError("no free ports")


def _configure(root: Path) -> None:
    controller, first, second = _free_ports(3)
    host = socket.gethostname().partition(".")[0]
    text = CONF.format(root=root, host=host, controller=controller, first=first, second=second, gpus=GPUS)
    (root / "slurm.conf").write_text(text)
    (root / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    # Slurm takes only device nodes for GPUs: these are /dev/null and /dev/zero under other names.
    for number in range(GPUS):
        os.mknod(root / f"gpu{number}", 0o666 | 0o020000, os.makedev(1, 3 + 2 * number))
    devices = f"NodeName=n[1-2] Name=gpu Flags=nvidia_gpu_env File={root}/gpu[0-{GPUS - 1}]\n"
    (root / "gres.conf").write_text(devices)
    for folder in ("state", *(f"spool-{node}" for node in NODES)):
        (root / folder).mkdir()
    key = os.open(root / "munge.key", os.O_WRONLY | os.O_CREAT, 0o400)
    os.write(key, secrets.token_bytes(1024))
    os.close(key)


def _serve(root: Path) -> None:
    os.chmod(root, 0o755)
    _configure(root)
    os.environ["SLURM_CONF"] = str(root / "slurm.conf")
    munge = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    commands = [["munged", "--foreground", "--force", *(f"--{k}={root}/munge.{v}" for k, v in munge.items())]]
    commands += [["slurmctld", "-D", "-c"], *(["slurmd", "-D", "-N", node] for node in NODES)]
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            daemons.append(
                subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, start_new_session=True)
            )
            if command[0] == "munged":
                _wait_for(lambda: (root / "munge.socket").exists())
        _wait_for(
            lambda: _ask("sinfo", "--noheader", "--Node", "--format=%T").split() == ["idle"] * len(NODES)
        )
        print("up", flush=True)
        sys.stdin.buffer.read()
        _ask("scancel", "--user=root")
        _wait_for(lambda: not _ask("squeue", "--noheader"))
    finally:
        for daemon in reversed(daemons):
            daemon.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(10)


def _ask(*words: str) -> str:
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout.strip()


def _wait_for(condition, seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "Slurm does not do what it should"
        time.sleep(0.1)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))

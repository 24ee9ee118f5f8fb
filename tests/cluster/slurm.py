"""A real Slurm of two nodes on this host, as root: its own key and sockets, and a network of its own.

    python -m tests.cluster.slurm DIR

runs it until its standard input is closed, so that it ends with whoever started it. A node is a network
namespace with its own loopback, address and host name, and a link to a bridge; so is the controller. This
host is on the bridge too, as a login node. File systems and process numbers are shared.
"""

import contextlib
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.waiting import wait_for

SECONDS = 40
"""In which Slurm does what it is told."""
DAEMONS = ("munged", "slurmctld", "slurmd")
NODES = ("n1", "n2")
CONTROLLER = "controller"
GPUS = 2
MAX_ARRAY_SIZE = 16
"""As `CONF` has it."""
CONF = """
ClusterName=test
SlurmctldHost={controller}({address})
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge.socket
CredType=cred/munge
SlurmctldPort=6817
SlurmdPort=6818
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool-%n
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
MailProg=/bin/true
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=2200
MaxArraySize=16
FirstJobId={first_job}
SchedulerParameters=batch_sched_delay=0,sched_interval=2
SlurmdTimeout=60
InactiveLimit=0
KillWait=20
MinJobAge=300
SlurmdParameters=config_overrides
GresTypes=gpu,nvme
NodeName=DEFAULT CPUs=4 RealMemory=9000 Gres=gpu:a100:{gpus},nvme:400 Feature=fast State=UNKNOWN
{nodes}
PartitionName=main Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> list[str]:
    """What is not installed here, or is not allowed."""
    found = [name for name in (*DAEMONS, "srun", "ip", "java", "javac") if shutil.which(name) is None]
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


class Network:
    """A bridge, and a namespace for each host that is linked to it.

    Attributes:
        addresses: of the nodes and the controller.
    """

    def __init__(self) -> None:
        number = os.getpid()
        self._bridge = f"bz{number}"
        self._prefix = f"10.{200 + number % 50}.{number // 50 % 250}"
        hosts = (CONTROLLER, *NODES)
        self.addresses = {host: f"{self._prefix}.{2 + place}" for place, host in enumerate(hosts)}

    def namespace(self, host: str) -> str:
        """Name of a host's namespace; its link to the bridge has the same name on this host."""
        return f"{self._bridge}-{host[:2]}"

    def __enter__(self) -> "Network":
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("address", "add", f"{self._prefix}.1/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")
        for host, address in self.addresses.items():
            name = self.namespace(host)
            _ip("netns", "add", name)
            _ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("link", "set", name, "master", self._bridge, "up")
            _ip("-netns", name, "address", "add", f"{address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _ip("-netns", name, "link", "set", device, "up")
        return self

    def __exit__(self, *_: object) -> None:
        for host in self.addresses:
            subprocess.run(["ip", "link", "delete", self.namespace(host)])
            subprocess.run(["ip", "netns", "delete", self.namespace(host)])
        subprocess.run(["ip", "link", "delete", self._bridge])

    def command(self, host: str, *words: str) -> list[str]:
        """The words of a daemon of a host."""
        start = f"hostname {host} && exec {shlex.join(words)}"
        return [*_enter(self.namespace(host)), "unshare", "--uts", "sh", "-c", start]


def _enter(namespace: str) -> list[str]:
    # Not `ip netns exec`, which would hide later mounts of this host.
    return ["nsenter", f"--net=/run/netns/{namespace}"]


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def inside(node: str, *words: object) -> list[str]:
    """The words of a command that is to run on a node, as a process there would.

    Args:
        node: its name.
        words: the command.
    """
    return [*_enter(_namespace(node)), *map(str, words)]


def address(node: str) -> str:
    """The IP address of a node."""
    return _written(node)[1]


def _namespace(node: str) -> str:
    return _written(node)[0]


def _written(node: str) -> list[str]:
    return (Path(os.environ["SLURM_CONF"]).parent / node).read_text().split()


@contextlib.contextmanager
def cut_off(node: str) -> Iterator[None]:
    """No packet reaches a node, or leaves it, while the block runs."""
    link = _namespace(node)
    _ip("link", "set", link, "down")
    try:
        yield
    finally:
        _ip("link", "set", link, "up")


def _configure(root: Path, network: Network) -> None:
    addresses = network.addresses
    nodes = "\n".join(f"NodeName={node} NodeAddr={addresses[node]}" for node in NODES)
    text = CONF.format(
        root=root,
        controller=CONTROLLER,
        address=addresses[CONTROLLER],
        nodes=nodes,
        gpus=GPUS,
        # Processes of a job are found by its number: two Slurms on this host have others.
        first_job=1 + os.getpid() % 50_000 * 1000,
    )
    for node in NODES:
        (root / node).write_text(f"{network.namespace(node)} {addresses[node]}")
    (root / "slurm.conf").write_text(text)
    (root / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    # Slurm takes only device nodes for GPUs: these are /dev/null and /dev/zero under other names.
    for number in range(GPUS):
        os.mknod(root / f"gpu{number}", 0o666 | 0o020000, os.makedev(1, 3 + 2 * number))
    devices = f"NodeName=n[1-2] Name=gpu Type=a100 Flags=nvidia_gpu_env File={root}/gpu[0-{GPUS - 1}]\n"
    (root / "gres.conf").write_text(f"{devices}NodeName=n[1-2] Name=nvme Count=400\n")
    for folder in ("state", *(f"spool-{node}" for node in NODES)):
        (root / folder).mkdir()
    key = os.open(root / "munge.key", os.O_WRONLY | os.O_CREAT, 0o400)
    os.write(key, secrets.token_bytes(1024))
    os.close(key)


def _serve(root: Path) -> None:
    os.chmod(root, 0o755)
    with Network() as network:
        _configure(root, network)
        _run_daemons(root, network)


def _run_daemons(root: Path, network: Network) -> None:
    os.environ["SLURM_CONF"] = str(root / "slurm.conf")
    munge = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    commands = [["munged", "--foreground", "--force", *(f"--{k}={root}/munge.{v}" for k, v in munge.items())]]
    commands.append(network.command(CONTROLLER, "slurmctld", "-D", "-c"))
    commands += [network.command(node, "slurmd", "-D", "-N", node) for node in NODES]
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            daemons.append(
                subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, start_new_session=True)
            )
            if command[0] == "munged":
                wait_for((root / "munge.socket").exists, SECONDS)
        wait_for(
            lambda: _ask("sinfo", "--noheader", "--Node", "--format=%T").split() == ["idle"] * len(NODES),
            SECONDS,
        )
        print("up", flush=True)
        sys.stdin.buffer.read()
        _ask("scancel", "--user=root")
        wait_for(lambda: not _ask("squeue", "--noheader"), SECONDS)
    finally:
        for daemon in reversed(daemons):
            daemon.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(10)


def _ask(*words: str) -> str:
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))

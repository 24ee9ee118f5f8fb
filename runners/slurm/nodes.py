"""The nodes of this job's allocation, and TaskManagers as steps of the job."""

import contextlib
import dataclasses
import os
import re
import socket
import subprocess
from pathlib import Path

from beam_zoo.errors import UserError, one_line
from beam_zoo.runtime.python import python
from runners.slurm.address import address_towards
from runners.slurm.commands import output_of, run_slurm, without_options
from runners.slurm.script import plain

STOP_SECONDS = 5
REACH_SECONDS = 3
SLURMD_PORT = 6818
STEP = (
    # Steps share the node's resources; without --cpu-bind a step of one task would get one core.
    *("--overlap", "--nodes=1", "--ntasks=1", "--mem=0", "--cpu-bind=none"),
    *("--kill-on-bad-exit=1", "--quiet", "--unbuffered", "--export=ALL", "--open-mode=append"),
)


@dataclasses.dataclass(frozen=True)
class Allocation:
    """The nodes of this job.

    Attributes:
        job: its id.
        hosts: names of its nodes; this process runs on the first.
        addresses: of the nodes, in Slurm's configuration.
        ports: of Slurm's daemon on each node.
    """

    job: str
    hosts: list[str]
    addresses: dict[str, str]
    ports: dict[str, int]

    @classmethod
    def here(cls) -> "Allocation":
        """The allocation of this process.

        Raises:
            UserError: the process is not in a job of Slurm.
        """
        try:
            job, names = os.environ["SLURM_JOB_ID"], os.environ["SLURM_JOB_NODELIST"]
        except KeyError as error:
            raise UserError(
                f"this is not a job of Slurm ({error.args[0]} is not set): use python -m runners.slurm submit"
            ) from None
        hosts = output_of("scontrol", "show", "hostnames", names).split()
        described = output_of("scontrol", "--oneliner", "show", "node", names)
        addresses = dict(re.findall(r"^NodeName=(\S+).*? NodeAddr=(\S+)", described, re.MULTILINE))
        # Slurm shows the port only of nodes where it is not the default.
        others = dict(re.findall(r"^NodeName=(\S+).*? Port=(\d+)", described, re.MULTILINE))
        usual = re.search(r"^SlurmdPort\s*=\s*(\d+)", output_of("scontrol", "show", "config"), re.MULTILINE)
        ports = {host: int(others.get(host) or (usual[1] if usual else SLURMD_PORT)) for host in hosts}
        return cls(job, hosts, {host: addresses.get(host, host) for host in hosts}, ports)

    def own_address(self) -> str:
        """IP address of this host for the other nodes."""
        others = [self.addresses[host] for host in self.hosts[1:]]
        return address_towards(others[0]) if others else "127.0.0.1"


class SlurmNodes:
    """TaskManagers as steps of the job: one per GPU, or one per node without GPUs.

    Args:
        allocation: of this job.
        gpus_per_node: requested GPUs.
    """

    def __init__(self, allocation: Allocation, gpus_per_node: int) -> None:
        self._job, self._gpus, self._here = allocation.job, gpus_per_node, allocation.hosts[0]
        self._allocation = allocation
        self.address = allocation.own_address()
        self._places = {
            f"{host}-{number}": (host, number)
            for host in allocation.hosts
            for number in range(max(1, gpus_per_node))
        }
        self.names = list(self._places)

    def start(
        self, name: str, identity: str, environment: dict[str, str], flink: Path, log: Path
    ) -> "subprocess.Popen[bytes]":
        """Start a TaskManager as a step of its own; see `runners.flink.nodes.Nodes`."""
        host, number = self._places[name]
        # Without a type, whatever the job asked for: the step gets the job's GPUs.
        step = [f"--gpus-per-node={self._gpus}"] if self._gpus else []
        words = python("runners.slurm.taskmanager", f"--name={name}", f"--flink={flink}")
        words += [f"--identity={identity}", f"--jobmanager={self.address}"]
        words += [f"--gpu={number}", f"--of={self._gpus}"] if self._gpus else []
        return self._step(host, step, words, environment, log)

    def start_here(
        self, words: list[str], environment: dict[str, str], log: Path
    ) -> "subprocess.Popen[bytes]":
        """Start a program as a step on this host, which Slurm ends with the job."""
        return self._step(self._here, [], words, environment, log)

    def refusal(self, log: Path) -> str:
        """The errors of srun at the last start with this log; see `runners.flink.nodes.Nodes`."""
        text = _srun_log(log).read_text(errors="replace") if _srun_log(log).exists() else ""
        lines = re.findall(r"^srun: (?:error|fatal): (.*)", text, re.MULTILINE)
        return one_line(f"srun: {'; '.join(lines)}") if lines else ""

    def reaches(self, name: str) -> bool:
        """Whether Slurm's daemon on the host of a TaskManager accepts a connection."""
        host, _ = self._places[name]
        place = self._allocation.addresses[host], self._allocation.ports[host]
        try:
            with socket.create_connection(place, REACH_SECONDS):
                return True
        except OSError:
            return False

    def stop(self) -> None:
        """Send SIGTERM to all steps, through Slurm: an srun that gets it kills its tasks."""
        # While Slurm itself ends or requeues the job, scancel retries for long; the steps end anyway.
        with contextlib.suppress(subprocess.TimeoutExpired):
            run_slurm("scancel", "--quiet", "--signal=TERM", self._job, timeout=STOP_SECONDS)

    def _step(
        self, host: str, options: list[str], words: list[str], environment: dict[str, str], log: Path
    ) -> "subprocess.Popen[bytes]":
        step = ["srun", f"--jobid={self._job}", *STEP, *options]
        step += [f"--nodelist={host}", f"--output={plain(str(log))}"]
        # Slurm's variables of the job would be options of srun; the step gets its own from slurmd.
        variables = {**without_options(environment), "SLURM_JOB_ID": self._job}
        with open(_srun_log(log), "wb") as errors:
            return subprocess.Popen([*step, *words], env=variables, stdin=subprocess.DEVNULL, stderr=errors)


def _srun_log(log: Path) -> Path:
    """The log of srun itself, beside that of its task."""
    return log.with_suffix(".srun")

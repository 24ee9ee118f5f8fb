"""The text of batch scripts."""

import dataclasses
import re
import shlex
from collections.abc import Mapping, Sequence

from runners.slurm.gpus import Gpus, without_gpus

WARNING_SECONDS = 60
"""How long before the time limit Slurm sends SIGTERM, so that the job ends in order."""

OMP_NOTE = (
    '[ -z "$OMP_NUM_THREADS" ] || echo "OMP_NUM_THREADS=$OMP_NUM_THREADS of the shell that submitted: '
    'this task computes on $OMP_NUM_THREADS of its $SLURM_CPUS_ON_NODE cores" >&2'
)


@dataclasses.dataclass(frozen=True)
class Batch:
    """Settings that the scripts of one submission share.

    Attributes:
        command: `predict` or `represent`.
        output: folder of the output.
        logs: folder of scripts and logs.
        python: the interpreter of the shared environment.
        working_folder: of the job.
        environment: variables to set, such as JAVA_HOME.
        directives: the user's options of sbatch, without the dashes; None for one without a value.
        options: of the command, as `--name=value`.
    """

    command: str
    output: str
    logs: str
    python: str
    working_folder: str
    environment: Mapping[str, str]
    directives: Mapping[str, str | None]
    options: Sequence[str]


def flink(batch: Batch, *, nodes: int, gpus: Gpus, shared_nodes: bool, settings: Mapping[str, object]) -> str:
    """The script of a job that runs Flink on its nodes.

    Args:
        batch: the shared settings.
        nodes: number of nodes.
        gpus: of a node.
        shared_nodes: whether other jobs may use the same nodes.
        settings: options of `runners.slurm.job`.
    """
    directives: dict[str, object] = {"nodes": nodes}
    directives |= gpus.directives("ntasks-per-node")
    directives |= {} if shared_nodes else {"exclusive": None}
    directives |= {"output": f"{plain(batch.logs)}/%j.log", "signal": f"B:TERM@{WARNING_SECONDS}"}
    own = [f"--{name}={value}" for name, value in settings.items()]
    if gpus.count:
        own.append(f"--gpus_per_node={gpus.count}")
    words = [*map(_quoted, own), f"-- {batch.command}", *map(_quoted, batch.options)]
    return _script(batch, directives, "on Flink", [], "runners.slurm.job", words)


def array(batch: Batch, *, ranges: Sequence[str], whole_nodes: bool, gpus: Gpus) -> str:
    """The script of an array: each task predicts the snippets of one range.

    Args:
        batch: the shared settings.
        ranges: `A:B` of each task.
        whole_nodes: whether each task gets a node for itself.
        gpus: of a task, one or none.
    """
    directives: dict[str, object] = {"array": f"0-{len(ranges) - 1}", "nodes": 1}
    directives |= gpus.directives("ntasks")
    directives |= {"exclusive": None} if whole_nodes else {}
    directives |= {"output": f"{plain(batch.logs)}/%A_%a.log", "signal": f"B:TERM@{WARNING_SECONDS}"}
    lines = [
        f"snippets=({' '.join(ranges)})",
        OMP_NOTE,
        "export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$SLURM_CPUS_ON_NODE}",
    ]
    words = [*map(_quoted, batch.options), '--snippets="${snippets[$SLURM_ARRAY_TASK_ID]}"']
    return _script(batch, directives, "some snippets a task", lines, f"pipelines.{batch.command}", words)


def finish(batch: Batch, *, gpus: Gpus, max_failure_fraction: float) -> str:
    """The script of the job that builds the tables when an array has ended.

    Args:
        batch: the shared settings, of which those of GPUs are left out.
        gpus: of the array's tasks.
        max_failure_fraction: option of `pipelines.finish`.
    """
    batch = dataclasses.replace(batch, directives=without_gpus(batch.directives))
    directives: dict[str, object] = {"job-name": "beam-zoo-tables", "nodes": 1}
    directives |= gpus.some(0).directives("ntasks")
    directives |= {"output": f"{plain(batch.logs)}/%j.log"}
    words = [shlex.quote(batch.output), f"--max_failure_fraction={max_failure_fraction:g}"]
    return _script(batch, directives, "the tables", [], "runners.slurm.tables", words)


def _script(
    batch: Batch,
    directives: Mapping[str, object],
    what: str,
    lines: Sequence[str],
    module: str,
    words: Sequence[str],
) -> str:
    """The script: directives, and a command that replaces the shell (exec) and so gets Slurm's signals."""
    common = {"job-name": f"beam-zoo-{batch.command}", "chdir": batch.working_folder, "open-mode": "append"}
    requeue = {} if "no-requeue" in batch.directives else {"requeue": None}
    chosen = {**common, **requeue, **directives, **batch.directives}
    text = ["#!/bin/bash", f"# {batch.command}, {what}: {batch.output}"]
    text += [
        f"#SBATCH {sbatch_option(name, None if value is None else str(value))}"
        for name, value in chosen.items()
    ]
    text += [""]
    text += [f"export {name}={shlex.quote(value)}" for name, value in batch.environment.items()]
    text += lines
    program = f"exec {shlex.quote(batch.python)} -P -m {module}"
    return "\n".join([*text, " \\\n  ".join([program, *words]), ""])


def sbatch_option(name: str, value: str | None) -> str:
    """An option as it is written after #SBATCH."""
    return f"--{name}" if value is None else _quoted(f"--{name}={value}")


def seconds_of(text: str) -> int | None:
    """Parse a time of Slurm, M, M:S, H:M:S, D-H, D-H:M or D-H:M:S, to seconds; None for another text."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if found is None:
        return None
    days, *clock = found.groups()
    given = [int(part) for part in clock if part is not None]
    units = [3600, 60, 1] if days or len(given) == 3 else [60, 1]
    return int(days or 0) * 86_400 + sum(n * unit for n, unit in zip(given, units, strict=False))


def _quoted(option: str) -> str:
    """`--name=value` with the value quoted for bash and sbatch, if needed."""
    name, equals, value = option.partition("=")
    return f"{name}={shlex.quote(value)}" if equals and value else shlex.quote(option)


def plain(path: str) -> str:
    """A path with % escaped for sbatch and srun, which replace patterns such as %j."""
    return path.replace("%", "%%")

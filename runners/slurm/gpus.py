"""Read and write the options of sbatch that ask for GPUs; clusters accept different ones."""

import dataclasses
import re
from collections.abc import Mapping

from beam_zoo.errors import UserError

PER_NODE, PER_TASK, GRES = "gpus-per-node", "gpus-per-task", "gres"
_SHARES = ("shard", "mps")
_ONLY_WITH_GPUS = ("cpus-per-gpu", "gpu-bind", "gpu-freq", "gres-flags", "mem-per-gpu", "tres-bind")


@dataclasses.dataclass(frozen=True)
class Gpus:
    """GPUs of a node, and other generic resources (gres).

    Attributes:
        count: GPUs of a node.
        kind: such as `a100`; None for any.
        form: the option of sbatch to ask for them.
        others: other items of `--gres`.
    """

    count: int = 0
    kind: str | None = None
    form: str = PER_NODE
    others: tuple[str, ...] = ()

    def some(self, count: int) -> "Gpus":
        """The same GPUs, another number of them."""
        return dataclasses.replace(self, count=count)

    def directives(self, one_task: str) -> dict[str, object]:
        """Options of sbatch.

        Args:
            one_task: the option that limits a node, or an array's task, to one task; `gpus-per-task` needs
                it.
        """
        asked = ":".join(filter(None, (self.kind, str(self.count)))) if self.count else None
        found: dict[str, object] = {}
        if asked and self.form != GRES:
            found |= {self.form: asked}
            found |= {one_task: 1} if self.form == PER_TASK else {}
        elif asked:
            return {GRES: ",".join([f"gpu:{asked}", *self.others])}
        return found | ({GRES: ",".join(self.others)} if self.others else {})


def take(per_node: str | None, directives: dict[str, str | None]) -> Gpus:
    """The requested GPUs. Removes their options from the directives.

    Args:
        per_node: value of `--gpus_per_node`.
        directives: options of sbatch.

    Raises:
        UserError: an option cannot be parsed, or two options contradict each other.
    """
    if GRES in directives and not directives[GRES]:
        raise UserError(f"--{GRES} needs what is asked for, such as gpu:2")
    asked, others = _gres(directives.pop(GRES, None) or "")
    if PER_TASK in directives:
        asked.append(_parse(PER_TASK, directives.pop(PER_TASK) or ""))
    if per_node is not None:
        asked.append(_parse(PER_NODE, per_node))
    if not asked:
        return Gpus(others=others)
    first, *more = asked
    for each in more:
        if each.count != first.count or len({first.kind, each.kind} - {None}) > 1:
            raise UserError(f"--{first.form} and --{each.form} ask for different GPUs: give one of them")
    kind = next((each.kind for each in asked if each.kind), None)
    return Gpus(first.count, kind, first.form, others)


def _gres(text: str) -> tuple[list[Gpus], tuple[str, ...]]:
    """The GPUs, if any, and the other items of a value such as `gpu:a100:2,nvme:100`."""
    found: list[Gpus] = []
    others = []
    for item in filter(None, text.split(",")):
        name, *rest = re.sub(r"^gres[:/]", "", item).split(":", 1)
        if name in _SHARES:
            raise UserError(f"--gres={item}: a worker has a whole GPU, ask for gpu:N")
        if name == "gpu":
            found.append(_parse(GRES, rest[0] if rest else "1"))
        else:
            others.append(item)
    if len(found) > 1:
        raise UserError(f"--gres={text}: the GPUs of a job are of one kind, ask for gpu:TYPE:N once")
    return found, tuple(others)


def _parse(form: str, text: str) -> Gpus:
    """Parse `2` or `a100:2`; for `--gres` also `a100`, which means one."""
    kind, _, count = text.rpartition(":")
    if form == GRES and not re.fullmatch(r"\d+", count):
        kind, count = text, "1"
    if not re.fullmatch(r"\d+", count) or not re.fullmatch(r"[^:,=\s]*", kind):
        raise UserError(f"--{form}: {text!r} is not a whole number or TYPE:N, which are GPUs of one kind")
    return Gpus(int(count), kind or None, form)


def without_gpus(directives: Mapping[str, str | None]) -> dict[str, str | None]:
    """Options of sbatch without those that sbatch refuses for jobs without GPUs."""
    return {name: value for name, value in directives.items() if name not in _ONLY_WITH_GPUS}

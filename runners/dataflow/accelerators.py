"""Which accelerators Dataflow has, on which machines, and how they are asked for.

Dataflow takes any text for an accelerator and fails, or runs without one, minutes later: it is checked here first.
Names and machine types are those of Google's pages on GPUs for Dataflow and Compute Engine.
"""

import dataclasses
import re

from beam_zoo.errors import UserError, did_you_mean

MACHINES = {
    "nvidia-l4": "g2",
    "nvidia-tesla-t4": "n1",
    "nvidia-tesla-a100": "a2-highgpu",
    "nvidia-a100-80gb": "a2-ultragpu",
    "nvidia-h100-80gb": "a3-highgpu",
    "nvidia-h100-mega-80gb": "a3-megagpu",
}
"""Accelerator type -> the machines that it is on: how their types begin."""
TOO_OLD = ("nvidia-tesla-p4", "nvidia-tesla-p100", "nvidia-tesla-v100")
"""Dataflow has them too; the torch of requirements.txt has no code for them (its CUDA 13 begins with compute 7.5)."""
DRIVER = "install-nvidia-driver:5xx"
"""The newest driver that Dataflow has: CUDA 13 needs one from 580 on, and Dataflow's default is older."""
_KEYS = ("type", "count", "machine_type")
_INSTALL = DRIVER.partition(":")[0]
_SEVERAL_L4 = ("24", "48", "96")
"""Processors of the G2 machines that have more than one."""


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """An accelerator as a service option, or a resource hint, asks for it.

    Attributes:
        kind: such as `nvidia-l4`.
        count: how many a worker has.
        driver: whether Dataflow is to install NVIDIA's driver.
        machine: the machine type that a hint names, or None.
    """

    kind: str
    count: int
    driver: bool
    machine: str | None


def parse(text: str, where: str) -> Accelerator:
    """Read `type:nvidia-l4;count:1;install-nvidia-driver`.

    Args:
        text: the accelerator.
        where: the option that it stands in, for the error line.

    Raises:
        UserError: an unknown key or type, a count that is no number, or something missing.
    """
    found: dict[str, str] = {}
    for item in text.split(";"):
        key, colon, value = item.partition(":")
        if key == _INSTALL:
            found[key] = value or "default"
        elif key in _KEYS and colon and value:
            found[key] = value
        else:
            raise UserError(
                f"{where}: {item!r} is no part of an accelerator{did_you_mean(key, (*_KEYS, _INSTALL))}"
            )
    kind = found.get("type", "")
    if kind in TOO_OLD:
        raise UserError(
            f"{where}: {kind} is too old for torch with CUDA 13: take {', '.join(list(MACHINES)[:3])}"
        )
    if kind not in MACHINES:
        raise UserError(f"{where}: there is no accelerator type {kind!r}{did_you_mean(kind, MACHINES)}")
    count = found.get("count", "")
    if not re.fullmatch(r"[1-9]\d*", count):
        raise UserError(f"{where}: count must be a number, as in type:{kind};count:1;{DRIVER}")
    return Accelerator(kind, int(count), _INSTALL in found, found.get("machine_type"))


def check(accelerator: Accelerator, machine: str | None, where: str) -> None:
    """Refuse what Dataflow would start, and pay for, in vain.

    Args:
        accelerator: what is asked for.
        machine: type of the machine that it is to be on, or None for Dataflow's default.
        where: the option that it stands in, for the error line.

    Raises:
        UserError: no driver, more than one GPU, or another machine than this GPU is on.
    """
    kind = accelerator.kind
    if not accelerator.driver:
        raise UserError(f"{where}: without {DRIVER} a worker has a GPU that it cannot use: add ;{DRIVER}")
    if accelerator.count != 1:
        raise UserError(
            f"{where}: count:{accelerator.count} is {accelerator.count - 1} too many: a worker uses one GPU; "
            "take count:1 and more workers"
        )
    family = MACHINES[kind]
    given = machine or "n1-standard-1, Dataflow's default"
    on_n1 = family == "n1"
    if machine is None and on_n1:
        return
    if machine is None or not machine.startswith((f"{family}-", "custom-") if on_n1 else f"{family}-"):
        raise UserError(f"{where}: {kind} is on machines of type {family}-*, not on {given}")
    if not _has_one(kind, machine):
        raise UserError(
            f"{where}: {machine} has more than one {kind}, and a worker uses one: take a smaller machine"
        )


def _has_one(kind: str, machine: str) -> bool:
    if kind == "nvidia-l4":
        processors = machine.split("-")[2:3]
        return not set(processors) & set(_SEVERAL_L4)
    return MACHINES[kind] == "n1" or machine.endswith("-1g")


def accelerator_of(machine: str) -> str | None:
    """The accelerator that a machine type always has, or None."""
    for kind, family in MACHINES.items():
        if family != "n1" and machine.startswith(f"{family}-"):
            return kind
    return None

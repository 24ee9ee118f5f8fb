"""Dataflow's accelerators, the machine types that have them, and the options that ask for them.

Dataflow accepts any text as an accelerator, and fails or runs without one minutes later. So the text is
checked here. Names and machine types are those of Google's pages on GPUs for Dataflow and Compute Engine.
"""

import dataclasses
import re

from beam_zoo.errors import UserError, did_you_mean

MACHINES = {
    "nvidia-l4": ("g2", r"g2-standard-(4|8|12|16|32)|g2-custom-\d+-\d+(-ext)?", "g2-standard-8"),
    "nvidia-tesla-t4": (
        "n1",
        r"n1-(standard|highmem|highcpu)-(1|2|4|8|16|32)|(n1-)?custom-\d+-\d+(-ext)?",
        "n1-standard-8",
    ),
    "nvidia-tesla-a100": ("a2-highgpu", r"a2-highgpu-1g", "a2-highgpu-1g"),
    "nvidia-a100-80gb": ("a2-ultragpu", r"a2-ultragpu-1g", "a2-ultragpu-1g"),
    "nvidia-h100-80gb": ("a3-highgpu", r"a3-highgpu-1g", "a3-highgpu-1g"),
}
"""Accelerator type -> family of machines, a pattern of the machine types with one GPU, and an example."""
TOO_OLD = ("nvidia-tesla-p4", "nvidia-tesla-p100", "nvidia-tesla-v100")
"""Accelerators of Dataflow that torch with CUDA 13 does not support (it needs compute capability 7.5)."""
DRIVER = "install-nvidia-driver:5xx"
"""Dataflow's newest driver: CUDA 13 needs version 580 or later, and Dataflow's default is older."""
_DRIVERS = ("", "5xx")
_GPU_FAMILIES = ("g2-", "a2-", "a3-")
_ARM_FAMILIES = ("t2a-", "c4a-", "n4a-")
_KEYS = ("type", "count", "machine_type")
_INSTALL, _SHARED = DRIVER.partition(":")[0], "use_nvidia_mps"


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """An accelerator of a service option or resource hint.

    Attributes:
        kind: such as `nvidia-l4`.
        count: accelerators of a worker.
        driver: whether Dataflow installs NVIDIA's driver.
        machine: machine type in a hint, or None.
    """

    kind: str
    count: int
    driver: bool
    machine: str | None


def parse(text: str, where: str) -> Accelerator:
    """Read `type:nvidia-l4;count:1;install-nvidia-driver`.

    Args:
        text: the accelerator.
        where: the option, for messages.

    Raises:
        UserError: an unknown key or type, a count that is not a number, or a missing key.
    """
    found: dict[str, str] = {}
    for item in text.split(";"):
        key, colon, value = item.partition(":")
        if key in _KEYS:
            valid = bool(colon and value)
        else:
            valid = (key == _INSTALL and value in _DRIVERS) or item == _SHARED
        if not valid:
            near = did_you_mean(item if key == _INSTALL else key, (*_KEYS, DRIVER, _SHARED))
            raise UserError(f"{where}: {item!r} is no part of an accelerator{near}")
        if key in found:
            raise UserError(f"{where}: {key} is given twice")
        found[key] = value
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
    """Refuse an accelerator that Dataflow cannot provide on this machine type.

    Args:
        accelerator: the accelerator.
        machine: the machine type, or None for Dataflow's default.
        where: the option, for messages.

    Raises:
        UserError: no driver, more than one GPU, or a machine type that does not have this GPU.
    """
    kind = accelerator.kind
    if not accelerator.driver:
        raise UserError(f"{where}: without {DRIVER} a worker has a GPU that it cannot use: add ;{DRIVER}")
    if accelerator.count != 1:
        raise UserError(
            f"{where}: count:{accelerator.count} is {accelerator.count - 1} too many: a worker uses one GPU; "
            "take count:1 and more workers"
        )
    family, one, example = MACHINES[kind]
    if machine is None and family == "n1":
        return  # Dataflow's default machine type is of this family
    begins = (f"{family}-", "custom-") if family == "n1" else f"{family}-"
    if machine is None or not machine.startswith(begins):
        given = machine or "n1-standard-1, Dataflow's default"
        raise UserError(f"{where}: {kind} is on machines of type {family}-*, not on {given}")
    if not re.fullmatch(one, machine):
        raise UserError(
            f"{where}: {machine} is no machine with one {kind}, as a worker uses it: {example} is one"
        )


def check_without(machine: str) -> None:
    """Check the machine type of workers without a GPU.

    Raises:
        UserError: it has a GPU, or cannot run the image.
    """
    where = f"--worker_machine_type {machine}"
    if machine.startswith(_GPU_FAMILIES):
        how = "take another machine, or a --dataflow_preset with a GPU"
        raise UserError(f"{where} has GPUs that would not be used: {how}")
    if machine.startswith(_ARM_FAMILIES):
        raise UserError(
            f"{where} has Arm processors, and the workers' image is for amd64: take another machine"
        )

"""Presets of Dataflow's workers; options on the command line override their settings."""

import dataclasses
import datetime
from typing import Any

from apache_beam.options.pipeline_options import (
    DebugOptions,
    GoogleCloudOptions,
    PipelineOptions,
    SetupOptions,
    StandardOptions,
    WorkerOptions,
)

from beam_zoo.errors import UserError
from beam_zoo.storage.files import absolute
from beam_zoo.storage.layout import DATAFLOW_STAGING
from runners.dataflow.accelerators import DRIVER

GPU_OPTION = "worker_accelerator"
_HINT = "accelerator="
_HINT_FLAGS = ("--resource_hint", "--resource_hints")


@dataclasses.dataclass(frozen=True)
class Preset:
    """Settings of the workers.

    Attributes:
        machine: type of the machine.
        accelerator: type of its GPU, or None.
        disk: in GB; a worker unpacks the image there.
        threads: bundles that a worker processes at a time: with a GPU one is read or stored while another is
            on the device; on a CPU torch uses all cores for one.
    """

    machine: str
    accelerator: str | None
    disk: int
    threads: int


PRESETS = {
    "l4": Preset("g2-standard-8", "nvidia-l4", 100, 2),
    "t4": Preset("n1-standard-8", "nvidia-tesla-t4", 100, 2),
    "a100": Preset("a2-highgpu-1g", "nvidia-tesla-a100", 100, 2),
    "cpu": Preset("n2-standard-8", None, 50, 1),
}
NAMES = tuple(PRESETS)


def complete(
    flags: list[str], name: str | None, right_fitting: bool, output: str, command: str
) -> dict[str, str]:
    """The flags to add for a run on Dataflow.

    Args:
        flags: Beam's options on the command line, which are not changed.
        name: of the preset, or None for the flags that every run needs.
        right_fitting: ask for the GPU by a hint on the steps that use it, not for all workers.
        output: folder of the output.
        command: `predict` or `represent`.

    Returns:
        Flag -> origin, for messages.
    """
    given = PipelineOptions(flags)
    setup, worker = given.view_as(SetupOptions), given.view_as(WorkerOptions)
    cloud, debug = given.view_as(GoogleCloudOptions), given.view_as(DebugOptions)
    found: dict[str, str] = {}

    def add(value: Any, flag: str, origin: str) -> None:
        if value is None:
            found[flag] = origin

    always = "for Dataflow"
    # Beam is in the image: without this option it would be installed on every worker.
    add(None if setup.sdk_location == "default" else setup.sdk_location, "--sdk_location=container", always)
    add(cloud.temp_location, f"--temp_location={absolute(output)}/{DATAFLOW_STAGING}", always)
    now = datetime.datetime.now(datetime.UTC)
    add(cloud.job_name, f"--job_name=beam-zoo-{command}-{now:%Y%m%d-%H%M%S}", always)
    experiments = debug.experiments or []
    containers = [e for e in experiments if e.endswith("use_multiple_sdk_containers")]
    # One process per machine, so that each model is in memory once.
    add(containers or None, "--experiments=no_use_multiple_sdk_containers", always)
    if name is None:
        return found
    preset, origin = PRESETS[name], f"preset {name}"
    gpu = f"type:{preset.accelerator};count:1"
    add(worker.disk_size_gb, f"--disk_size_gb={preset.disk}", origin)
    threads = debug.number_of_worker_harness_threads
    add(threads, f"--number_of_worker_harness_threads={preset.threads}", origin)
    if right_fitting and preset.accelerator:
        # The machine type is part of the hint: other steps run on Dataflow's default machine type.
        hint = f"{gpu};machine_type:{preset.machine};{DRIVER}"
        add(chain_hint(flags) or None, f"{_HINT_FLAGS[0]}={_HINT}{hint}", origin)
        return found
    add(worker.machine_type, f"--worker_machine_type={preset.machine}", origin)
    if preset.accelerator:
        option = f"{GPU_OPTION}={gpu};{DRIVER}"
        add(service_option(flags), f"--dataflow_service_options={option}", origin)
    return found


def service_option(flags: list[str]) -> str | None:
    """The accelerator of all workers, from a service option; None without one.

    Raises:
        UserError: there are two.
    """
    options = PipelineOptions(flags).view_as(GoogleCloudOptions).dataflow_service_options or []
    found = [o.partition("=")[2] for o in options if o.partition("=")[0] == GPU_OPTION]
    if len(found) > 1:
        raise UserError(f"--dataflow_service_options: {GPU_OPTION} is given twice")
    return found[0] if found else None


def chain_hint(flags: list[str]) -> dict[str, str]:
    """The resource hint of the steps that need a GPU, `--resource_hint accelerator=...`; empty without one.

    Raises:
        UserError: there are two.
    """
    found = [value for value in _resource_hints(flags) if value.startswith(_HINT)]
    if len(found) > 1:
        raise UserError("--resource_hint: accelerator is given twice")
    return {"accelerator": found[0].removeprefix(_HINT)} if found else {}


def without_hint(flags: list[str]) -> list[str]:
    """The flags without the resource hint: as a flag it would give a GPU to steps that build tables, too."""
    others = [value for value in _resource_hints(flags) if not value.startswith(_HINT)]
    kept = [flag for flag in flags if flag.partition("=")[0] not in _HINT_FLAGS]
    return [*kept, *(f"{_HINT_FLAGS[0]}={value}" for value in others)]


def _resource_hints(flags: list[str]) -> list[str]:
    return PipelineOptions(flags).view_as(StandardOptions).resource_hints or []


def device(flags: list[str]) -> str:
    """The device of the members: `cuda` if the flags ask for a GPU, else `cpu`."""
    return "cuda" if chain_hint(flags) or service_option(flags) else "cpu"

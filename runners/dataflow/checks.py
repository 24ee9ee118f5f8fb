"""Checks of Dataflow's options that the service does not make, or makes after it has started machines."""

import difflib
import os

from apache_beam.options.pipeline_options import (
    DebugOptions,
    GoogleCloudOptions,
    PipelineOptions,
    SetupOptions,
    WorkerOptions,
)
from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
from apache_beam.runners.dataflow.dataflow_runner import DataflowRunner
from apache_beam.transforms.resources import resource_hints_from_options

from beam_zoo.errors import UserError, one_line
from beam_zoo.storage.files import is_object, is_remote
from runners.dataflow import accelerators, preset

_SERVICE, _HINT = "--dataflow_service_options worker_accelerator", "--resource_hint accelerator"


def check(flags: list[str], locations: dict[str, str | None], device: str, precision: str = "fp32") -> None:
    """Refuse a run that would fail on Dataflow, or pay for GPUs that it does not use.

    Args:
        flags: all of Beam's options.
        locations: name of an option -> its path, or None.
        device: value of `--device`: `auto`, `cpu` or `cuda`.
        precision: of the encoder.

    Raises:
        UserError: the first error that is found.
    """
    options = PipelineOptions(flags)
    cloud, worker = options.view_as(GoogleCloudOptions), options.view_as(WorkerOptions)
    for name in ("project", "region"):
        if not getattr(cloud, name):
            raise UserError(f"--{name} is missing: Dataflow needs it")
    for name in ("temp_location", "staging_location", "template_location"):
        locations = {**locations, name: getattr(cloud, name)}
    for name, path in locations.items():
        if path is not None and not is_object(path):
            raise UserError(f"--{name} {path}: workers of Dataflow see no local files; put it on gs://")
    _check_accelerators(flags, worker.machine_type, precision)
    if cloud.flexrs_goal and preset.chain_hint(flags):
        raise UserError("--flexrs_goal and right fitting do not go together on Dataflow: leave one out")
    there = preset.device(flags)
    if device == "cuda" and there == "cpu":
        raise UserError(f"--device=cuda, but no GPU is asked for: give --dataflow_preset {_gpu_presets()}")
    if device == "cpu" and there == "cuda":
        raise UserError("--device=cpu, but workers with a GPU are asked for: leave one of them out")
    _check_beam(options)
    if not worker.sdk_container_image:
        raise UserError(
            "--sdk_container_image is missing: "
            "the image that runners/dataflow/cloudbuild.yaml builds, with this program"
        )


def _check_beam(options: PipelineOptions) -> None:
    """Run Beam's own checks now. Beam would run them after planning, and fail with a stack trace."""
    # Not `validator.validate`, which also sends requests to Google about the bucket.
    validator = PipelineOptionsValidator(options, DataflowRunner())
    worker = options.view_as(WorkerOptions)
    wrong = validator.validate_num_workers(worker) + validator.validate_worker_region_zone(worker)
    if validator.is_service_runner():  # not an endpoint on this machine
        wrong += validator.validate_cloud_options(options.view_as(GoogleCloudOptions))
    if wrong:
        raise UserError(f"{one_line(wrong[0], 300)} (Apache Beam)")
    try:
        resource_hints_from_options(options)
    except ValueError as error:
        raise UserError(f"--resource_hint: {one_line(error, 300)}") from None
    setup = options.view_as(SetupOptions)
    named = [setup.setup_file, setup.requirements_file, setup.sdk_location, *(setup.extra_packages or [])]
    for path in named:
        if path and path not in ("default", "container") and not is_remote(path) and not os.path.exists(path):
            raise UserError(f"there is no {path}, which an option of Apache Beam names")


def _check_accelerators(flags: list[str], machine: str | None, precision: str) -> None:
    options = PipelineOptions(flags)
    services = options.view_as(GoogleCloudOptions).dataflow_service_options or []
    for name in (service.partition("=")[0] for service in services):
        if name != preset.GPU_OPTION and difflib.get_close_matches(name, [preset.GPU_OPTION], cutoff=0.8):
            raise UserError(
                f"--dataflow_service_options: {name!r} is none (did you mean {preset.GPU_OPTION!r}?)"
            )
    for experiment in options.view_as(DebugOptions).experiments or []:
        if experiment.partition("=")[0] == preset.GPU_OPTION:
            raise UserError(f"--experiments {preset.GPU_OPTION}: give it by --dataflow_service_options")
    service, hint = preset.service_option(flags), preset.chain_hint(flags).get("accelerator")
    if service is not None and hint is not None:
        raise UserError(
            f"{_SERVICE} and {_HINT} do not go together: all workers have the GPU, or those of some steps"
        )
    if service is None and hint is None:
        if machine:
            accelerators.check_without(machine)
        return
    where = _HINT if service is None else _SERVICE
    found = accelerators.parse(service or hint or "", where)
    if service is not None:
        if found.machine:
            raise UserError(f"{where}: machine_type belongs to a hint; give --worker_machine_type")
        if "enable_prime" in services:
            raise UserError(f"{where} does not go with enable_prime: use --dataflow_right_fitting")
    accelerators.check(found, found.machine or machine, where)
    if precision == "bf16" and found.kind == "nvidia-tesla-t4":
        raise UserError("--precision=bf16: an NVIDIA T4 has no bfloat16; use fp16")


def _gpu_presets() -> str:
    return ", ".join(name for name, each in preset.PRESETS.items() if each.accelerator)

"""What Dataflow does not check, or checks when machines have been started: refused before anything is submitted."""

from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, WorkerOptions

from beam_zoo.errors import UserError, did_you_mean
from beam_zoo.files import is_object
from runners.dataflow import accelerators, preset

_SERVICE, _HINT = "--dataflow_service_options worker_accelerator", "--resource_hint accelerator"


def check(flags: list[str], locations: dict[str, str | None], device: str) -> None:
    """Refuse a run that could not work on Dataflow, or would pay for what it does not use.

    Args:
        flags: all of Beam's options.
        locations: name of an option -> the path that it gives, or None.
        device: `auto`, `cpu` or `cuda`, as asked for.

    Raises:
        UserError: the first thing that is wrong.
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
    _check_accelerators(flags, worker.machine_type)
    if cloud.flexrs_goal and preset.chain_hint(flags):
        raise UserError("--flexrs_goal and right fitting do not go together on Dataflow: leave one out")
    there = preset.device(flags)
    if device == "cuda" and there == "cpu":
        raise UserError(f"--device=cuda, but no GPU is asked for: give --dataflow_preset {_gpu_presets()}")
    if device == "cpu" and there == "cuda":
        raise UserError("--device=cpu, but workers with a GPU are asked for: leave one of them out")
    if not worker.sdk_container_image:
        raise UserError(
            "--sdk_container_image is missing: the image that runners/dataflow/cloudbuild.yaml builds, with this program"
        )


def _check_accelerators(flags: list[str], machine: str | None) -> None:
    options = PipelineOptions(flags).view_as(GoogleCloudOptions).dataflow_service_options or []
    for option in options:
        name = option.partition("=")[0]
        if name != preset.GPU_OPTION and preset.GPU_OPTION in did_you_mean(
            name, [preset.GPU_OPTION, "enable_prime"]
        ):
            raise UserError(
                f"--dataflow_service_options: {name!r} is none{did_you_mean(name, [preset.GPU_OPTION])}"
            )
    service, hint = preset.service_option(flags), preset.chain_hint(flags).get("accelerator")
    if service is not None and hint is not None:
        raise UserError(
            f"{_SERVICE} and {_HINT} do not go together: all workers have the GPU, or those of some steps"
        )
    if service is not None:
        accelerators.check(accelerators.parse(service, _SERVICE), machine, _SERVICE)
    elif hint is not None:
        found = accelerators.parse(hint, _HINT)
        accelerators.check(found, found.machine or machine, _HINT)
    elif machine and (kind := accelerators.accelerator_of(machine)):
        raise UserError(
            f"--worker_machine_type {machine} has an {kind} that would not be used: take another machine, or "
            f"--dataflow_preset {_gpu_presets()}"
        )


def _gpu_presets() -> str:
    return ", ".join(name for name, each in preset.PRESETS.items() if each.accelerator)

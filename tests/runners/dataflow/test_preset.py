"""The presets: their settings, that each can be overridden, and that the checks accept each."""

import itertools

import pytest
from apache_beam.options.pipeline_options import (
    DebugOptions,
    GoogleCloudOptions,
    PipelineOptions,
    WorkerOptions,
)

from pipelines.command import parse_checked
from runners.dataflow import checks, preset

GPUS = [name for name in preset.NAMES if name != "cpu"]
BASE = ["--runner=DataflowRunner", "--project=a-project", "--region=r", "--sdk_container_image=h.dev/p/r/i:t"]
BASE += ["--output", "gs://bucket/out/", "--catalogue", "gs://bucket/c.csv"]


def options(*words: str):
    return parse_checked("predict", "", [*BASE, *words])


def parsed(found) -> PipelineOptions:
    return PipelineOptions(found.beam)


@pytest.mark.parametrize(("name", "fit"), [("cpu", False), *itertools.product(GPUS, (False, True))])
def test_every_preset_passes_the_checks(name, fit):
    found = options("--dataflow_preset", name, *(["--dataflow_right_fitting"] if fit else []))
    checks.check(found.beam, {"output": found.work.output, "catalogue": found.inputs.catalogue}, "auto")
    assert preset.device(found.beam) == ("cpu" if name == "cpu" else "cuda")
    assert bool(preset.chain_hint(found.beam)) == fit
    assert (preset.service_option(found.beam) is None) == (fit or name == "cpu")
    worker, debug = parsed(found).view_as(WorkerOptions), parsed(found).view_as(DebugOptions)
    assert worker.disk_size_gb and debug.number_of_worker_harness_threads
    assert debug.experiments == ["no_use_multiple_sdk_containers"]
    assert parsed(found).view_as(GoogleCloudOptions).temp_location == "gs://bucket/out/_dataflow"
    assert all(found.origins[flag] for flag in found.beam)


def test_every_setting_is_overridden():
    mine = {
        "--machine_type": "g2-standard-16",
        "--disk_size_gb": "77",
        "--number_of_worker_harness_threads": "5",
        "--dataflow_service_option": "worker_accelerator=type:nvidia-l4;count:1;install-nvidia-driver:5xx",
        "--experiment": "use_multiple_sdk_containers",
        "--temp_location": "gs://elsewhere/tmp",
        "--job_name": "mine",
        "--sdk_location": "gs://elsewhere/beam.tar.gz",
    }
    found = options("--dataflow_preset", "l4", *(f"{name}={value}" for name, value in mine.items()))
    given = [flag for flag in found.beam if found.origins[flag] == "command line"]
    assert given[4:] == [f"{name}={value}" for name, value in mine.items()]
    assert len(found.beam) == len(given)  # the preset has nothing left to say
    checks.check(found.beam, {}, "cuda")


def test_other_lists_are_kept():
    found = options(
        "--dataflow_preset",
        "t4",
        "--experiments=enable_x",
        "--dataflow_service_options=enable_google_cloud_profiler",
    )
    assert parsed(found).view_as(DebugOptions).experiments == ["enable_x", "no_use_multiple_sdk_containers"]
    services = parsed(found).view_as(GoogleCloudOptions).dataflow_service_options
    assert services == [
        "enable_google_cloud_profiler",
        "worker_accelerator=type:nvidia-tesla-t4;count:1;install-nvidia-driver:5xx",
    ]


def test_a_hint_of_ones_own():
    """It is for the chain, not for the pipeline; others stay where Beam has them."""
    hint = "accelerator=type:nvidia-l4;count:1;machine_type:g2-standard-16;install-nvidia-driver"
    found = options(
        "--dataflow_preset=l4",
        "--dataflow_right_fitting",
        f"--resource_hint={hint}",
        "--resource_hint=min_ram=30GB",
    )
    checks.check(found.beam, {}, "auto")
    assert preset.chain_hint(found.beam) == {"accelerator": hint.partition("=")[2]}
    left = preset.without_hint(found.beam)
    assert [flag for flag in left if "hint" in flag] == ["--resource_hint=min_ram=30GB"]
    assert {flag for flag in found.beam if "hint" not in flag} == {
        flag for flag in left if "hint" not in flag
    }


def test_without_a_preset():
    """Only what every job needs: one process per machine, nothing installed there, files in the output."""
    found = options()
    added = [flag for flag in found.beam if found.origins[flag] == "for Dataflow"]
    assert {flag.partition("=")[0][2:] for flag in added} == {
        "sdk_location",
        "temp_location",
        "job_name",
        "experiments",
    }
    assert len(added) + 4 == len(found.beam)


@pytest.mark.parametrize(
    ("name", "machine"),
    [
        ("l4", "g2-standard-4"),
        ("l4", "g2-standard-32"),
        ("l4", "g2-custom-6-30720"),
        ("t4", "n1-highmem-8"),
        ("t4", "custom-8-30720"),
        ("a100", "a2-highgpu-1g"),
        ("cpu", "c3-standard-22"),
    ],
)
def test_other_machines_that_have_it(name, machine):
    checks.check(options("--dataflow_preset", name, "--worker_machine_type", machine).beam, {}, "auto")


@pytest.mark.parametrize(
    "service",
    [
        "automatically_use_created_reservation",
        "enable_google_cloud_profiler",
        "max_workflow_runtime_walltime_seconds=3600",
        "block_project_ssh_keys",
        "enable_prime",
        "graph_validate_only",
    ],
)
def test_other_service_options_are_no_business_of_ours(service):
    checks.check(
        options("--dataflow_preset", "cpu", f"--dataflow_service_options={service}").beam, {}, "auto"
    )


def test_a_shared_gpu_of_ones_own():
    mine = "worker_accelerator=type:nvidia-l4;count:1;install-nvidia-driver;use_nvidia_mps"
    checks.check(options("--dataflow_preset", "l4", f"--dataflow_service_options={mine}").beam, {}, "auto")

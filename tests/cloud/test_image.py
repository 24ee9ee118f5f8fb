"""The check of the workers' image, against a registry on loopback, by whole command lines."""

import sys

import apache_beam as beam
import pytest

from beam_zoo.storage import gcs
from pipelines import predict
from tests.cloud.conftest import labels


@pytest.fixture
def dry_run(google, bucket, few, trees, capfd):
    """`--dry_run` on Dataflow in this process: code, and the lines that it says."""
    catalogue = f"{bucket.upload(few.parent, 'sky')}/{few.name}"

    def run(*options, image="zoo/beam-zoo:gpu"):
        words = ["--catalogue", catalogue, "--models", *trees, "--output", bucket.path("out"), "--dry_run"]
        capfd.readouterr()
        code = predict.main([str(word) for word in [*words, *google.flags(image), *options]])
        return code, capfd.readouterr().err.splitlines()

    return run


def test_the_settings_are_printed(dry_run, google, bucket):
    """Every one, and where it comes from; nothing is written or submitted."""
    code, lines = dry_run("--dataflow_preset", "l4", "--disk_size_gb", "80")
    assert code == 0, lines
    said = "\n".join(lines)
    for line in (
        "Dataflow: worker_machine_type=g2-standard-8 (preset l4)",
        "Dataflow: dataflow_service_options=worker_accelerator=type:nvidia-l4;count:1;"
        "install-nvidia-driver:5xx (preset l4)",
        "Dataflow: disk_size_gb=80 (command line)",
        "Dataflow: number_of_worker_harness_threads=2 (preset l4)",
        "Dataflow: experiments=no_use_multiple_sdk_containers (for Dataflow)",
        "Dataflow: sdk_location=container (for Dataflow)",
        f"Dataflow: temp_location={bucket.path('out/_dataflow')} (for Dataflow)",
        "on cuda in fp32",
    ):
        assert line in said
    assert not google.jobs and not bucket.content("out")


def test_right_fitting_is_printed(dry_run):
    code, lines = dry_run("--dataflow_preset", "l4", "--dataflow_right_fitting")
    hint = "accelerator=type:nvidia-l4;count:1;machine_type:g2-standard-8;install-nvidia-driver:5xx"
    assert code == 0 and f"Dataflow: resource_hint={hint} (preset l4)" in lines
    assert not any("worker_machine_type" in line or "worker_accelerator" in line for line in lines)


@pytest.mark.parametrize("device", ["gpu", "cpu"])
def test_the_right_images(dry_run, google, device):
    """Of one platform or several, by tag."""
    google.images["zoo/many:x"] = labels(device) | {"index": "yes"}
    for image in (f"zoo/beam-zoo:{device}", "zoo/many:x"):
        assert dry_run("--dataflow_preset", {"gpu": "t4", "cpu": "cpu"}[device], image=image)[0] == 0


def test_a_registry_that_gives_anybody_a_token(dry_run, google):
    google.wants_token = True
    assert dry_run("--dataflow_preset", "l4")[0] == 0


def test_wrong_images(dry_run, google):
    right = labels("gpu")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    google.images |= {
        "zoo/old:x": right | {"org.beam-zoo.beam": "2.60.0"},
        "zoo/python:x": right | {"org.beam-zoo.python": "3.9"},
        "zoo/other:x": {"maintainer": "somebody"},
        "zoo/cpu:x": labels("cpu"),
    }
    for image, said in {
        "zoo/old:x": f"has Beam 2.60.0, and this command runs Beam {beam.__version__}: build it anew",
        "zoo/python:x": f"has Python 3.9, and this command runs Python {python}: build it anew",
        "zoo/other:x": "has no label org.beam-zoo.beam: build it with runners/dataflow/Dockerfile",
        "zoo/cpu:x": "has no CUDA",
        "zoo/none:x": "its registry has no such image; build it first",
        "zoo/beam-zoo:gqu": "its registry has no such image",
    }.items():
        code, lines = dry_run("--dataflow_preset", "l4", image=image)
        assert code == 2 and len(lines) == 1 and said in lines[0], lines


def test_no_registry(dry_run, google, monkeypatch):
    code, lines = dry_run("--sdk_container_image=localhost:1/zoo/beam-zoo:gpu")
    assert code == 2 and len(lines) == 1 and "cannot be looked at" in lines[0]
    code, lines = dry_run("--sdk_container_image=apache/beam_python3.11_sdk:2.77.0")
    assert code == 2 and len(lines) == 1 and "names no registry" in lines[0]


def test_local_images_are_refused(dry_run, bucket, few):
    """Workers do not see them, even where this machine does."""
    rows = few.read_text().splitlines()
    rows[3] = rows[3].replace("images/", f"{few.parent}/images/")
    gcs.write(bucket.path("sky/mixed.csv"), "\n".join(rows).encode(), replace=True)
    code, lines = dry_run("--dataflow_preset", "l4", "--catalogue", bucket.path("sky/mixed.csv"))
    assert code == 2 and len(lines) == 1
    assert "1 rows of" in lines[0] and f"(first '{few.parent}/images/0002.jpg')" in lines[0]

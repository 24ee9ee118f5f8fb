"""Submissions to Dataflow, by Beam's own DataflowRunner, to a server on loopback."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from apache_beam.portability.api import beam_runner_api_pb2 as runner_api

from beam_zoo.storage import files, gcs
from pipelines import audit, finish
from tests.cloud.test_objects import OPTIONS, contents, objects
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

REPO = Path(__file__).parents[2]
ACCELERATOR = "beam:resources:accelerator:v1"
GPU_STEPS = ("load images", "infer a", "infer b", "store")


@pytest.fixture
def submit(google, bucket, sky, trees, tmp_path):
    """Runs predict with Dataflow in a process of its own, from an empty folder."""

    def run(*options, image="zoo/beam-zoo:gpu", wait=True):
        words = [sys.executable, "-m", "pipelines.predict", "--catalogue", sky, "--models", *trees]
        words += ["--output", bucket.path("out"), *OPTIONS, *google.flags(image), *options]
        environment = {**os.environ, **google.environment(), "PYTHONPATH": str(REPO)}
        process = subprocess.Popen(
            [str(word) for word in words], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
        )
        if not wait:
            return process
        _, said = process.communicate(timeout=300)
        return process.returncode, said

    return run


def staged(job: dict) -> runner_api.Pipeline:
    """The pipeline that a job's workers would read."""
    return runner_api.Pipeline.FromString(gcs.read(options_of(job)["pipelineUrl"]))


def options_of(job: dict) -> dict:
    """Beam's options as the job has them."""
    return job["environment"]["sdkPipelineOptions"]["options"]


def accelerators(pipeline: runner_api.Pipeline) -> dict[str, str]:
    """Name of every step that workers carry out -> the accelerator that it asks for, or an empty text."""
    parts = pipeline.components
    found = {}
    for transform in parts.transforms.values():
        if transform.environment_id and not transform.subtransforms:
            hints = parts.environments[transform.environment_id].resource_hints
            found[transform.unique_name] = hints.get(ACCELERATOR, b"").decode()
    return found


def test_a_job_with_gpus(submit, google, bucket, tmp_path, trees):
    """The job and the staged pipeline say what the preset says, and nothing of this machine."""
    code, said = submit("--dataflow_preset", "l4", "--max_num_workers", 20)
    # The server has done nothing: that samples are missing is found out, and said.
    assert code == 2 and "lacks the samples of --snippets 0:6" in said.splitlines()[-1], said
    assert (
        f"Dataflow job job-1: https://console.cloud.google.com/dataflow/jobs/{google.flags()[2][9:]}/job-1"
        in said
    )
    (job,) = google.jobs
    (pool,) = job["environment"]["workerPools"]
    assert pool["machineType"] == "g2-standard-8" and pool["diskSizeGb"] == 100
    assert pool["numThreadsPerWorker"] == 2
    assert pool["autoscalingSettings"]["maxNumWorkers"] == 20
    images = {each["containerImage"] for each in pool["sdkHarnessContainerImages"]}
    assert images == {f"{google.registry}/zoo/beam-zoo:gpu"}
    assert (
        "worker_accelerator=type:nvidia-l4;count:1;install-nvidia-driver:5xx"
        in job["environment"]["serviceOptions"]
    )
    assert "no_use_multiple_sdk_containers" in job["environment"]["experiments"]
    assert "use_multiple_sdk_containers" not in job["environment"]["experiments"]
    assert job["name"].startswith("beam-zoo-predict-")
    assert options_of(job)["sdk_location"] == "container"
    assert options_of(job)["temp_location"].startswith(bucket.path("out", "_dataflow"))
    pipeline = staged(job)
    found = accelerators(pipeline)
    assert set(found.values()) == {""}  # hints and the service option do not go together
    assert all(any(step in name for name in found) for step in GPU_STEPS)
    assert {e.urn for e in pipeline.components.environments.values()} == {"beam:env:docker:v1"}
    for text in (json.dumps(job), *texts(pipeline)):
        for local in (str(tmp_path), str(trees[0].parent), str(REPO)):
            assert local not in text


def texts(pipeline: runner_api.Pipeline) -> list[str]:
    """The serialised pipeline, and what its steps have pickled."""
    from apache_beam.internal import pickler

    found = [pipeline.SerializeToString().decode(errors="replace")]
    for transform in pipeline.components.transforms.values():
        if transform.spec.urn == "beam:transform:pardo:v1":
            payload = runner_api.ParDoPayload.FromString(transform.spec.payload)
            found.append(repr(deep(pickler.loads(payload.do_fn.payload))))
    assert any("_plan/members" in text for text in found)  # this does look into the steps
    return found


def deep(value, seen=None):
    """What an object holds, down to plain values."""
    import dataclasses

    seen = seen if seen is not None else set()
    if id(value) in seen:
        return None
    seen.add(id(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: deep(getattr(value, f.name), seen) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(k): deep(v, seen) for k, v in value.items()}
    if isinstance(value, list | tuple | set):
        return [deep(item, seen) for item in value]
    if hasattr(value, "__dict__") and not isinstance(value, type):
        return {k: deep(v, seen) for k, v in vars(value).items()}
    return value if isinstance(value, str | bytes | int | float) else None


def test_right_fitting(submit, google):
    """One hint on the whole chain from images to stored samples; the tables and all others ask for no GPU."""
    code, said = submit(
        "--dataflow_preset", "t4", "--dataflow_right_fitting", "--worker_machine_type", "n2-standard-2"
    )
    assert code == 2 and len(google.jobs) == 1, said
    (job,) = google.jobs
    assert not any("accelerator" in option for option in job["environment"].get("serviceOptions", []))
    assert job["environment"]["workerPools"][0]["machineType"] == "n2-standard-2"
    found = accelerators(staged(job))
    text = "type:nvidia-tesla-t4;count:1;machine_type:n1-standard-8;install-nvidia-driver:5xx"
    inside = {name for name in found if name.split("/")[0] in GPU_STEPS}
    assert {name.split("/")[0] for name in inside} == set(GPU_STEPS)
    assert {name: hint for name, hint in found.items() if hint} == dict.fromkeys(inside, text)
    assert any(name.startswith("write tables") for name in found)
    environments = staged(job).components.environments.values()
    assert len([e for e in environments if e.resource_hints]) == 1  # so that the chain can be fused


def test_a_job_that_is_carried_out(submit, google, bucket, few, trees, predict, capfd):
    """The staged pipeline, run by Beam's local portable runner, gives the bytes of a local run."""
    local = predict(few, trees, *OPTIONS)
    google.execute = True
    code, said = submit("--dataflow_preset", "cpu", image="zoo/beam-zoo:cpu")
    assert code == 0, said
    assert objects(bucket) == contents(local.output)
    manifest = files.read_json(bucket.path("out/manifest.json"))
    assert (manifest["rows_predicted"], manifest["rows_reused"], manifest["device"]) == (23, 0, "cpu")
    assert google.jobs[0]["environment"]["workerPools"][0]["machineType"] == "n2-standard-8"
    assert audit.main([bucket.path("out")]) == 0, capfd.readouterr()
    # What is there is neither predicted nor submitted again.
    code, said = submit("--dataflow_preset", "cpu", image="zoo/beam-zoo:cpu")
    assert code == 0 and len(google.jobs) == 1, said


def test_no_gpu_on_a_worker_is_no_fall_back(submit, google):
    """The pipeline of a GPU preset, run without a GPU: the command's last line is the worker's error."""
    google.execute = True
    code, said = submit("--dataflow_preset", "l4")
    assert code == 2
    assert said.splitlines()[-1].startswith("error: --device=cuda, but this machine has no usable GPU"), said


def test_a_job_that_fails(submit, google):
    google.states, google.messages = (
        ["RUNNING", "FAILED"],
        [("ERROR", "Workflow failed. Causes: quota 'NVIDIA_L4_GPUS' exceeded")],
    )
    code, said = submit("--dataflow_preset", "l4")
    assert code == 1
    assert "quota 'NVIDIA_L4_GPUS' exceeded" in said.splitlines()[-1] and "the same command goes on" in said
    assert "Traceback" not in said


def test_a_job_that_is_refused(submit, google):
    google.refusal = (403, "Dataflow API has not been used in project test-project before")
    code, said = submit("--dataflow_preset", "l4")
    assert code == 2
    assert (
        said.splitlines()[-1].startswith("error: Dataflow does not take the job:")
        and "has not been used" in said
    )
    assert "Traceback" not in said


def test_ctrl_c_cancels_the_job(submit, google):
    google.states = ["RUNNING"]
    process = submit("--dataflow_preset", "l4", wait=False)
    wait_for(lambda: google.asked, 120)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert google.cancelled == ["job-1"] and "Dataflow job job-1 is cancelled" in said


def test_a_template(google, bucket, few, sky, trees, predict, tmp_path):
    """As a flex template's launcher starts it: no job is created; run later, it gives the same tables."""
    local = predict(few, trees, *OPTIONS)
    bucket.upload(trees[0].parent, "run/members")
    run = {
        "catalogue": "../sky/catalogue.csv",
        "output": "../out",
        "models": [f"members/{t.name}" for t in trees],
    }
    names = [str(word)[2:] for word in OPTIONS if str(word).startswith("--")]
    values = dict(zip(names, (2, 4, 3, ["ra", "dec"]), strict=True))
    gcs.write(bucket.path("run/run.yaml"), yaml.safe_dump({**run, **values}).encode(), replace=True)
    location = bucket.path("templates/predict")
    words = [
        sys.executable,
        REPO / "runners/dataflow/template/main.py",
        f"--config={bucket.path('run/run.yaml')}",
    ]
    words += ["--dataflow_preset=cpu", f"--template_location={location}", *google.flags("zoo/beam-zoo:cpu")]
    environment = {**os.environ, **google.environment(), "PYTHONPATH": str(REPO)}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "python -m pipelines.finish" in done.stderr.splitlines()[-1]
    assert not google.jobs
    job = files.read_json(location)
    assert job["environment"]["workerPools"][0]["machineType"] == "n2-standard-8"
    words = [sys.executable, "-m", "tests.cloud.execute", options_of(job)["pipelineUrl"]]
    subprocess.run(words, check=True, cwd="/", env={**os.environ, "PYTHONPATH": str(REPO)})
    assert finish.main([bucket.path("out")]) == 0
    assert objects(bucket) == contents(local.output)

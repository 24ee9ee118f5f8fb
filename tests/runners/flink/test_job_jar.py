"""A pipeline as a jar: what Beam's Java runner finds in it."""

import json
import zipfile

import apache_beam as beam
from apache_beam.portability.api import beam_runner_api_pb2
from google.protobuf import json_format

from runners.flink import job_jar


def test_content(tmp_path):
    """The pipeline, where it runs, and the options; nothing of this machine's packages."""
    jar = tmp_path / "job.jar"
    flags = [
        "--runner=FlinkRunner",
        "--environment_type=PROCESS",
        '--environment_config={"command": "/flink/boot", "env": {"A": "b"}}',
        "--parallelism=3",
    ]
    job_jar.write(jar, lambda p: p | beam.Create([1, 2]) | "twice" >> beam.Map(lambda x: 2 * x), flags)
    with zipfile.ZipFile(jar) as content:
        read = {name: content.read(name).decode() for name in content.namelist()}
    assert json.loads(read["BEAM-PIPELINE/pipeline-manifest.json"]) == {"defaultJobName": "pipeline"}
    proto = beam_runner_api_pb2.Pipeline()
    json_format.Parse(read["BEAM-PIPELINE/pipeline/pipeline.json"], proto)
    assert "twice" in {each.unique_name for each in proto.components.transforms.values()}
    environments = [
        each for each in proto.components.environments.values() if each.urn == "beam:env:process:v1"
    ]
    payload = beam_runner_api_pb2.ProcessPayload.FromString(environments[0].payload)
    assert (payload.command, dict(payload.env)) == ("/flink/boot", {"A": "b"})
    assert not any(each.dependencies for each in environments)
    options = json.loads(read["BEAM-PIPELINE/pipeline/pipeline-options.json"])
    assert options["beam:option:parallelism:v1"] == "3"
    assert "beam:option:runner:v1" not in options
    assert jar.stat().st_size < 100_000

"""A Beam pipeline as a jar that Flink's application mode starts."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.runners.portability.portable_runner import JobServiceHandle, PortableRunner
from google.protobuf import json_format

NAME = "pipeline"
# Where FlinkPipelineRunner looks: PortablePipelineJarUtils.java of Beam.
FOLDER = "BEAM-PIPELINE"


def write(path: Path, build: Callable[[beam.Pipeline], object], flags: list[str]) -> None:
    """Write a pipeline and its options, and nothing else: workers have all the code that it needs.

    Args:
        path: the jar.
        build: adds the steps to a pipeline.
        flags: Beam's options; their environment is where the steps run.
    """
    options = PipelineOptions(flags)
    pipeline = beam.Pipeline(options=PipelineOptions(flags))
    build(pipeline)
    proto = PortableRunner.get_proto_pipeline(pipeline, options)
    for environment in proto.components.environments.values():
        del environment.dependencies[:]  # a list of this machine's packages, which nobody would read
    # A name of a Python class that Java would look for among its own.
    options.view_as(StandardOptions).runner = None
    encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options())
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as jar:
        jar.writestr("META-INF/MANIFEST.MF", "Manifest-Version: 1.0\n")
        jar.writestr(f"{FOLDER}/pipeline-manifest.json", json.dumps({"defaultJobName": NAME}))
        jar.writestr(f"{FOLDER}/{NAME}/pipeline.json", json_format.MessageToJson(proto))
        jar.writestr(f"{FOLDER}/{NAME}/pipeline-options.json", json_format.MessageToJson(encoded))

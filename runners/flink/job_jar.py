"""A Beam pipeline as a jar that Flink's application mode starts."""

import json
import shutil
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.runners.portability.portable_runner import JobServiceHandle, PortableRunner
from google.protobuf import json_format

from beam_zoo.errors import UserError

NAME = "pipeline"
# Where FlinkPipelineRunner looks: PortablePipelineJarUtils.java of Beam.
FOLDER = "BEAM-PIPELINE"
SENT = {
    *("--requirements_file", "--setup_file", "--extra_package", "--extra_packages"),
    *("--file_to_stage", "--files_to_stage"),
}
"""Options of Beam with which code would travel."""


def write(
    path: Path,
    build: Callable[[beam.Pipeline], object],
    flags: list[str],
    runner: Path | None = None,
    classes: Mapping[str, bytes] | None = None,
) -> None:
    """Write a pipeline and its options: workers have all the code that it needs.

    Args:
        path: the jar.
        build: adds the steps to a pipeline.
        flags: Beam's options; their environment is where the steps run.
        runner: a jar whose content is to be in this one, for a cluster that has no runner of Beam's.
        classes: that take the place of the runner's own: path in the jar -> bytes.

    Raises:
        UserError: an option that would send code to workers.
    """
    if sent := [flag for flag in flags if flag.partition("=")[0] in SENT]:
        raise UserError(f"{sent[0]}: workers run in an environment of their own: install it there")
    if runner is not None:
        shutil.copyfile(runner, path)
    options = PipelineOptions(flags)
    pipeline = beam.Pipeline(options=PipelineOptions(flags))
    build(pipeline)
    proto = PortableRunner.get_proto_pipeline(pipeline, options)
    for environment in proto.components.environments.values():
        del environment.dependencies[:]  # a list of this machine's packages, which nobody would read
    # A name of a Python class that Java would look for among its own.
    options.view_as(StandardOptions).runner = None
    encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options())
    with zipfile.ZipFile(path, "w" if runner is None else "a", zipfile.ZIP_DEFLATED) as jar:
        if runner is None:
            jar.writestr("META-INF/MANIFEST.MF", "Manifest-Version: 1.0\n")
        with warnings.catch_warnings(action="ignore"):  # of two entries with one name Java reads the last
            for name, content in (classes or {}).items():
                jar.writestr(name, content)
        jar.writestr(f"{FOLDER}/pipeline-manifest.json", json.dumps({"defaultJobName": NAME}))
        jar.writestr(f"{FOLDER}/{NAME}/pipeline.json", json_format.MessageToJson(proto))
        jar.writestr(f"{FOLDER}/{NAME}/pipeline-options.json", json_format.MessageToJson(encoded))

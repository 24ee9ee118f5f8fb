"""Write a Beam pipeline as a jar for Flink's application mode."""

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
# As in Beam's PortablePipelineJarUtils.java.
FOLDER = "BEAM-PIPELINE"
SENT = {
    *("--requirements_file", "--setup_file", "--extra_package", "--extra_packages"),
    *("--file_to_stage", "--files_to_stage"),
}
"""Options of Beam that send code to workers."""


def write(
    path: Path,
    build: Callable[[beam.Pipeline], object],
    flags: list[str],
    runner: Path | None = None,
    classes: Mapping[str, bytes] | None = None,
) -> None:
    """Write a pipeline and its options, without code: that is installed on the workers.

    Args:
        path: the jar.
        build: adds the steps to a pipeline.
        flags: Beam's options, with the environment of the workers.
        runner: a jar of Beam's runner to include, for a cluster that does not have it.
        classes: replacements of classes of `runner`: path in the jar -> bytes.

    Raises:
        UserError: an option would send code to workers.
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
        del environment.dependencies[:]  # a list of this machine's packages, which is not needed
    # Java would look for a class with this name.
    options.view_as(StandardOptions).runner = None
    encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options())
    with zipfile.ZipFile(path, "w" if runner is None else "a", zipfile.ZIP_DEFLATED) as jar:
        if runner is None:
            jar.writestr("META-INF/MANIFEST.MF", "Manifest-Version: 1.0\n")
        with warnings.catch_warnings(action="ignore"):  # duplicate names: Java reads the last entry
            for name, content in (classes or {}).items():
                jar.writestr(name, content)
        jar.writestr(f"{FOLDER}/pipeline-manifest.json", json.dumps({"defaultJobName": NAME}))
        jar.writestr(f"{FOLDER}/{NAME}/pipeline.json", json_format.MessageToJson(proto))
        jar.writestr(f"{FOLDER}/{NAME}/pipeline-options.json", json_format.MessageToJson(encoded))

"""Runs a pipeline as it was staged for Dataflow, with Beam's local portable runner.

    python -m tests.cloud.execute gs://bucket/.../pipeline.pb

Its containers become worker processes; nothing else is changed, and nothing but the staged file is known here.
"""

import shlex
import sys

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from beam_zoo import gcs

SUBPROCESS = "beam:env:harness_subprocess_python:v1"


def main() -> None:
    """Run it to its end."""
    pipeline = beam_runner_api_pb2.Pipeline.FromString(gcs.read(sys.argv[1]))
    command = shlex.join([sys.executable, "-m", "runners.worker"]).encode()
    for environment in pipeline.components.environments.values():
        environment.urn, environment.payload = SUBPROCESS, command
        del environment.dependencies[:]
    FnApiRunner().run_via_runner_api(pipeline, PipelineOptions([])).wait_until_finish()


if __name__ == "__main__":
    main()

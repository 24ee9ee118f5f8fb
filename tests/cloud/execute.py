"""Runs a pipeline as it was staged for Dataflow, with Beam's local portable runner.

    python -m tests.cloud.execute gs://bucket/.../pipeline.pb

Its containers become this process; nothing else is changed, and nothing but the staged file is known here.
"""

import sys

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from beam_zoo.storage import gcs


def main() -> None:
    """Run it to its end."""
    pipeline = beam_runner_api_pb2.Pipeline.FromString(gcs.read(sys.argv[1]))
    for environment in pipeline.components.environments.values():
        environment.urn, environment.payload = python_urns.EMBEDDED_PYTHON, b""
        del environment.dependencies[:]
    FnApiRunner().run_via_runner_api(pipeline, PipelineOptions([])).wait_until_finish()


if __name__ == "__main__":
    main()

"""Submit a job to Dataflow and wait for its end."""

import sys
from collections.abc import Callable
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions

from beam_zoo.errors import RunFailed, UserError, known_error, one_line
from runners.dataflow import preset
from runners.stack_traces import summary


def run(build: Callable[[beam.Pipeline], object], flags: list[str]) -> None:
    """Submit a pipeline and wait for it, or write it as a template. Ctrl-C cancels the job.

    Args:
        build: adds the steps to a pipeline.
        flags: Beam's options, checked.

    Raises:
        UserError: Dataflow refuses the job, or a worker reported an error that the user can correct.
        RunFailed: the job failed, or was cancelled.
    """
    from google.api_core.exceptions import GoogleAPIError

    options = PipelineOptions(preset.without_hint(flags))
    result = _submit(build, options)
    if not result.has_job:
        return
    where = f"Dataflow job {result.job_id()}"
    print(f"{where}: {_console(options, result.job_id())}", file=sys.stderr)
    try:
        result.wait_until_finish()
    except KeyboardInterrupt:
        result.cancel()
        print(f"{where} is cancelled", file=sys.stderr)
        raise
    except (GoogleAPIError, OSError) as error:
        raise RunFailed(
            f"{where} cannot be followed any more, and may be running still ({one_line(error, 200)}): "
            "the same command goes on when it has ended"
        ) from None
    except Exception as error:
        if known_error(error) is not None:
            raise
        text = str(error).partition("Error:\n")[2] or str(error)
        raise RunFailed(f"{where} failed: {summary(text)}; the same command goes on") from error


def _submit(build: Callable[[beam.Pipeline], object], options: PipelineOptions) -> Any:
    from google.api_core.exceptions import ClientError, GoogleAPIError

    try:
        pipeline = beam.Pipeline(options=options)
        build(pipeline)
        return pipeline.run()
    except ClientError as error:
        raise UserError(f"Dataflow does not take the job: {one_line(error.message, 300)}") from None
    except (GoogleAPIError, OSError) as error:
        raise RunFailed(
            f"Dataflow cannot be reached: {one_line(error, 300)}; the same command goes on"
        ) from None
    except Exception as error:
        if known_error(error) is not None:
            raise
        raise UserError(f"the job cannot be submitted: {summary(str(error))}") from error


def template(flags: list[str]) -> str | None:
    """The path to which the pipeline is written as a template instead of being run, or None."""
    location: str | None = PipelineOptions(flags).view_as(GoogleCloudOptions).template_location
    return location


def _console(options: PipelineOptions, job: str) -> str:
    cloud = options.view_as(GoogleCloudOptions)
    return f"https://console.cloud.google.com/dataflow/jobs/{cloud.region}/{job}?project={cloud.project}"

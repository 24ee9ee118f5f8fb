"""Carry out a prepared run: samples, tables, manifest, exit code."""

import collections
import dataclasses
import datetime
import json
import os
import platform
import random
import sys
import time
from importlib import metadata

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from beam_zoo import members, parts
from beam_zoo import output as outputs
from beam_zoo.errors import UserError
from beam_zoo.plan import write_json
from beam_zoo.progress import Progress
from beam_zoo.records import PartRef, Snippet
from beam_zoo.run import Run
from beam_zoo.tables import REPORTS, table_folders
from pipelines import prepare as preparation
from pipelines.describe import describe
from pipelines.options import Options
from pipelines.samples import samples
from pipelines.tables import tables
from runners import beam_options, direct

TOO_MANY_FAILURES = 3
TABLE_PARTS_AT_ONCE = 2
VERSIONS = (
    "beam-zoo",
    "apache-beam",
    "torch",
    "torchvision",
    "timm",
    "zoobot",
    "galaxy-datasets",
    "pyarrow",
    "numpy",
    "scipy",
    "pillow",
)


def execute(command: str, options: Options) -> int:
    """Check, plan, predict, build the tables, and write the manifest.

    Returns:
        The exit code: 0, or 3 if more galaxies failed than `--max_failure_fraction` allows.

    Raises:
        UserError: something is wrong that the user can put right.
        StorageFull: the output's disk is full.
    """
    begin = time.time()
    prepared = preparation.prepare(command, options)
    run = prepared.run
    stored = {} if options.overwrite else parts.stored_parts(run.plan, run.output)
    print(describe(prepared, stored), file=sys.stderr)
    if options.dry_run:
        return 0
    preparation.publish(prepared, overwrite=options.overwrite)
    missing = [run.plan.snippet(n) for n in prepared.snippets if n not in stored]
    again = [s for s in parts.to_retry(run.plan, run.output, stored) if s.number in prepared.snippets]
    if beam_options.runner_name(options.beam) != beam_options.DIRECT:
        outputs.remove_tables(run.output, table_folders(run.plan))
        _run_on_cluster(run, missing + again, stored, options.beam)
    else:
        predict_here(run, missing + again, options.beam)
        if options.snippets:
            print(
                f"samples of snippets {options.snippets} are stored in {run.output}; the same command without --snippets goes on",
                file=sys.stderr,
            )
            return 0
        outputs.remove_tables(run.output, table_folders(run.plan))
        tables_here(run, options.beam)
    return write_manifest(run, options, stored, begin)


def predict_here(run: Run, snippets: list[Snippet], flags: list[str]) -> None:
    """Samples of these snippets, on the local runner: one pipeline, so that models load once."""
    if not snippets:
        return
    order = random.Random(time.time_ns()).sample(snippets, len(snippets))
    galaxies = sum(len(snippet.offsets) for snippet in snippets)
    with Progress(galaxies, run.plan.command) as progress:
        watched = dataclasses.replace(run, progress=progress.folder)
        direct.run(lambda p: samples(p | beam.Create(order, reshuffle=False), watched), flags)


def tables_here(run: Run, flags: list[str]) -> None:
    """All tables on the local runner, a few parts at a time: the runner keeps every shuffle in memory."""
    by_part: dict[int, list[PartRef]] = collections.defaultdict(list)
    for snippet, refs in parts.stored_parts(run.plan, run.output).items():
        by_part[run.plan.table_part(snippet)] += refs
    numbers = sorted(by_part)
    for start in range(0, len(numbers), TABLE_PARTS_AT_ONCE):
        some = [ref for number in numbers[start : start + TABLE_PARTS_AT_ONCE] for ref in by_part[number]]

        def build(p: beam.Pipeline, refs: list[PartRef] = some) -> None:
            tables(p | beam.Create(refs, reshuffle=False), run)

        direct.run(build, flags)


def _run_on_cluster(
    run: Run, snippets: list[Snippet], stored: dict[int, list[PartRef]], flags: list[str]
) -> None:
    """Samples and tables as one graph."""
    order = random.Random(time.time_ns()).sample(snippets, len(snippets))
    known = [ref for refs in stored.values() for ref in refs]
    with beam.Pipeline(options=PipelineOptions(flags)) as p:
        new = samples(p | "snippets to do" >> beam.Create(order), run)
        old = p | "parts already there" >> beam.Create(known)
        tables((old, new) | beam.Flatten(), run)


def write_manifest(run: Run, options: Options, stored: dict[int, list[PartRef]], begin: float) -> int:
    """Add up the table parts' reports, write manifest.json last of all, and print the result.

    Args:
        run: the run.
        options: the command's options.
        stored: the parts that were there before this command predicted any.
        begin: when the command started, in seconds since 1970.

    Returns:
        The exit code.
    """
    plan = run.plan
    reports = []
    for number in range(plan.table_parts):
        path = os.path.join(run.output, REPORTS, f"part-{number:06d}.json")
        if not os.path.exists(path):
            raise UserError(f"{run.output}: table part {number} is missing: run the same command again")
        with open(path, encoding="utf-8") as file:
            reports.append(json.load(file))
    predicted = sum(report["predicted"] for report in reports)
    failed = sum(report["failed"] for report in reports)
    if predicted + failed != plan.rows:
        raise AssertionError(
            f"{predicted} predicted and {failed} failed are not the {plan.rows} rows of the plan"
        )
    seconds = time.time() - begin
    names = {ref.name for refs in stored.values() for ref in refs}
    read = [part for report in reports for part in report["parts"]]
    before = sum(part["galaxies"] for part in read if os.path.basename(part["name"]) in names)
    manifest = {
        "command": plan.command,
        "rows_in": plan.rows,
        "rows_predicted": predicted,
        "rows_failed": failed,
        "rows_reused": before,
        "members": [members.to_json(member) for member in plan.members],
        "versions": {name: _version(name) for name in VERSIONS} | {"python": platform.python_version()},
        "options": dict(options.values),
        "beam_options": options.beam,
        "device": run.device,
        "seed": plan.seed,
        "start": _utc(begin),
        "end": _utc(time.time()),
        "galaxies_per_second": round((predicted - before) / seconds, 3),
        "fingerprint": plan.fingerprint,
        "tables": [file for report in reports for file in report["files"].values()],
        "parts": read,
    }
    write_json(os.path.join(run.output, outputs.MANIFEST), manifest)
    print(
        f"{predicted:,} of {plan.rows:,} galaxies predicted ({before:,} of them before), {failed:,} failed, "
        f"in {seconds:.1f} s: {run.output}",
        file=sys.stderr,
    )
    if failed > options.max_failure_fraction * plan.rows:
        print(
            f"error: {failed:,} of {plan.rows:,} galaxies failed, more than --max_failure_fraction "
            f"{options.max_failure_fraction:g} allows: see {os.path.join(run.output, 'failures')}",
            file=sys.stderr,
        )
        return TOO_MANY_FAILURES
    return 0


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _utc(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")

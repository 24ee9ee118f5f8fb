"""Re-read everything of an output, and check that plan, stored samples, tables and manifest agree.

    python -m pipelines.audit OUT

ends with code 0 and one line, or with code 1 and a line for each thing that is wrong. Other runners than the
local one also need `--report DIR`, a folder that their workers can write to. Of an output of `aggregate` the
stored samples of its sources are read, where its manifest says that they are.
"""

import functools
import json
import os
import sys
import tempfile
from collections import Counter
from typing import TYPE_CHECKING, Any

from beam_zoo.errors import UserError, near_path
from beam_zoo.runtime.tuning import keep_freed_memory
from beam_zoo.storage import files, layout
from beam_zoo.storage.output import is_output
from pipelines import command
from pipelines.command_line import Parser

if TYPE_CHECKING:
    import apache_beam as beam

    from beam_zoo.auditing.aggregate import AggregateAudit
    from beam_zoo.auditing.elements import Element
    from beam_zoo.auditing.findings import Findings
    from beam_zoo.auditing.run import RunAudit

    Audit = RunAudit | AggregateAudit

DESCRIPTION = "Re-read everything of an output and check that plan, samples, tables and manifest agree."
WRONG = 1
ELEMENTS_AT_ONCE = 4
"""Table parts that a process of the local runner takes at a time."""
REPORT = "audit.jsonl"


def audit(output: str, report: str | None, flags: list[str]) -> tuple[list[str], str]:
    """Audit an output.

    Args:
        output: its folder.
        report: folder for what the workers find, or None for a temporary one.
        flags: Beam's options.

    Returns:
        Lines about what is wrong, and the line for an output in which nothing is.

    Raises:
        UserError: the folder is no complete output, or a runner lacks the report's folder.
    """
    from beam_zoo.auditing.findings import Findings
    from runners import beam_options, cluster

    runner = beam_options.runner_name(flags)
    here = runner == beam_options.DIRECT
    if report is None and not here:
        raise UserError(f"--report DIR is missing: the workers of {runner} write there what they find")
    cluster.check(flags)
    findings = Findings()
    manifest = _read_manifest(output, findings)
    shared = None if is_output(output) else report  # workers read what is made of an aggregate's sources
    if shared is not None:
        if "://" in shared:
            raise UserError(f"--report {shared}: of an aggregate it must be a folder that all workers mount")
        os.makedirs(shared, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="beam-zoo-audit-", dir=shared) as temporary:
        subject, elements = _open(output, manifest, temporary, findings)
        if subject is None:
            return findings.all("audit"), ""
        lines, counts = _check(elements, subject, report, temporary if here else None, flags)
    if counts["elements"] != len(elements):
        text = f"{counts['elements']:,} of {len(elements):,} checks came back: run it again"
        findings.add("audit", text)
    healthy = subject.summary(manifest, counts, findings)
    problems = [*findings.all("audit"), *sorted(lines)]
    return problems, "" if problems else healthy


def _read_manifest(output: str, findings: "Findings") -> dict[str, Any]:
    """The manifest; empty if it is damaged, which is a finding.

    Raises:
        UserError: the folder is no output, or is not complete.
    """
    if not files.is_folder(output):
        what = "is not a folder" if files.exists(output) else f"does not exist{near_path(output)}"
        raise UserError(f"{output} {what}")
    path, manifest = os.path.join(output, layout.MANIFEST), {}
    if is_complete := files.exists(path):
        with findings.unreadable(layout.MANIFEST):
            found = files.read_json(path)
            if not isinstance(found, dict):
                raise ValueError("it holds no mapping")
            manifest = found
    if not is_output(output):
        # An aggregate that has lost its mark is audited, too.
        has_mark = files.exists(os.path.join(output, layout.AGGREGATE_MARK)) or "sources" in manifest
        if not has_mark or files.is_folder(os.path.join(output, layout.PLAN)):
            kinds = "predict or represent, nor of aggregate"
            raise UserError(f"{output} is not an output of {kinds}: it has no plan and no sources")
    if not is_complete:
        raise UserError(f"{path} does not exist: the run is not complete, run the same command again")
    return manifest


def _open(
    output: str, manifest: dict[str, Any], temporary: str, findings: "Findings"
) -> "tuple[Audit | None, list[Element]]":
    """The audit and its elements; None where a finding is that plan or manifest are damaged."""
    from beam_zoo.auditing.aggregate import open_aggregate
    from beam_zoo.auditing.plan_files import require_usable
    from beam_zoo.auditing.run import RunAudit
    from beam_zoo.plan import plan_file

    plan = None
    with findings.unreadable(layout.PLAN_FILE):
        if (plan := plan_file.read(output)) is not None:
            require_usable(plan)
    if findings.lines:
        return None, []
    if plan is not None:
        run = RunAudit(plan, output)
        return run, run.open(manifest, findings)
    work = os.path.join(temporary, "sources")
    os.mkdir(work)
    return open_aggregate(output, manifest, work, findings)


def _check(
    elements: "list[Element]", subject: "Audit", report: str | None, temporary: str | None, flags: list[str]
) -> tuple[list[str], Counter[str]]:
    """Check the elements: on the local runner if there is a temporary folder, else with a report's folder."""
    from apache_beam.io.filesystems import FileSystems

    from runners import cluster, processes

    steps = functools.partial(add_steps, subject=subject)
    lines: list[str] = []
    counts: Counter[str] = Counter()
    if temporary is None:
        paths = [os.path.join(report or "", REPORT)]
        cluster.run(functools.partial(steps, elements=elements, path=paths[0]), flags)
    else:
        firsts = range(0, len(elements), ELEMENTS_AT_ONCE)
        paths = [os.path.join(temporary, f"{first}.jsonl") for first in firsts]
        chunks = [elements[first : first + ELEMENTS_AT_ONCE] for first in firsts]
        each = zip(chunks, paths, strict=True)
        processes.run_all([functools.partial(steps, elements=some, path=path) for some, path in each], flags)
    for path in paths:
        with FileSystems.open(path) as file:
            found = [json.loads(line) for line in file.read().decode().splitlines()]
        lines += [each for each in found if isinstance(each, str)]
        counts.update(dict(each for each in found if not isinstance(each, str)))
    if temporary is not None and report is not None:
        text = "".join(json.dumps(each) + "\n" for each in (*lines, *counts.items()))
        with FileSystems.create(os.path.join(report, REPORT)) as file:
            file.write(text.encode())
    return lines, counts


def add_steps(p: "beam.Pipeline", elements: "list[Element]", subject: "Audit", path: str) -> None:
    """Add the steps to a pipeline: only lines and counts come out, into one file of JSON lines."""
    import apache_beam as beam

    from beam_zoo.auditing.elements import check_element

    check = beam.FlatMap(check_element, subject.check).with_output_types(Any)
    found = p | "table parts" >> beam.Create(elements) | "check" >> check
    lines = found | "lines" >> beam.Filter(lambda each: isinstance(each, str))
    counts = found | "counts" >> beam.Filter(lambda each: not isinstance(each, str))
    (
        (lines, counts | "add up" >> beam.CombinePerKey(sum))
        | beam.Flatten()
        | "as JSON" >> beam.Map(json.dumps)
        | "write" >> beam.io.WriteToText(path, shard_name_template="", num_shards=1)
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code: 0, or 1 if something is wrong."""
    return command.guarded(lambda: _main(argv))


def _main(argv: list[str] | None) -> int:
    parser = Parser(prog="python -m pipelines.audit", description=DESCRIPTION)
    parser.add_argument("output", metavar="OUT", help="folder of the output")
    text = "folder for what is found (default: a temporary one, on the local runner)"
    parser.add_argument("--report", metavar="DIR", help=text)
    options, flags = command.parse_simple(parser, argv)
    keep_freed_memory()
    problems, healthy = audit(files.absolute(options["output"]), options["report"], flags)
    for line in problems or [healthy]:
        print(line)
    return WRONG if problems else 0


if __name__ == "__main__":
    # Other processes find functions by the name of an imported module.
    from pipelines import audit as command_of_this_name

    sys.exit(command_of_this_name.main())

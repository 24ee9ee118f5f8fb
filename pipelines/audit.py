"""Re-read everything of an output, and say whether it is one story: plan, samples, tables and manifest.

    python -m pipelines.audit OUT

ends with code 0 and one line, or with code 1 and a line for each thing that is wrong. Other runners than the local one
also need `--report DIR`, a folder that their workers can write to. Of an output of `aggregate` the stored samples of
its sources are read, where its manifest says that they are.
"""

import dataclasses
import json
import os
import sys
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from beam_zoo.errors import UserError, near_path
from beam_zoo.runtime.malloc import keep_freed_memory
from beam_zoo.storage import files, layout
from pipelines import command
from pipelines.command_line import Parser

if TYPE_CHECKING:
    import apache_beam as beam

    from beam_zoo.plan.plan import Plan

DESCRIPTION = "Re-read everything of an output and check that plan, samples, tables and manifest agree."
WRONG = 1
FOUND = "audit.jsonl"


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code: 0, or 1 if something is wrong."""
    return command.guarded(lambda: _main(argv))


def _main(argv: list[str] | None) -> int:
    parser = Parser(prog="python -m pipelines.audit", description=DESCRIPTION)
    parser.add_argument("output", metavar="OUT", help="folder of the output")
    parser.add_argument(
        "--report",
        metavar="DIR",
        help="folder for what is found (default: a temporary one, on the local runner)",
    )
    options, flags = command.parse_simple(parser, argv)
    keep_freed_memory()
    return audit(files.absolute(options["output"]), options["report"], flags)


def audit(output: str, report: str | None, flags: list[str]) -> int:
    """Audit an output, and print what is wrong.

    Args:
        output: its folder.
        report: folder for what the workers find, or None for a temporary one.
        flags: Beam's options.

    Returns:
        The exit code: 0, or 1 if something is wrong.

    Raises:
        UserError: the folder is no complete output, or a runner lacks the report's folder.
    """
    from beam_zoo.audit import audit as audits
    from beam_zoo.audit import plan as audit_plan
    from runners import beam_options, cluster, start

    runner = beam_options.runner_name(flags)
    if report is None and runner != beam_options.DIRECT:
        raise UserError(f"--report DIR is missing: the workers of {runner} write there what they find")
    cluster.check(flags)
    findings = audits.Findings()
    plan, manifest = _read(output, findings)
    aggregate = _is_aggregate(output)
    if manifest is None or (plan is None and not aggregate):
        return _say(findings.all("audit"), "")
    with _folder(report if aggregate else None) as temporary:
        if plan is None:
            subject = _aggregate(output, manifest, temporary, findings)
        else:
            subject = _run_of(plan, output, manifest, findings)
        where = temporary if report is None else report
        start.run(lambda p: checks(p, subject.elements, subject.check, where), flags)
        found = _found(where)
    lines = [each for each in found if isinstance(each, str)]
    counts = dict(each for each in found if not isinstance(each, str))
    audit_plan.check_totals(manifest, counts, len(subject.elements), findings, subject.totals(counts))
    problems = [*findings.all("audit"), *sorted(lines)]
    return _say(problems, "" if problems else subject.healthy(counts))


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is audited.

    Attributes:
        elements: what is to be checked.
        check: checks an element.
        totals: from the sums over the elements, the counts of the manifest that they are to be held against.
        healthy: from these sums, the line for an output without damage.
    """

    elements: list[Any]
    check: "beam.DoFn"
    totals: Callable[[dict[str, int]], dict[str, str]]
    healthy: Callable[[dict[str, int]], str]


def _run_of(plan: "Plan", output: str, manifest: dict[str, Any], findings: Any) -> Subject:
    """An output of predict or represent."""
    from beam_zoo.audit import audit as audits
    from beam_zoo.audit import plan as audit_plan
    from beam_zoo.audit.run import RunChecks

    audit_plan.check_manifest(plan, manifest, findings)
    return Subject(
        audits.elements(plan, output, manifest, findings),
        audits.Audit(RunChecks, plan, output),
        lambda counts: audit_plan.ROWS_FOUND,
        lambda counts: _healthy(output, plan, counts),
    )


def _aggregate(output: str, manifest: dict[str, Any], work: str, findings: Any) -> Subject:
    """An output of aggregate."""
    from beam_zoo.audit import aggregate as audit_sources
    from beam_zoo.audit.audit import Audit

    folder = os.path.join(work, "sources")
    os.mkdir(folder)
    found = audit_sources.follow(output, manifest, folder, findings)
    check = Audit(audit_sources.AggregateChecks, dataclasses.replace(found, elements=[]))
    return Subject(found.elements, check, found.totals, found.healthy)


def _folder(report: str | None) -> tempfile.TemporaryDirectory:
    """A temporary folder, below that of the report if there is one: other machines see it too."""
    if report is not None:
        if "://" in report:
            raise UserError(f"--report {report}: of an aggregate it must be a folder that all workers mount")
        os.makedirs(report, exist_ok=True)
    return tempfile.TemporaryDirectory(prefix="beam-zoo-audit-", dir=report)


def checks(p: "beam.Pipeline", elements: list[Any], check: "beam.DoFn", report: str) -> None:
    """The dataflow: one element per table part; only lines and counts come out, into one file of JSON lines.

    Args:
        p: the pipeline.
        elements: of `Subject`.
        check: of `Subject`.
        report: folder of the file.
    """
    import apache_beam as beam

    from beam_zoo.audit.audit import COUNTS

    found = (
        p
        | "table parts" >> beam.Create(elements)
        | "check" >> beam.ParDo(check).with_outputs(COUNTS, main="lines")
    )
    (
        (found.lines, found[COUNTS] | "add up" >> beam.CombinePerKey(sum))
        | beam.Flatten()
        | "as JSON" >> beam.Map(json.dumps)
        | "write" >> beam.io.WriteToText(os.path.join(report, FOUND), shard_name_template="", num_shards=1)
    )


def _is_aggregate(output: str) -> bool:
    """Whether a folder without a plan has the mark of an aggregate, or a manifest that names sources."""

    if files.is_folder(os.path.join(output, layout.PLAN)):
        return False
    if files.exists(os.path.join(output, layout.AGGREGATE_MARK)):
        return True
    try:  # A mark that was lost is no reason to audit nothing.
        return "sources" in files.read_json(os.path.join(output, layout.MANIFEST))
    except (OSError, ValueError, TypeError):
        return False


def _read(output: str, findings: Any) -> "tuple[Plan | None, dict[str, Any] | None]":
    """The plan and the manifest; one that is damaged is a finding, one that is not there an error."""
    from beam_zoo.storage import output as outputs

    if not files.is_folder(output):
        what = "is not a folder" if files.exists(output) else f"does not exist{near_path(output)}"
        raise UserError(f"{output} {what}")
    aggregate = _is_aggregate(output)
    if not outputs.is_output(output) and not aggregate:
        raise UserError(
            f"{output} is not an output of predict or represent, nor of aggregate: it has no plan and no sources"
        )
    path = os.path.join(output, layout.MANIFEST)
    if not files.exists(path):
        raise UserError(f"{path} does not exist: the run is not complete, run the same command again")
    plan = None if aggregate else _read_plan(output, findings)
    manifest = None
    try:
        manifest = files.read_json(path)
        if not isinstance(manifest, dict):
            raise ValueError("it holds no mapping")
    except (OSError, ValueError) as error:
        findings.add(layout.MANIFEST, f"cannot be read ({error})")
        manifest = None
    return plan, manifest


def _read_plan(output: str, findings: Any) -> "Plan | None":
    from beam_zoo.audit.plan import check_usable
    from beam_zoo.plan import plan as plans

    try:
        plan = plans.read(output)
        assert plan is not None
        check_usable(plan)
    except Exception as error:
        findings.add(layout.PLAN_FILE, f"cannot be read ({type(error).__name__}: {error})")
        return None
    return plan


def _found(report: str) -> list[Any]:
    """Lines (texts) and counts (pairs) that the workers have found."""
    from apache_beam.io.filesystems import FileSystems

    with FileSystems.open(os.path.join(report, FOUND)) as file:
        return [json.loads(line) for line in file.read().decode().splitlines()]


def _healthy(output: str, plan: "Plan", counts: dict[str, int]) -> str:
    number = {name: f"{count:,}" for name, count in counts.items()}
    what = "samples" if plan.command == "predict" else "features"
    return (
        f"{output}: {plan.rows:,} rows of the plan = {number['predicted']} predicted + {number['failed']} failed; "
        f"{number['part files']} parts with {number['part rows']} rows of {what} and {number['table files']} files "
        "of tables are as they should be"
    )


def _say(problems: list[str], healthy: str) -> int:
    for line in problems or [healthy]:
        print(line)
    return WRONG if problems else 0


if __name__ == "__main__":
    sys.exit(main())

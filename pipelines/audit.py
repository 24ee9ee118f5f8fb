"""Re-read everything of an output, and say whether it is one story: plan, samples, tables and manifest.

    python -m pipelines.audit OUT

ends with code 0 and one line, or with code 1 and a line for each thing that is wrong. Other runners than the local one
also need `--report DIR`, a folder that their workers can write to.
"""

import json
import os
import sys
import tempfile
from typing import TYPE_CHECKING, Any

from beam_zoo.errors import UserError, near_path
from pipelines import command
from pipelines.options import Parser

if TYPE_CHECKING:
    import apache_beam as beam

    from beam_zoo.plan import Plan

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
    return audit(os.path.abspath(os.path.expanduser(options["output"])), options["report"], flags)


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
    from beam_zoo import audit as audits
    from beam_zoo import audit_plan
    from runners import beam_options

    runner = beam_options.runner_name(flags)
    if report is None and runner != beam_options.DIRECT:
        raise UserError(f"--report DIR is missing: the workers of {runner} write there what they find")
    findings = audits.Findings()
    plan, manifest = _read(output, findings)
    if plan is None or manifest is None:
        return _say(findings.all("audit"), "")
    audit_plan.check_manifest(plan, manifest, findings)
    elements = audits.elements(plan, output, manifest, findings)
    with tempfile.TemporaryDirectory(prefix="beam-zoo-audit-") as temporary:
        where = temporary if report is None else report
        _run(lambda p: checks(p, elements, plan, output, where), flags)
        found = _found(where)
    lines = [each for each in found if isinstance(each, str)]
    counts = dict(each for each in found if not isinstance(each, str))
    audit_plan.check_totals(plan, manifest, counts, len(elements), findings)
    return _say([*findings.all("audit"), *sorted(lines)], _healthy(output, plan, counts))


def checks(p: "beam.Pipeline", elements: list[Any], plan: "Plan", output: str, report: str) -> None:
    """The dataflow: one element per table part; only lines and counts come out, into one file of JSON lines.

    Args:
        p: the pipeline.
        elements: of `beam_zoo.audit.elements`.
        plan: the plan of the output.
        output: its folder.
        report: folder of the file.
    """
    import apache_beam as beam

    from beam_zoo.audit import COUNTS, Audit

    found = (
        p
        | "table parts" >> beam.Create(elements)
        | "check" >> beam.ParDo(Audit(plan, output)).with_outputs(COUNTS, main="lines")
    )
    (
        (found.lines, found[COUNTS] | "add up" >> beam.CombinePerKey(sum))
        | beam.Flatten()
        | "as JSON" >> beam.Map(json.dumps)
        | "write" >> beam.io.WriteToText(os.path.join(report, FOUND), shard_name_template="", num_shards=1)
    )


def _read(output: str, findings: Any) -> "tuple[Plan | None, dict[str, Any] | None]":
    """The plan and the manifest; one that is damaged is a finding, one that is not there an error."""
    from beam_zoo import output as outputs
    from beam_zoo import plan as plans

    if not os.path.isdir(output):
        what = "is not a folder" if os.path.exists(output) else f"does not exist{near_path(output)}"
        raise UserError(f"{output} {what}")
    if not outputs.is_output(output):
        raise UserError(f"{output} is not an output of predict or represent: it has no plan")
    path = os.path.join(output, outputs.MANIFEST)
    if not os.path.exists(path):
        raise UserError(f"{path} does not exist: the run is not complete, run the same command again")
    plan, manifest = None, None
    try:
        plan = plans.read(output)
        # What a damaged plan.json lacks shows when the plan is used.
        assert plan is not None and plan.tables_fingerprint
    except Exception as error:
        findings.add(f"{plans.FOLDER}/plan.json", f"cannot be read ({type(error).__name__}: {error})")
        plan = None
    try:
        with open(path, encoding="utf-8") as file:
            manifest = json.load(file)
        if not isinstance(manifest, dict):
            raise ValueError("it holds no mapping")
    except (OSError, ValueError) as error:
        findings.add(outputs.MANIFEST, f"cannot be read ({error})")
        manifest = None
    if manifest is not None and "sources" in manifest:
        # The place of an output of `aggregate`: its table parts are held against the parts of its sources.
        raise UserError(f"{output} was made of other outputs: this version audits those, one by one")
    return plan, manifest


def _run(build: Any, flags: list[str]) -> None:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    from runners import beam_options, direct

    if beam_options.runner_name(flags) == beam_options.DIRECT:
        direct.run(build, flags)
        return
    with beam.Pipeline(options=PipelineOptions(flags)) as p:
        build(p)


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

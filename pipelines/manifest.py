"""manifest.json: written last of all, when the output is complete."""

import datetime
import os
import sys
import time
from typing import Any

from beam_zoo.errors import TooManyFailures
from beam_zoo.members import member as members
from beam_zoo.plan.run import Run
from beam_zoo.runtime.versions import versions
from beam_zoo.samples import parts
from beam_zoo.storage import layout
from beam_zoo.storage.files import write_json
from pipelines.options import Options
from runners import secrets


def write_manifest(
    run: Run,
    reports: list[dict[str, Any]],
    stored: parts.Stored,
    begin: float,
    options: Options | None = None,
    flags: list[str] | None = None,
) -> dict[str, Any]:
    """Add up the table parts' reports and write the manifest.

    Args:
        run: the run.
        reports: of all table parts.
        stored: the parts that were there before this command predicted any.
        begin: when the command started, in seconds since 1970.
        options: of the command; None for `finish`, which has Beam's only.
        flags: Beam's options, where there are no others.

    Returns:
        The manifest.
    """
    plan, output = run.plan, run.output
    predicted, failed = add_up(reports, plan.rows)
    read = [part for report in reports for part in report["parts"]]
    # Representations have a file per member: galaxies count once.
    first = parts.folders(plan)[0]
    known = {f"{first}/{ref.name}" for refs in stored.values() for ref in refs}
    reused = sum(part["galaxies"] for part in read if part["name"] in known)
    end = time.time()
    manifest = {
        "command": plan.command,
        "rows_in": plan.rows,
        "rows_predicted": predicted,
        "rows_failed": failed,
        "rows_reused": reused,
        "members": [members.to_json(member) for member in plan.members],
        "versions": versions(),
        **({"options": options.plain_values(), "device": run.device} if options else {}),
        "beam_options": [*map(secrets.shown, options.beam if options else flags or [])],
        "seed": plan.seed,
        "start": utc(begin),
        "end": utc(end),
        "galaxies_per_second": round((predicted - reused) / max(end - begin, 1e-9), 3),
        "fingerprint": plan.fingerprint,
        "tables_fingerprint": plan.tables_fingerprint,
        "tables": [file for report in reports for file in report["files"].values()],
        "parts": read,
    }
    write_json(os.path.join(output, layout.MANIFEST), manifest)
    print(
        f"{predicted:,} of {plan.rows:,} galaxies predicted ({reused:,} of them before), {failed:,} failed, "
        f"in {end - begin:.1f} s: {output}",
        file=sys.stderr,
    )
    return manifest


def add_up(reports: list[dict[str, Any]], rows: int) -> tuple[int, int]:
    """How many galaxies the table parts have, predicted and failed: together all `rows`."""
    predicted, failed = (sum(report[name] for report in reports) for name in ("predicted", "failed"))
    if predicted + failed != rows:
        raise AssertionError(f"{predicted} predicted and {failed} failed are not the {rows} rows")
    return predicted, failed


def check_failures(manifest: dict[str, Any], output: str, max_failure_fraction: float) -> None:
    """See whether more galaxies failed than the fraction allows.

    Raises:
        TooManyFailures: they did.
    """
    rows, failed = manifest["rows_in"], manifest["rows_failed"]
    if failed > max_failure_fraction * rows:
        raise TooManyFailures(
            f"{failed:,} of {rows:,} galaxies failed, more than --max_failure_fraction "
            f"{max_failure_fraction:g} allows: see {os.path.join(output, layout.FAILURES)}"
        )


def utc(seconds: float) -> str:
    """Seconds since 1970 as a date and time in ISO 8601."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")

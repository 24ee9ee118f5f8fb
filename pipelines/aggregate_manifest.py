"""The manifest of an aggregate."""

import time
from typing import Any

from beam_zoo.members import member as members
from beam_zoo.runtime.versions import versions
from beam_zoo.tables.reports import read_report
from beam_zoo.union.reading import unique_files
from beam_zoo.union.runs import manifest_entry
from beam_zoo.union.union import Union
from pipelines.manifest import add_up, utc
from runners import secrets


def make_manifest(
    union: Union,
    built: str,
    files_read: list[dict[str, Any]],
    begin: float,
    options: dict[str, Any],
    flags: list[str],
) -> dict[str, Any]:
    """Add up the reports of the table parts.

    Args:
        union: the union.
        built: folder with the tables and their reports.
        files_read: the stored parts that were read outside the pipeline.
        begin: when the command started, in seconds since 1970.
        options: the command's own.
        flags: Beam's options.

    Returns:
        The content of the manifest, as JSON holds it.

    Raises:
        UserError: a stored part has changed while it was read.
    """
    reports = [read_report(built, part) for part in range(union.table_parts)]
    predicted, failed = add_up(reports, union.rows)
    parts = unique_files([*files_read, *(file for report in reports for file in report["parts"])])
    return {
        "command": union.command,
        "rows_in": union.rows,
        "rows_predicted": predicted,
        "rows_failed": failed,
        "rows_incomplete": sum(report["incomplete"] for report in reports),
        "members": [
            {**members.to_json(member), "passes": list(numbers)}
            for member, numbers in zip(union.members, union.passes, strict=True)
        ],
        "carried": union.fields.names,
        "incomplete": union.incomplete,
        "interval": union.interval,
        "rows_per_table_part": union.part_rows,
        "versions": versions(),
        "options": options,
        "beam_options": [*map(secrets.shown, flags)],
        "start": utc(begin),
        "end": utc(time.time()),
        "tables_fingerprint": union.tables_fingerprint,
        "tables": [file for report in reports for file in report["files"].values()],
        "sources": [
            {
                "path": source.output,
                "fingerprint": source.plan.fingerprint,
                **manifest_entry(source.plan),
                "parts": [_without_source(file) for file in parts if file["source"] == number],
            }
            for number, source in enumerate(union.sources)
        ],
    }


def _without_source(file: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in file.items() if name != "source"}

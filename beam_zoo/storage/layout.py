"""The names of everything in the folder of an output: nothing else in the program knows them.

A part of samples is named by its snippet, a part of a table by its number. Names sort as the catalogue does.
"""

import re

PLAN = "_plan"
PLAN_FILE = f"{PLAN}/plan.json"
STAGED_MEMBERS = f"{PLAN}/members"
"""Copies of checkpoints that workers elsewhere could not read where they came from."""
MANIFEST = "manifest.json"
SAMPLES = "samples"
REPRESENTATIONS = "representations"
FRIENDLY, ADVANCED, FAILURES = TABLES = ("friendly", "advanced", "failures")
REPORTS = "_tables"
"""One report for each part of the tables, from which the manifest is made."""
RETRY = "_retry"
"""An empty file for each snippet with retryable failures: a later run need not read every part."""
SLURM_JOBS = "_slurm"
"""Scripts and logs of batch jobs."""
DATAFLOW_STAGING = "_dataflow"
"""What Dataflow is given to run, and what its workers keep for a while: Dataflow's own files."""
AGGREGATE_MARK = "_aggregate.json"
"""Marks an output of `aggregate`, which has no plan."""
AGGREGATE_WORK = "_work"
"""What `aggregate` builds until it is whole."""

_PART = re.compile(r"part-(\d+)(?:_(\d+))?\.parquet")


def part_name(snippet: int, attempt: int = 0) -> str:
    """File name of a snippet's part.

    Args:
        snippet: the snippet's number.
        attempt: 0 for its first part, 1, 2, ... for those of galaxies that were predicted again.

    >>> part_name(12), part_name(12, 1)
    ('part-0000012.parquet', 'part-0000012_1.parquet')
    """
    return f"part-{snippet:07d}{f'_{attempt}' if attempt else ''}.parquet"


def table_file(table: str, number: int) -> str:
    """Path below the output of a part of a table.

    >>> table_file(FRIENDLY, 3)
    'friendly/part-000003.parquet'
    """
    return f"{table}/part-{number:06d}.parquet"


def report_file(number: int) -> str:
    """Path below the output of the report of a table part."""
    return f"{REPORTS}/part-{number:06d}.json"


def part_number(name: str) -> tuple[int, int] | None:
    """Number and attempt of a file named like a part, of samples or of a table; None for any other name.

    >>> part_number("part-0000012_1.parquet"), part_number("part-000003.parquet"), part_number("notes.txt")
    ((12, 1), (3, 0), None)
    """
    match = _PART.fullmatch(name)
    return (int(match[1]), int(match[2] or 0)) if match else None


def attempt_of(name: str) -> int:
    """The attempt of a part's file name; 0 for a snippet's first part."""
    found = part_number(name)
    return found[1] if found else 0

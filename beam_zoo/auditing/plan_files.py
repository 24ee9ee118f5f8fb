"""The files of a plan: they have the checksums of plan.json, and are cut as workers read them."""

import math
import os
from collections.abc import Callable
from typing import Any

import pyarrow.parquet as pq

from beam_zoo.auditing.findings import Findings
from beam_zoo.auditing.manifest import names_in
from beam_zoo.catalogue.check import Checker
from beam_zoo.catalogue.read import Catalogue
from beam_zoo.errors import one_line
from beam_zoo.plan.plan import Plan
from beam_zoo.plan.rows import CarriedDigest, rows_file
from beam_zoo.storage.files import for_arrow, is_remote, read_file, sha256


def require_usable(plan: Plan) -> None:
    """Refuse a plan that lacks what its use needs: a damaged plan.json may be read without an error.

    Raises:
        Exception: of any kind, if the plan cannot be used.
    """
    least = {"rows": 1, "snippet_size": 1, "passes": 1, "first_pass": 0, "seed": -math.inf}
    for name, value in ((name, getattr(plan, name)) for name in least):
        if type(value) is not int or value < least[name]:
            raise ValueError(f"{name} is {one_line(repr(value), 80)}")
    texts = (*plan.carried, plan.carried_digest, plan.catalogue.sha256)
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("a carried column or a digest is no text")
    if plan.command not in ("predict", "represent"):
        raise ValueError(f"command is {one_line(repr(plan.command), 80)}")
    if not (plan.table_parts and plan.kind and plan.fingerprint and plan.tables_fingerprint):
        raise ValueError("it lacks what a run is made of")


def check_plan_files(plan: Plan, output: str, findings: Findings) -> None:
    """Check the files of an output's plan, streaming."""
    _check_rows(plan, output, findings)
    if plan.carried:
        check_carried(plan, output, findings)
    # Copies of checkpoints lie below the plan; others are not part of the output.
    for member in plan.members:
        if is_remote(member.path) or os.path.isabs(member.path):
            continue
        with findings.unreadable(member.path, f"checkpoint of member {member.name} cannot be read"):
            found = sha256(read_file(os.path.join(output, member.path)))
            if found != member.sha256:
                findings.add(member.path, f"is not the checkpoint of member {member.name}: SHA-256 {found}")


def _check_rows(plan: Plan, output: str, findings: Findings) -> None:
    """Check that ids are unique, and the checksum of ids and locations."""
    folder = plan.rows_folder(output).removeprefix(output + os.sep)
    # Where images lie was decided when the plan was made, perhaps on another machine.
    checker = Checker(output, root_given=False, allow_outside=True)
    files = _read(plan, output, folder, checker.add, findings)
    if len(files) < plan.table_parts:
        return
    with findings.unreadable(folder, "is not the catalogue"):
        digest = checker.finish(Catalogue(folder, tuple(files), "parquet", output), None)
        _compare_digests(folder, "ids and locations", digest, plan.catalogue.sha256, findings)


def check_carried(plan: Plan, output: str, findings: Findings) -> None:
    """Check the checksum of the carried columns."""
    folder = plan.carried_folder(output).removeprefix(output + os.sep)
    digest = CarriedDigest(plan.carried, plan.snippet_size)
    if len(_read(plan, output, folder, digest.add, findings)) == plan.table_parts:
        _compare_digests(folder, "carried columns", digest.finish(), plan.carried_digest, findings)


def _compare_digests(folder: str, what: str, found: str, right: str, findings: Findings) -> None:
    if found != right:
        findings.add(folder, f"{what} have SHA-256 {found[:12]}..., and plan.json says {right[:12]}...")


def _read(
    plan: Plan, output: str, folder: str, add: Callable[[Any], object], findings: Findings
) -> list[str]:
    """Read a file for each table part, with a row group for each snippet, batch by batch.

    Returns:
        Paths of the files that could be read.
    """
    paths, there = [], set(names_in(output, folder))
    every = [os.path.basename(rows_file(folder, part)) for part in range(plan.table_parts)]
    findings.some(folder, (f"{name} is missing" for name in every if name not in there))
    findings.some(folder, (f"{name} does not belong there" for name in sorted(there - {*every})))
    for part, name in enumerate(every):
        if name not in there:
            continue
        path = os.path.join(output, folder, name)
        with findings.unreadable(f"{folder}/{name}"):
            metadata = pq.read_metadata(for_arrow(path))
            # Not by ParquetFile, which refuses dictionaries inside of lists if there are several row groups.
            for batch in pq.read_table(for_arrow(path)).to_batches():
                add(batch)
            paths.append(path)
            found = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
            right = [plan.snippet(number).size for number in plan.table_snippets(part)]
            if found != right:
                text = f"holds {sum(found):,} rows in {len(found):,} snippets, and should hold {sum(right):,}"
                cut = ", cut elsewhere" if sum(found) == sum(right) else ""
                findings.add(f"{folder}/{name}", f"{text} in {len(right):,}{cut}")
    return paths

"""The files of a plan: its rows and carried columns are those of their checksums, and cut as workers read them."""

import os

import pyarrow.parquet as pq

from beam_zoo.audit.findings import Findings
from beam_zoo.audit.output_files import names_in
from beam_zoo.catalogue.check import Checker
from beam_zoo.catalogue.read import Catalogue
from beam_zoo.errors import UserError, one_line
from beam_zoo.plan.plan import Plan
from beam_zoo.plan.rows import CarriedDigest, rows_file
from beam_zoo.storage.files import for_arrow, is_remote, read_file, sha256


def require_usable(plan: Plan) -> None:
    """Refuse a plan that lacks what its use needs: a damaged plan.json may be read without an error.

    Raises:
        Exception: of any kind, if the plan cannot be used.
    """
    for name in ("rows", "snippet_size", "passes", "first_pass", "seed"):
        value, least = getattr(plan, name), int(name != "first_pass")
        if not isinstance(value, int) or isinstance(value, bool) or (name != "seed" and value < least):
            raise ValueError(f"{name} is {one_line(repr(value), 80)}")
    if not all(isinstance(name, str) for name in (*plan.carried, plan.carried_digest)):
        raise TypeError("carried columns or their digest are no texts")
    if plan.command not in ("predict", "represent"):
        raise ValueError(f"command is {one_line(repr(plan.command), 80)}")
    if not isinstance(plan.catalogue["sha256"], str):
        raise TypeError("the catalogue's sha256 is no text")
    if not (plan.table_parts and plan.kind and plan.fingerprint and plan.tables_fingerprint):
        raise ValueError("it lacks what a run is made of")


def check_plan_files(plan: Plan, output: str, findings: Findings) -> None:
    """Check the plan's files, streaming.

    Args:
        plan: the plan of the output.
        output: its folder.
        findings: takes what is wrong.
    """
    check_rows(plan, output, findings)
    if plan.carried:
        check_carried(plan, output, findings)
    _check_checkpoints(plan, output, findings)


def check_rows(plan: Plan, output: str, findings: Findings) -> None:
    """Check the rows: how they are cut, their number, that ids are unique, and their checksum."""
    path = plan.rows_folder(output)
    folder = _below(path, output)
    files = _check_cut(plan, output, folder, findings)
    catalogue = Catalogue(folder, tuple(files), "parquet", output)
    # Where images lie was decided when the plan was made, perhaps on another machine.
    checker = Checker(output, root_given=False, allow_outside=True)
    try:
        for batch in catalogue.batches():
            checker.add(batch)
        digest = checker.finish(catalogue, None)
    except UserError as error:
        findings.add(folder, str(error).replace(output + os.sep, ""))
        return
    if checker.rows != plan.rows:
        findings.add(folder, f"holds {checker.rows:,} rows, and plan.json says {plan.rows:,}")
    _compare_digests(folder, "ids and locations", digest, plan.catalogue["sha256"], findings)


def check_carried(plan: Plan, output: str, findings: Findings) -> None:
    """Check the carried columns: how they are cut, and the checksum of their values."""
    folder = _below(plan.carried_folder(output), output)
    _check_cut(plan, output, folder, findings)
    digest = CarriedDigest(plan.carried, plan.snippet_size)
    try:
        for part in range(plan.table_parts):
            # Not by ParquetFile, which refuses dictionaries inside of lists where there is more than one row group.
            table = pq.read_table(for_arrow(rows_file(plan.carried_folder(output), part)))
            for batch in table.to_batches():
                digest.add(batch)
        found = digest.finish()
    except Exception as error:
        text = one_line(error, 200).replace(output + os.sep, "")
        findings.add(folder, f"carried columns cannot be read ({text})")
        return
    _compare_digests(folder, "carried columns", found, plan.carried_digest, findings)


def _compare_digests(folder: str, what: str, found: str, right: str, findings: Findings) -> None:
    if found != right:
        text = f"{what} have SHA-256 {found[:12]}..., and plan.json says {right[:12]}..."
        findings.add(folder, text)


def _below(path: str, output: str) -> str:
    return path.removeprefix(output + os.sep)


def _check_cut(plan: Plan, output: str, folder: str, findings: Findings) -> list[str]:
    """Check that a folder has a file for each table part, with a row group for each snippet.

    Returns:
        Paths of the files that are there.
    """
    names = [f"{part:06d}.parquet" for part in range(plan.table_parts)]
    there = set(names_in(output, folder))
    findings.some(folder, (f"{name} is missing" for name in names if name not in there))
    findings.some(folder, (f"{name} does not belong there" for name in sorted(there - set(names))))
    for part, name in enumerate(names):
        if name not in there:
            continue
        try:
            metadata = pq.read_metadata(for_arrow(os.path.join(output, folder, name)))
        except Exception as error:
            findings.add(f"{folder}/{name}", f"cannot be read ({one_line(error, 200)})")
            continue
        found = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        right = [plan.snippet(number).size for number in plan.table_snippets(part)]
        if found != right:
            findings.add(
                f"{folder}/{name}",
                f"holds {sum(found):,} rows in {len(found):,} snippets, and should hold "
                f"{sum(right):,} in {len(right):,}" + (", cut elsewhere" if sum(found) == sum(right) else ""),
            )
    return [os.path.join(output, folder, name) for name in names if name in there]


def _check_checkpoints(plan: Plan, output: str, findings: Findings) -> None:
    """Check the copies of checkpoints that lie below the plan; others are not part of the output."""
    for member in plan.members:
        if is_remote(member.path) or os.path.isabs(member.path):
            continue
        try:
            found = sha256(read_file(os.path.join(output, member.path)))
        except Exception as error:
            text = f"checkpoint of member {member.name} cannot be read ({one_line(error, 200)})"
            findings.add(member.path, text)
            continue
        if found != member.sha256:
            findings.add(member.path, f"is not the checkpoint of member {member.name}: SHA-256 {found}")

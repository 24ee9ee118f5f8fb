"""The stored parts of a table part: each galaxy once, with the samples that the plan asks for."""

import dataclasses
import os
from collections import Counter

import numpy as np
import pyarrow as pa

from beam_zoo.auditing.compare import compare_columns, compare_listed
from beam_zoo.auditing.elements import Element, NumbersByName
from beam_zoo.auditing.expected import ExpectedTablePart
from beam_zoo.auditing.findings import Findings
from beam_zoo.catalogue.read import ID, LOCATION
from beam_zoo.errors import one_line
from beam_zoo.images.failure import Failure
from beam_zoo.plan.plan import Plan
from beam_zoo.samples import parts
from beam_zoo.samples.records import PartRef
from beam_zoo.storage.layout import part_name, part_number

RANGES = {
    "tree": (1 - 1e-3, 101 + 1e-3, "and a concentration is from 1 to 101"),
    "classifier": (0.0, 1.0, "and a probability is from 0 to 1"),
}
"""Samples that a head can give."""
SUM_TOLERANCE = 1e-5


def read_stored_parts(
    plan: Plan, output: str, element: Element, expected: ExpectedTablePart, findings: Findings
) -> NumbersByName:
    """Read and check the stored parts of a table part, whose galaxies and failures are added to `expected`.

    Returns:
        Number of part files and of their rows that were read; `FOLDER\\tLENGTH` for each length of features.
    """
    # Members of `represent` have a folder each: read_part compares the galaxies and failures in them.
    folders = [_Folder(plan, output, folder, element, expected, findings) for folder in parts.folders(plan)]
    counts = Counter({"part files": 0, "part rows": 0})
    for folder in folders:
        folder.read()
        counts.update(folder.counts)
    first = folders[0]
    failed = sorted(first.failures.keys() - first.where.keys() - expected.unknown)
    expected.failures = {row: first.failures[row] for row in failed}
    return counts


@dataclasses.dataclass
class _Folder:
    """The parts in a folder; galaxies by row of the table part.

    Attributes:
        where: galaxy with samples -> the file that holds them.
        failures: galaxy -> its failures, one or more, in all parts.
        counts: as `read_stored_parts` returns them.
    """

    plan: Plan
    output: str
    folder: str
    element: Element
    expected: ExpectedTablePart
    findings: Findings
    where: dict[int, str] = dataclasses.field(default_factory=dict)
    failures: dict[int, list[Failure]] = dataclasses.field(default_factory=dict)
    counts: Counter[str] = dataclasses.field(default_factory=Counter)

    def read(self) -> None:
        """Read and check all parts, by snippet and attempt."""
        plan, element = self.plan, self.element
        every = {*element.files, *element.listed}
        names = {os.path.basename(file) for file in every if os.path.dirname(file) == self.folder}
        names |= {part_name(number) for number in plan.table_snippets(element.number or 0)}
        for number, attempt in sorted(filter(None, map(part_number, names))):
            name, snippet = part_name(number, attempt), plan.snippet(number)
            start = snippet.start - plan.table_rows(element.number or 0).start
            within = range(start, start + snippet.size)
            part = self._read(f"{self.folder}/{name}", PartRef(number, name))
            if part is None:
                self.expected.unknown |= {*within}
            else:
                self._check(f"{self.folder}/{name}", attempt, part, within)

    def _read(self, file: str, ref: PartRef) -> parts.Part | None:
        if file not in self.element.files:
            why = ": it is listed in manifest.json and not there" * (file in self.element.listed)
            self.findings.add(file, f"is missing{why}")
            return None
        try:
            return parts.read_part(self.plan, self.output, self.folder, ref)
        except Exception as error:
            text = one_line(error) or type(error).__name__
            if isinstance(error, KeyError):
                text = f"holds a galaxy {error} that its snippet does not have"
            self.findings.add(file, text.replace(self.output + os.sep, "").removeprefix(f"{file} "))
            return None

    def _check(self, file: str, attempt: int, part: parts.Part, within: range) -> None:
        """Check a part of the snippet whose rows are `within`, and add its galaxies and failures."""
        self.counts.update({"part files": 1, "part rows": part.table.num_rows})
        is_first = self.folder == parts.folders(self.plan)[0]
        # Manifests of earlier versions list the folder of the first member of `represent` only.
        if is_first or file in self.element.listed:
            found = {"rows": part.table.num_rows, "galaxies": len(part.offsets), "sha256": part.sha256}
            compare_listed(file, self.element, found, self.findings)
        rows = within.start + part.offsets
        self._check_metadata(file, attempt, part, within)
        self._check_keys(file, part, rows)
        samples = self._check_numbers(file, part)
        fresh = []
        for row in rows.tolist():
            fresh.append(row not in self.where)
            self.where.setdefault(row, file)
        for failure in part.failures:
            if 0 <= failure.offset < len(within):
                self.failures.setdefault(within[failure.offset], []).append(failure)
        if is_first:
            self.expected.add(rows[fresh], None if samples is None else samples[fresh])

    def _check_metadata(self, file: str, attempt: int, part: parts.Part, within: range) -> None:
        """Check a part's metadata, and that its galaxies were to be predicted."""
        add, some = self.findings.add, self.findings.some
        metadata, offsets = parts.read_metadata(part.table.schema), part.offsets.tolist()
        ids = self.expected.ids(np.arange(within.start, within.stop))
        if metadata.get("attempt") != attempt:
            add(file, f"its metadata says attempt {metadata.get('attempt')!r}, and its name {attempt}")
        said, digest = metadata.get("galaxies"), parts.galaxies_digest([ids[o] for o in offsets])
        if said != digest:
            add(file, f"its metadata has SHA-256 {said!r} of its galaxies, which have {digest!r}")
        if offsets != sorted(set(offsets)):
            add(file, "its galaxies are not in the order of the catalogue, or one is there twice")
        again = ((ids[o], self.where[within[o]]) for o in offsets if within[o] in self.where)
        some(file, (f"galaxy {galaxy!r} is a duplicate: {other} has it too" for galaxy, other in again))
        failed = [failure.offset for failure in part.failures]
        right = sorted({*failed} & {*range(len(ids))} - {*offsets})
        if failed != right:
            add(file, f"its failures are of galaxies {failed} of {len(ids)}, and its samples of {offsets}")
        if attempt and within.start not in self.expected.unknown:
            before = {row for row, them in self.failures.items() if any(f.may_pass for f in them)}
            strange = (ids[o] for o in [*offsets, *right] if within[o] not in before)
            some(file, (f"galaxy {galaxy!r} was not to be tried again" for galaxy in strange))

    def _check_keys(self, file: str, part: parts.Part, rows: np.ndarray) -> None:
        """Compare the galaxies, members and passes of a part's rows with those of the plan, in its order."""
        plan, galaxies = self.plan, self.expected.rows.take(pa.array(rows))
        if plan.command == "represent":
            right = galaxies.drop_columns([LOCATION])
        else:
            members = np.repeat([member.name for member in plan.members], plan.passes)
            ids = np.repeat(galaxies.column(ID).to_numpy(), len(members))
            passes = np.tile(plan.pass_numbers, len(rows) * len(plan.members))
            columns = [pa.array(ids, pa.string()), pa.array(np.tile(members, len(rows)), pa.string())]
            right = pa.table([*columns, pa.array(passes, pa.int32())], [ID, "member", "pass"])
        compare_columns(file, part.table, right, self.findings)

    def _check_numbers(self, file: str, part: parts.Part) -> np.ndarray | None:
        """Find numbers that no model gives.

        Returns:
            Samples, float32, shape (galaxy, sample, output), if tables are computed of them.
        """
        plan, table, numbers = self.plan, part.table, self.findings.numbers
        ids, names = table.column(ID).to_pylist(), list(plan.outputs)
        if plan.command == "represent":
            column = table.column("feature").combine_chunks()
            length, nulls = getattr(column.type, "list_size", -1), column.null_count
            if nulls or column.type != pa.list_(pa.float32(), length):
                text = f"feature is of type {column.type} with {nulls} nulls, and should be a list of floats"
                self.findings.add(file, text)
                return None
            self.counts[f"{self.folder}\t{length}"] = 1
            names = [f"feature[{i}]" for i in range(length)]
            values = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), length)
        else:
            values = np.stack([table.column(name).to_numpy() for name in names], axis=1)
        finite = np.isfinite(values)
        numbers(file, ~finite, ids, names, values, "and must be finite")
        low, high, text = RANGES.get(plan.kind, (-np.inf, np.inf, ""))
        numbers(file, finite & ((values < low) | (values > high)), ids, names, values, text)
        if plan.kind == "classifier":
            sums = values.sum(axis=1, dtype=np.float64, keepdims=True)
            away = finite.all(axis=1, keepdims=True) & (np.abs(sums - 1) > SUM_TOLERANCE)
            numbers(file, away, ids, ["the sum of probabilities"], sums, "and must be 1")
        if plan.command == "represent" or self.element.source is not None:
            return None
        shape = len(part.offsets), len(plan.members) * plan.passes, len(names)
        return values.reshape(shape).astype(np.float32, copy=False)

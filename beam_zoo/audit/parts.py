"""The audit of stored parts: every galaxy of a table part once, with the samples that the plan asks for."""

import dataclasses
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from beam_zoo.audit.audit import Findings, TablePart, snippet_of
from beam_zoo.catalogue.read import ID
from beam_zoo.errors import one_line
from beam_zoo.images.failure import Failure
from beam_zoo.plan.plan import Plan
from beam_zoo.plan.snippet import Snippet
from beam_zoo.samples import parts
from beam_zoo.samples.records import PartRef
from beam_zoo.storage import layout

BOUNDS = (1.0, 101.0)
"""Concentrations that a head of zoobot can give."""
SLACK = 1e-3
SUM = 1e-5


@dataclasses.dataclass
class Found:
    """What the parts of a snippet hold, by offset within the snippet.

    Attributes:
        where: galaxy with samples -> the file that holds them.
        failures: galaxy -> every failure that the parts tell of it.
        complete: whether all parts could be read.
        lengths: member -> lengths of its features.
    """

    where: dict[int, str]
    failures: dict[int, list[Failure]]
    complete: bool
    lengths: dict[str, set[int]]


class PartChecks:
    """Checks of parts.

    Args:
        plan: the plan of the output.
        output: its folder.
        task: the table part that they belong to.
        rows: the plan's rows of the table part.
        findings: takes what is wrong.

    Attributes:
        files, samples: number of part files and of their rows that were read.
    """

    def __init__(self, plan: Plan, output: str, task: TablePart, rows: pa.Table, findings: Findings) -> None:
        self._plan, self._output, self._task, self._findings = plan, output, task, findings
        self._rows = rows
        self._start = plan.table_rows(task.number).start
        self.files = self.samples = 0
        self._names: dict[tuple[str, int], list[str]] = {}
        for folder, names in task.names.items():
            for name in names:
                self._names.setdefault((folder, snippet_of(name)), []).append(name)
        for file in task.claims:
            folder, name = os.path.split(file)
            if folder in parts.folders(plan) and name not in task.names.get(folder, ()):
                findings.add(file, "is listed in manifest.json and not there")

    def snippet(self, snippet: Snippet) -> tuple[Found, list[tuple[np.ndarray, np.ndarray]]]:
        """Read and check all parts of a snippet.

        Returns:
            What was found, and for `predict` the samples of each part: offsets, shape (galaxy,), and float32,
            shape (galaxy, sample, output).
        """
        first, *others = parts.folders(self._plan)
        found = Found({}, {}, True, {})
        samples = []
        for file, part in self._parts(first, snippet, found):
            fresh = self._galaxies(file, part, snippet, found)
            if self._plan.command == "predict":
                values = self._values(file, part)
                samples.append((part.offsets[fresh], values[fresh]))
        for folder in others:  # of `represent`, whose members have a folder each
            other = Found({}, {}, True, {})
            for file, part in self._parts(folder, snippet, other):
                self._galaxies(file, part, snippet, other)
            found.lengths |= other.lengths
            self._same_galaxies(folder, first, snippet, other, found)
            found.complete &= other.complete
        if found.complete:
            ids = self._ids(snippet)
            lost = [o for o in snippet.offsets if o not in found.where and o not in found.failures]
            self._findings.some(
                f"{first}/{layout.part_name(snippet.number)}",
                (f"galaxy {ids[o]!r} is neither predicted nor failed" for o in lost),
            )
            found.complete = not lost
        return found, samples

    def _ids(self, snippet: Snippet) -> list[str]:
        return self._cut(snippet).column(ID).to_pylist()

    def _cut(self, snippet: Snippet) -> pa.Table:
        return self._rows.slice(snippet.start - self._start, snippet.stop - snippet.start)

    def _parts(self, folder: str, snippet: Snippet, found: Found) -> Iterator[tuple[str, parts.Part]]:
        """The parts of a snippet in a folder that can be read; the others are findings."""
        names = self._names.get((folder, snippet.number), [])
        every = [self._names.get((each, snippet.number), []) for each in parts.folders(self._plan)]
        missing = [layout.part_name(snippet.number, n) for n in range(max(1, *map(len, every)))]
        for name in missing:
            if name not in names:  # attempts are numbered without gaps
                self._findings.add(f"{folder}/{name}", "is missing")
                found.complete = False
        for name in names:
            file = f"{folder}/{name}"
            try:
                part = parts.read_part(self._plan, self._output, folder, PartRef(snippet.number, name))
            except Exception as error:
                text = one_line(error) or type(error).__name__
                if isinstance(error, KeyError):
                    text = f"holds a galaxy {error} that its snippet does not have"
                self._findings.add(file, text.replace(self._output + os.sep, "").removeprefix(f"{file} "))
                found.complete = False
                continue
            self.files += 1
            self.samples += part.table.num_rows
            self._claims(file, part)
            yield file, part

    def _claims(self, file: str, part: parts.Part) -> None:
        claim = self._task.claims.get(file)
        if claim is None:
            # The manifest may list one folder only of a `represent`: its members' parts belong together.
            if file.startswith(f"{parts.folders(self._plan)[0]}/"):
                self._findings.add(file, "is not listed in manifest.json")
            return
        right = {"rows": part.table.num_rows, "galaxies": len(part.offsets), "sha256": part.sha256}
        for key, value in right.items():
            if claim.get(key) != value:
                self._findings.add(file, f"{key}: manifest.json says {claim.get(key)!r}, found {value!r}")

    def _metadata(self, file: str, part: parts.Part, ids: list[str]) -> None:
        """What a part's metadata says of its name and of its galaxies, but for what makes it believable."""
        said = parts.read_metadata(part.table.schema)
        attempt = layout.attempt_of(os.path.basename(file))
        if said.get("attempt") != attempt:
            self._findings.add(
                file, f"its metadata says attempt {said.get('attempt')!r}, and its name {attempt}"
            )
        digest = parts.galaxies_digest([ids[offset] for offset in part.offsets.tolist()])
        if said.get("galaxies") != digest:
            self._findings.add(
                file,
                f"its metadata has SHA-256 {said.get('galaxies')!r} of its galaxies, which have {digest!r}",
            )

    def _galaxies(self, file: str, part: parts.Part, snippet: Snippet, found: Found) -> np.ndarray:
        """Take a part's galaxies into what was found.

        Returns:
            Which of the part's galaxies no part before it had: bool, shape (galaxy,).
        """
        ids = self._ids(snippet)
        findings, added = self._findings, "_" in os.path.basename(file)
        self._metadata(file, part, ids)
        offsets = part.offsets.tolist()
        if offsets != sorted(set(offsets)):
            findings.add(file, "its galaxies are not in the order of the catalogue, or one is there twice")
        fresh = np.array([o not in found.where for o in offsets], bool)
        findings.some(
            file,
            (
                f"galaxy {ids[o]!r} is a duplicate: {found.where[o]} has it too"
                for o in offsets
                if o in found.where
            ),
        )
        failed = [f.offset for f in part.failures]
        if sorted(set(failed)) != failed or not set(failed) <= set(range(len(ids))):
            findings.add(file, f"its failures are of galaxies {failed} of {len(ids)}")
        failures = [f for f in part.failures if 0 <= f.offset < len(ids)]
        both = sorted({f.offset for f in failures} & set(offsets))
        findings.some(file, (f"galaxy {ids[o]!r} has both samples and a failure" for o in both))
        if added and found.complete:
            may = {o for o, them in found.failures.items() if any(f.may_pass for f in them)}
            strange = [o for o in [*offsets, *(f.offset for f in failures)] if o not in may]
            findings.some(file, (f"galaxy {ids[o]!r} was not to be tried again" for o in strange))
        self._rows_of(file, part, snippet, found)
        for offset in offsets:
            found.where.setdefault(offset, file)
        for failure in failures:
            found.failures.setdefault(failure.offset, []).append(failure)
        return fresh

    def _rows_of(self, file: str, part: parts.Part, snippet: Snippet, found: Found) -> None:
        """A part's key columns: exactly the galaxies, members and passes of the plan, in its order."""
        plan, table = self._plan, part.table
        chosen = self._cut(snippet).take(pa.array(part.offsets, pa.int64()))
        if plan.command == "represent":
            right = chosen.drop_columns(["file_loc"])
            _compare(file, table.select(right.column_names), right, self._findings)
            self._features(file, table, found)
            return
        each = np.repeat(np.arange(len(part.offsets)), len(plan.members) * plan.passes)
        names = np.repeat([member.name for member in plan.members], plan.passes)
        keys = {
            ID: chosen.column(ID).take(pa.array(each)),
            "member": pa.array(np.tile(names, len(part.offsets)), pa.string()),
            "pass": pa.array(np.tile(plan.pass_numbers, len(part.offsets) * len(plan.members)), pa.int32()),
        }
        _compare(file, table.select(list(keys)), pa.table(keys), self._findings)

    def _features(self, file: str, table: pa.Table, found: Found) -> None:
        member = os.path.basename(os.path.dirname(file))
        column = table.column("feature").combine_chunks()
        if not pa.types.is_fixed_size_list(column.type) or column.type.value_type != pa.float32():
            self._findings.add(file, f"feature is of type {column.type}, and should be a list of floats")
            return
        found.lengths.setdefault(member, set()).add(column.type.list_size)
        values = column.flatten().to_numpy(zero_copy_only=False)
        if column.null_count or len(values) != len(column) * column.type.list_size:
            self._findings.add(file, f"feature is null for {column.null_count} galaxies")
            return
        bad = ~np.isfinite(values.reshape(len(column), column.type.list_size))
        names = [f"feature[{i}]" for i in range(bad.shape[1])]
        ids = table.column(ID).to_pylist()
        self._findings.cells(file, bad, ids, names, values.reshape(bad.shape), "and must be finite")

    def _same_galaxies(self, folder: str, first: str, snippet: Snippet, other: Found, found: Found) -> None:
        if not (other.complete and found.complete):
            return
        ids, file = self._ids(snippet), f"{folder}/{layout.part_name(snippet.number)}"
        differ = sorted(set(other.where) ^ set(found.where))
        self._findings.some(
            file,
            (
                f"galaxy {ids[o]!r} is {'not ' * (o not in other.where)}here, unlike in {first}"
                for o in differ
            ),
        )
        if other.failures != found.failures:
            self._findings.add(file, f"tells of other failures than the part in {first}")

    def _values(self, file: str, part: parts.Part) -> np.ndarray:
        """Samples, shape (galaxy, sample, output): finite, and what the members' kind can give."""
        plan = self._plan
        columns = [part.table.column(name).to_numpy() for name in plan.outputs]
        samples = len(plan.members) * plan.passes
        values = np.stack(columns, axis=1).reshape(len(part.offsets), samples, len(columns))
        values = values.astype(np.float32, copy=False)
        ids = part.table.column(ID).to_pylist()
        flat = values.reshape(-1, len(columns))

        def bad(which: np.ndarray, text: str) -> None:
            self._findings.cells(file, which, ids, list(plan.outputs), flat, text)

        finite = np.isfinite(flat)
        bad(~finite, "and must be finite")
        if plan.kind == "tree":
            low, high = BOUNDS
            inside = (flat >= low - SLACK) & (flat <= high + SLACK)
            bad(finite & ~inside, f"and a concentration is from {low:g} to {high:g}")
        if plan.kind == "classifier":
            inside = (flat >= 0) & (flat <= 1)
            bad(finite & ~inside, "and a probability is from 0 to 1")
            sums = flat.sum(axis=1, dtype=np.float64)[:, None]
            away = finite.all(axis=1)[:, None] & (np.abs(sums - 1) > SUM)
            self._findings.cells(file, away, ids, ["the sum of probabilities"], sums, "and must be 1")
        return values


def _compare(file: str, found: pa.Table, right: pa.Table, findings: Findings) -> None:
    """Two tables of the same columns and rows, value by value; NaN equals NaN."""
    for name in right.column_names:
        ours, theirs = found.column(name), right.column(name)
        if not ours.equals(theirs):
            keys = found.column(ID).to_pylist()
            findings.some(file, differences(name, keys, ours.to_pylist(), theirs.to_pylist()))


def differences(name: str, ids: list[str], ours: list[Any], theirs: list[Any]) -> Iterator[str]:
    """A text for every value of a column that is another one than it should be; NaN equals NaN."""
    for row, (galaxy, mine, right) in enumerate(zip(ids, ours, theirs, strict=True)):
        if mine != right and repr(mine) != repr(right):
            text = f"{name} is {one_line(repr(mine), 80)} and should be {one_line(repr(right), 80)}"
            yield f"row {row}: {text}" if name == ID else f"galaxy {galaxy!r}: {text} (row {row})"

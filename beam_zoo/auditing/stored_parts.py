"""The stored parts of a table part: each galaxy once, with the samples that the plan asks for."""

import dataclasses
import os
from collections import defaultdict

import numpy as np
import pyarrow as pa

from beam_zoo.auditing.compare import compare_columns, compare_listed
from beam_zoo.auditing.elements import Element
from beam_zoo.auditing.findings import Findings
from beam_zoo.catalogue.read import ID, LOCATION
from beam_zoo.errors import one_line
from beam_zoo.images.failure import Failure
from beam_zoo.plan.plan import Plan
from beam_zoo.plan.snippet import Snippet
from beam_zoo.samples import parts
from beam_zoo.samples.records import PartRef
from beam_zoo.storage.layout import attempt_of, part_name, part_number

RANGES = {
    "tree": (1 - 1e-3, 101 + 1e-3, "and a concentration is from 1 to 101"),
    "classifier": (0.0, 1.0, "and a probability is from 0 to 1"),
}
"""Samples that a head can give."""
SUM_TOLERANCE = 1e-5


@dataclasses.dataclass
class StoredSnippet:
    """What the parts of a snippet hold; galaxies by offset within the snippet.

    Attributes:
        where: galaxy with samples -> the file that holds them.
        failures: galaxy -> its failures, one or more, in all parts.
        complete: whether all parts could be read.
        samples: of each part of `predict`: offsets, int64, shape (galaxy,), and float32, shape
            (galaxy, sample, output); without galaxies that an earlier part has.
    """

    where: dict[int, str] = dataclasses.field(default_factory=dict)
    failures: dict[int, list[Failure]] = dataclasses.field(default_factory=dict)
    complete: bool = True
    samples: list[tuple[np.ndarray, np.ndarray]] = dataclasses.field(default_factory=list)


class StoredPartChecks:
    """Reads and checks the stored parts of a table part, snippet by snippet.

    Args:
        plan: the plan of the run.
        output: its folder.
        element: the table part.
        rows: the plan's rows of the table part.
        findings: takes what is wrong.

    Attributes:
        counts: number of part files and of their rows that were read; `features\\tMEMBER\\tLENGTH` for each
            length of a member's features.
    """

    def __init__(self, plan: Plan, output: str, element: Element, rows: pa.Table, findings: Findings) -> None:
        self._plan, self._output, self._element, self._findings = plan, output, element, findings
        self._rows = rows
        self.counts = {"part files": 0, "part rows": 0}
        self._names: dict[tuple[str, int], set[str]] = defaultdict(set)
        for file in {*element.files, *element.listed}:
            folder, name = os.path.split(file)
            number, _ = part_number(name) or (-1, 0)
            self._names[folder, number].add(name)

    def read(self, snippet: Snippet) -> StoredSnippet:
        """Read and check all parts of a snippet."""
        start = self._plan.table_rows(self._element.number or 0).start
        rows = self._rows.slice(snippet.start - start, snippet.size)
        first, *others = [self._folder(f, snippet, rows) for f in parts.folders(self._plan)]
        # Members of `represent` have a folder each: read_part compares the galaxies and failures in them.
        first.complete &= all(other.complete for other in others)
        return first

    def _folder(self, folder: str, snippet: Snippet, rows: pa.Table) -> StoredSnippet:
        stored = StoredSnippet()
        names = {part_name(snippet.number), *self._names[folder, snippet.number]}
        for name in sorted(names, key=attempt_of):
            file = f"{folder}/{name}"
            if file not in self._element.files:
                why = ": it is listed in manifest.json and not there" * (file in self._element.listed)
                self._findings.add(file, f"is missing{why}")
                stored.complete = False
                continue
            try:
                part = parts.read_part(self._plan, self._output, folder, PartRef(snippet.number, name))
            except Exception as error:
                text = one_line(error) or type(error).__name__
                if isinstance(error, KeyError):
                    text = f"holds a galaxy {error} that its snippet does not have"
                self._findings.add(file, text.replace(self._output + os.sep, "").removeprefix(f"{file} "))
                stored.complete = False
                continue
            self.counts["part files"] += 1
            self.counts["part rows"] += part.table.num_rows
            self._check_listed(file, part)
            fresh = self._check_galaxies(file, part, rows, stored)
            self._check_keys(file, part, rows)
            if self._plan.command == "represent":
                self._check_features(file, part.table)
            else:
                stored.samples.append((part.offsets[fresh], self._samples(file, part)[fresh]))
        return stored

    def _check_listed(self, file: str, part: parts.Part) -> None:
        # Manifests of earlier versions list the folder of the first member of `represent` only.
        if file in self._element.listed or os.path.dirname(file) == parts.folders(self._plan)[0]:
            found = {"rows": part.table.num_rows, "galaxies": len(part.offsets), "sha256": part.sha256}
            compare_listed(file, self._element, found, self._findings)

    def _check_galaxies(
        self, file: str, part: parts.Part, rows: pa.Table, stored: StoredSnippet
    ) -> np.ndarray:
        """Check a part's metadata, and add its galaxies and failures to what is stored.

        Returns:
            Which of the part's galaxies no part before it had: bool, shape (galaxy,).
        """
        add, some = self._findings.add, self._findings.some
        ids, offsets = rows.column(ID).to_pylist(), part.offsets.tolist()
        metadata, attempt = parts.read_metadata(part.table.schema), attempt_of(file.rpartition("/")[2])
        if metadata.get("attempt") != attempt:
            add(file, f"its metadata says attempt {metadata.get('attempt')!r}, and its name {attempt}")
        said, digest = metadata.get("galaxies"), parts.galaxies_digest([ids[o] for o in offsets])
        if said != digest:
            add(file, f"its metadata has SHA-256 {said!r} of its galaxies, which have {digest!r}")
        if offsets != sorted(set(offsets)):
            add(file, "its galaxies are not in the order of the catalogue, or one is there twice")
        again = [o for o in offsets if o in stored.where]
        some(file, (f"galaxy {ids[o]!r} is a duplicate: {stored.where[o]} has it too" for o in again))
        failures = {failure.offset: failure for failure in part.failures if 0 <= failure.offset < len(ids)}
        failed = [failure.offset for failure in part.failures]
        if failed != sorted(failures.keys() - set(offsets)):
            add(file, f"its failures are of galaxies {failed} of {len(ids)}, and its samples of {offsets}")
        if attempt and stored.complete:
            may = {o for o, them in stored.failures.items() if any(f.may_pass for f in them)}
            strange = [o for o in [*offsets, *failures] if o not in may]
            some(file, (f"galaxy {ids[o]!r} was not to be tried again" for o in strange))
        fresh = np.array([o not in stored.where for o in offsets], bool)
        for offset in offsets:
            stored.where.setdefault(offset, file)
        for offset, failure in failures.items():
            stored.failures.setdefault(offset, []).append(failure)
        return fresh

    def _check_keys(self, file: str, part: parts.Part, rows: pa.Table) -> None:
        """Compare the galaxies, members and passes of a part's rows with those of the plan, in its order."""
        plan, galaxies = self._plan, len(part.offsets)
        right = rows.take(pa.array(part.offsets, pa.int64())).drop_columns([LOCATION])
        if plan.command == "predict":
            samples = len(plan.members) * plan.passes
            members = np.repeat([member.name for member in plan.members], plan.passes)
            keys = {
                ID: right.column(ID).take(pa.array(np.repeat(np.arange(galaxies), samples))),
                "member": pa.array(np.tile(members, galaxies), pa.string()),
                "pass": pa.array(np.tile(plan.pass_numbers, galaxies * len(plan.members)), pa.int32()),
            }
            right = pa.table(keys)
        compare_columns(file, part.table, right, self._findings)

    def _check_features(self, file: str, table: pa.Table) -> None:
        column = table.column("feature").combine_chunks()
        length, nulls = getattr(column.type, "list_size", -1), column.null_count
        if nulls or column.type != pa.list_(pa.float32(), length):
            text = f"feature is of type {column.type} with {nulls} nulls, and should be a list of floats"
            self._findings.add(file, text)
            return
        self.counts[f"features\t{file.split('/')[1]}\t{length}"] = 1
        values = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), length)
        names, ids = [f"feature[{i}]" for i in range(length)], table.column(ID).to_pylist()
        self._findings.numbers(file, ~np.isfinite(values), ids, names, values, "and must be finite")

    def _samples(self, file: str, part: parts.Part) -> np.ndarray:
        """Samples, float32, shape (galaxy, sample, output); those that are no samples are findings."""
        outputs, ids = list(self._plan.outputs), part.table.column(ID).to_pylist()
        rows = np.stack([part.table.column(name).to_numpy() for name in outputs], axis=1)

        def wrong(which: np.ndarray, text: str) -> None:
            self._findings.numbers(file, which, ids, outputs, rows, text)

        finite = np.isfinite(rows)
        wrong(~finite, "and must be finite")
        if self._plan.kind in RANGES:
            low, high, text = RANGES[self._plan.kind]
            wrong(finite & ((rows < low) | (rows > high)), text)
        if self._plan.kind == "classifier":
            sums = rows.sum(axis=1, dtype=np.float64, keepdims=True)
            away = finite.all(axis=1, keepdims=True) & (np.abs(sums - 1) > SUM_TOLERANCE)
            self._findings.numbers(file, away, ids, ["the sum of probabilities"], sums, "and must be 1")
        shape = len(part.offsets), len(self._plan.members) * self._plan.passes, len(outputs)
        return rows.reshape(shape).astype(np.float32, copy=False)

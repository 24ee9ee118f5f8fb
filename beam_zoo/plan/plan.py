"""What a run predicts, and what follows from it: snippets, table parts, fingerprints."""

import dataclasses
import functools
import hashlib
import json
import os
from typing import Any

import pyarrow as pa

from beam_zoo.catalogue.read import ID, LOCATION
from beam_zoo.members.member import Member
from beam_zoo.plan.planned_catalogue import PlannedCatalogue
from beam_zoo.plan.rows import read_part, read_schema, read_snippet
from beam_zoo.plan.snippet import Snippet
from beam_zoo.storage.layout import PLAN

FORMAT = 2
BATCHED = "batched"
MEDIAN, MIXTURE = INTERVALS = ("median", "mixture")
"""The tables' 90% interval: medians of the samples' bounds, as in zoobot, or that of their mixture."""
TABLE_ROWS = 16_384
"""About how many rows a table part has, in whole snippets: 9 MB of an advanced table of 34 answers."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run predicts. `fingerprint` covers everything in it that can change a number.

    Attributes:
        command: `predict` or `represent`.
        rows: number of the catalogue's rows.
        catalogue: its files and its content.
        image_root: where relative image paths started when the plan was made.
        snippet_size: rows of a snippet.
        members: the ensemble, in the order of the command line.
        first_pass, passes: numbers of the passes are range(first_pass, first_pass + passes).
        seed: of all random draws.
        precision: of the encoder.
        carried: names of the columns carried into the tables.
        carried_digest: SHA-256 of their content, or an empty string.
        versions: of the libraries that the run began with.
        interval: which 90% interval the tables have, see `beam_zoo.tables.statistics.DecisionTree`.
        table_rows_wanted: about how many rows a table part has; stored, since it also sizes the plan's files.
        compile: whether encoders are compiled.
        fast_images: whether large JPEGs are decoded to fewer pixels, see `beam_zoo.images.views.least_side`.
        fast_views: `batched` if `beam_zoo.images.fast_views` makes a batch's views together; False for
            galaxy_datasets' own. True in plans of earlier versions, where the device chose the algorithm:
            such an output can be read, but not continued.
        gpu_decoder: whether a GPU decodes JPEGs, see `beam_zoo.images.gpu.card_decoder`.
    """

    command: str
    rows: int
    catalogue: PlannedCatalogue
    image_root: str
    snippet_size: int
    members: tuple[Member, ...]
    first_pass: int
    passes: int
    seed: int
    precision: str
    carried: tuple[str, ...]
    carried_digest: str
    versions: dict[str, str | None]
    interval: str = MEDIAN
    table_rows_wanted: int = dataclasses.field(default_factory=lambda: TABLE_ROWS)
    compile: bool = False
    fast_images: bool = False
    fast_views: str | bool = False
    gpu_decoder: bool = False

    @property
    def kind(self) -> str:
        """Kind of all members: `tree`, `classifier`, `regressor`, or `encoder` for features."""
        return "encoder" if self.command == "represent" else self.members[0].kind

    @property
    def pass_numbers(self) -> range:
        """Numbers of the passes."""
        return range(self.first_pass, self.first_pass + self.passes)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the answers, of the classes or of the value."""
        return self.members[0].outputs

    @property
    def snippets(self) -> int:
        """Number of snippets."""
        return -(-self.rows // self.snippet_size)

    @property
    def snippets_per_table(self) -> int:
        """Number of snippets in a table part."""
        return max(1, self.table_rows_wanted // self.snippet_size)

    @property
    def table_parts(self) -> int:
        """Number of table parts."""
        return -(-self.snippets // self.snippets_per_table)

    def snippet(self, number: int) -> Snippet:
        """The snippet of this number."""
        start = number * self.snippet_size
        return Snippet(number, start, min(self.rows, start + self.snippet_size))

    def table_part(self, snippet: int) -> int:
        """The table part that a snippet belongs to."""
        return snippet // self.snippets_per_table

    def table_snippets(self, part: int) -> range:
        """Snippets of a table part."""
        first = part * self.snippets_per_table
        return range(first, min(self.snippets, first + self.snippets_per_table))

    def table_rows(self, part: int) -> range:
        """Catalogue rows of a table part."""
        size = self.snippets_per_table * self.snippet_size
        return range(part * size, min(self.rows, (part + 1) * size))

    def settings(self) -> dict[str, Any]:
        """Everything that can change a number, by its name in error lines."""
        return {
            "command": self.command,
            "catalogue": self.catalogue.sha256,
            "limit": self.catalogue.limit,
            "snippet_size": self.snippet_size,
            "first_pass": self.first_pass,
            "passes": self.passes,
            "seed": self.seed,
            "precision": self.precision,
            "compile": self.compile,
            "fast_images": self.fast_images,
            "fast_views": self.fast_views,
            "gpu_decoder": self.gpu_decoder,
            # Representations are stored with their carried columns: no table is built from them.
            "carry": list(self.carried) if self.command == "represent" else [],
            "carried values": self.carried_digest if self.command == "represent" else "",
            "members": {member.name: member.identity() for member in self.members},
            "order": [member.name for member in self.members],
        }

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the settings: a part with another fingerprint belongs to another run."""
        # A setting that is off changes no number: plans without that setting keep their fingerprint.
        settings = {name: value for name, value in self.settings().items() if value is not False}
        canonical = json.dumps({"format": FORMAT, **settings}, sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()

    @functools.cached_property
    def tables_fingerprint(self) -> str:
        """SHA-256 of what the tables depend on: tables with another fingerprint are rebuilt."""
        carried = [list(self.carried), self.carried_digest]
        canonical = json.dumps(
            {"samples": self.fingerprint, "carried": carried, "interval": self.interval}, sort_keys=True
        )
        return hashlib.sha256(canonical.encode()).hexdigest()

    def rows_folder(self, output: str) -> str:
        """Where the rows of this plan are."""
        return self._folder_of(output, "rows", self.catalogue.sha256)

    def carried_folder(self, output: str) -> str:
        """Where the carried columns of this plan are."""
        return self._folder_of(output, "carried", self.carried_digest)

    def _folder_of(self, output: str, kind: str, digest: str) -> str:
        """A content-addressed folder; how the rows are split into files is part of its name."""
        content = f"{digest} {self.snippet_size} {self.table_rows_wanted}"
        return os.path.join(output, PLAN, f"{kind}-{hashlib.sha256(content.encode()).hexdigest()[:12]}")

    def read_rows(self, output: str, snippet: Snippet) -> tuple[list[str], list[str | None]]:
        """Ids and image locations of a snippet's galaxies, in order."""
        table = self._read_snippet(self.rows_folder(output), snippet.number)
        return table.column(ID).to_pylist(), table.column(LOCATION).to_pylist()

    def read_ids(self, output: str, snippet: Snippet) -> pa.Array:
        """Ids of a snippet's galaxies, in order."""
        return self._read_snippet(self.rows_folder(output), snippet.number).column(ID).combine_chunks()

    def read_carried(self, output: str, snippet: int) -> pa.Table:
        """The carried columns of a snippet's galaxies, in order."""
        return self._read_snippet(self.carried_folder(output), snippet)

    def read_table_rows(self, output: str, part: int) -> pa.Table:
        """`id_str`, `file_loc` and the carried columns of a table part's galaxies, in order."""
        table = read_part(self.rows_folder(output), part)
        if self.carried:
            carried = read_part(self.carried_folder(output), part)
            for name in self.carried:
                table = table.append_column(carried.schema.field(name), carried.column(name))
        return table

    def carried_schema(self, output: str) -> pa.Schema:
        """Arrow fields of the carried columns."""
        return read_schema(self.carried_folder(output)) if self.carried else pa.schema([])

    def _read_snippet(self, folder: str, snippet: int) -> pa.Table:
        return read_snippet(folder, *divmod(snippet, self.snippets_per_table))


def differences(old: Plan, new: Plan) -> list[str]:
    """The settings in which two plans differ, as phrases for an error line."""
    before, after = old.settings(), new.settings()
    found = []
    for name in before:
        if before[name] == after[name] or name in ("members", "order"):
            continue
        if name == "catalogue":
            if before["limit"] == after["limit"]:
                found.append("catalogue (its ids, image paths or rows)")
        else:
            found.append(name if name == "carried values" else _change(name, before[name], after[name]))
    ours, theirs = before["members"], after["members"]
    for name in sorted({*ours, *theirs}):
        if name not in theirs or name not in ours:
            found.append(f"members ({name} is {'there' if name in ours else 'now'} only)")
        else:
            changed = [key for key in ours[name] if ours[name][key] != theirs[name].get(key)]
            found += [f"{key} of member {name}" for key in changed]
    if set(ours) == set(theirs) and before["order"] != after["order"]:
        found.append("the order of the members")
    return found


def _change(name: str, before: Any, after: Any) -> str:
    return f"{name} ({_short(before)} there, {_short(after)} now)"


def _short(value: Any) -> str:
    return "none" if value is None or value == [] else str(value)

"""A complete output as an object: its counts, and its tables as pandas or Arrow.

>>> output = beam_zoo.open_output("OUT")
>>> output.command, output.rows, output.predicted, output.failed
('predict', 8, 8, 0)
>>> output.friendly()[["id_str", "ring_yes_fraction"]].shape
(8, 2)
"""

import dataclasses
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from beam_zoo.catalogue.read import ID
from beam_zoo.errors import UserError, did_you_mean, near_path, one_line
from beam_zoo.plan import plan_file
from beam_zoo.plan.plan import Plan
from beam_zoo.storage.files import absolute, for_arrow, is_folder, read_json
from beam_zoo.storage.layout import (
    ADVANCED,
    FAILURES,
    FRIENDLY,
    MANIFEST,
    PLAN_FILE,
    REPRESENTATIONS,
    SAMPLES,
    TABLES,
    part_number,
)

if TYPE_CHECKING:
    import pandas as pd

COMMANDS = ("predict", "represent", "aggregate")


@dataclasses.dataclass(frozen=True)
class Output:
    """A complete output of `predict`, `represent` or `aggregate`; `open_output` makes it.

    Tables are read on request, from the files that the manifest names, and have the catalogue's order.

    >>> beam_zoo.open_output("OUT")
    <Output .../OUT: predict, 8 of 8 galaxies predicted, 0 failed>

    Attributes:
        path: folder of the output, absolute, or gs://bucket/folder.
        manifest: the content of `manifest.json`.
    """

    path: str
    manifest: dict[str, Any] = dataclasses.field(repr=False)

    def __repr__(self) -> str:
        counts = f"{self.predicted:,} of {self.rows:,} galaxies predicted, {self.failed:,} failed"
        return f"<Output {self.path}: {self.command}, {counts}>"

    @property
    def command(self) -> str:
        """`predict`, `represent` or `aggregate`."""
        return str(self.manifest["command"])

    @property
    def rows(self) -> int:
        """Number of the catalogue's galaxies."""
        return int(self.manifest["rows_in"])

    @property
    def predicted(self) -> int:
        """Number of galaxies that have a prediction, or a representation."""
        return int(self.manifest["rows_predicted"])

    @property
    def failed(self) -> int:
        """Number of galaxies in the failures table."""
        return int(self.manifest["rows_failed"])

    @property
    def members(self) -> tuple[str, ...]:
        """Names of the ensemble's members.

        >>> beam_zoo.open_output("OUT").members
        ('demo_a', 'demo_b')
        """
        return tuple(member["name"] for member in self.manifest["members"])

    @property
    def paths(self) -> dict[str, list[str]]:
        """The Parquet files of every table, in catalogue order; an aggregate's samples are in its sources.

        >>> paths = beam_zoo.open_output("OUT").paths
        >>> list(paths), len(paths["friendly"])
        (['friendly', 'advanced', 'failures', 'samples'], 1)
        """
        found: dict[str, list[str]] = {table: [] for table in TABLES if self._has(table)}
        files = [(self.path, file["name"]) for file in self.manifest["tables"]]
        if self.command == "aggregate":
            for source in self.manifest["sources"]:
                files += [(source["path"], file["name"]) for file in source["parts"]]
        else:
            files += [(self.path, file["name"]) for file in self.manifest["parts"]]
        for folder, name in files:
            found.setdefault(os.path.dirname(name), []).append(os.path.join(folder, name))
        return found

    @overload
    def friendly(self, *, arrow: Literal[False] = False) -> "pd.DataFrame": ...
    @overload
    def friendly(self, *, arrow: Literal[True]) -> pa.Table: ...
    def friendly(self, *, arrow: bool = False) -> "pd.DataFrame | pa.Table":
        """One row per predicted galaxy: `id_str`, carried columns, vote fractions, probabilities or values.

        Args:
            arrow: give an Arrow table instead of a pandas DataFrame.

        Raises:
            UserError: the output has no such table, or a file of it is missing or damaged.

        >>> list(beam_zoo.open_output("OUT").friendly().columns[:2])
        ['id_str', 'smooth-or-featured_smooth_fraction']
        """
        return self._table(FRIENDLY, arrow)

    @overload
    def advanced(self, *, arrow: Literal[False] = False) -> "pd.DataFrame": ...
    @overload
    def advanced(self, *, arrow: Literal[True]) -> pa.Table: ...
    def advanced(self, *, arrow: bool = False) -> "pd.DataFrame | pa.Table":
        """As `friendly`, unmasked, with 90% intervals and the proportion asked of every answer.

        >>> beam_zoo.open_output("OUT").advanced(arrow=True).column_names[1:3]
        ['smooth-or-featured_smooth_fraction', 'smooth-or-featured_smooth_90pc-lower']
        """
        return self._table(ADVANCED, arrow)

    @overload
    def failures(self, *, arrow: Literal[False] = False) -> "pd.DataFrame": ...
    @overload
    def failures(self, *, arrow: Literal[True]) -> pa.Table: ...
    def failures(self, *, arrow: bool = False) -> "pd.DataFrame | pa.Table":
        """One row per galaxy without a prediction: `id_str`, `file_loc`, `stage`, `error`, `may_pass`.

        >>> len(beam_zoo.open_output("OUT").failures())
        0
        """
        return self._table(FAILURES, arrow)

    @overload
    def samples(self, *, arrow: Literal[False] = False) -> "pd.DataFrame": ...
    @overload
    def samples(self, *, arrow: Literal[True]) -> pa.Table: ...
    def samples(self, *, arrow: bool = False) -> "pd.DataFrame | pa.Table":
        """One row per galaxy, member and pass: `id_str`, `member`, `pass`, and every output as float32.

        Those of an aggregate are read from its sources, which must still be there.

        Raises:
            UserError: a file is missing or damaged, or the output is one of `represent`.

        >>> beam_zoo.open_output("OUT").samples().groupby(["member", "pass"]).size().to_dict()
        {('demo_a', 0): 8, ('demo_a', 1): 8, ('demo_b', 0): 8, ('demo_b', 1): 8}
        """
        self._require(SAMPLES)
        if self.command == "aggregate":
            from beam_zoo.union.output_samples import read_samples  # imports Beam, which takes a second

            return _given(read_samples(self.path), arrow)
        return _given(self._stored(SAMPLES), arrow)

    @overload
    def representations(
        self, member: str | None = None, *, arrow: Literal[False] = False
    ) -> "pd.DataFrame": ...
    @overload
    def representations(self, member: str | None = None, *, arrow: Literal[True]) -> pa.Table: ...
    def representations(self, member: str | None = None, *, arrow: bool = False) -> "pd.DataFrame | pa.Table":
        """One row per galaxy: `id_str`, carried columns, and `feature`, a list of float32.

        Args:
            member: name of the member; may be left out where there is one.
            arrow: give an Arrow table instead of a pandas DataFrame.

        Raises:
            UserError: no such member, a missing or damaged file, or an output without representations.

        >>> beam_zoo.open_output("FEATURES").representations("demo_a")["feature"][0].shape
        (96,)
        """
        self._require(REPRESENTATIONS)
        if member is None:
            if len(self.members) > 1:
                raise UserError(f"{self.path} has members {', '.join(self.members)}: name one")
            member = self.members[0]
        if member not in self.members:
            raise UserError(f"{self.path} has no member {member!r}{did_you_mean(member, self.members)}")
        return _given(self._stored(f"{REPRESENTATIONS}/{member}"), arrow)

    def _has(self, table: str) -> bool:
        only_represent = table == REPRESENTATIONS
        return table == FAILURES or only_represent == (self.command == "represent")

    def _require(self, table: str) -> None:
        if not self._has(table):
            what = f"{table} are" if table in (SAMPLES, REPRESENTATIONS) else f"a {table} table is"
            raise UserError(f"{self.path} is an output of {self.command}: {what} not part of it")

    def _table(self, table: str, arrow: bool) -> Any:
        self._require(table)
        return _given(_joined([_read(path) for path in self.paths[table]]), arrow)

    def _stored(self, folder: str) -> pa.Table:
        """What is stored of every snippet, in the catalogue's order."""
        plan = plan_file.read(self.path)
        if plan is None:
            raise UserError(f"{self.path} has no {PLAN_FILE} any more")
        by_snippet: dict[int, list[str]] = {}
        for path in self.paths[folder]:
            snippet, _ = part_number(os.path.basename(path)) or (0, 0)
            by_snippet.setdefault(snippet, []).append(path)
        return _joined(
            [
                _in_order([_read(path) for path in paths], plan, self.path, snippet)
                for snippet, paths in sorted(by_snippet.items())
            ]
        )


def open_output(output: str | os.PathLike[str]) -> Output:
    """Open a complete output of `predict`, `represent` or `aggregate`.

    Args:
        output: its folder, or gs://bucket/folder.

    Raises:
        UserError: there is no such folder, or its manifest is missing or cannot be read.

    >>> beam_zoo.open_output("OUT").friendly().shape
    (8, 7)
    """
    folder = absolute(os.fspath(output))
    path = os.path.join(folder, MANIFEST)
    try:
        manifest = read_json(path)
        known = isinstance(manifest, dict) and manifest.get("command") in COMMANDS
    except FileNotFoundError:
        if not is_folder(folder):
            raise UserError(f"there is no output {folder}{near_path(folder)}") from None
        raise UserError(
            f"{folder} is not a complete output: it has no {MANIFEST} (run the same command again, or "
            "`finish` where all samples are stored)"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {one_line(error, 200)}") from None
    if not known:
        raise UserError(f"{path} is not a manifest of this program")
    return Output(folder, manifest)


def _given(table: pa.Table, arrow: bool) -> Any:
    return table if arrow else table.to_pandas()


def _read(path: str) -> pa.Table:
    try:
        with pq.ParquetFile(for_arrow(path), page_checksum_verification=True) as file:
            return file.read().replace_schema_metadata(None)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: restore it, or run the command that made it again") from None
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"cannot read {path}: {one_line(error, 200)}") from None


def _joined(tables: Sequence[pa.Table]) -> pa.Table:
    # What an earlier version wrote may say otherwise of what can be null.
    return pa.concat_tables(tables, promote_options="permissive").combine_chunks()


def _in_order(tables: list[pa.Table], plan: Plan, output: str, snippet: int) -> pa.Table:
    """Rows of a snippet in catalogue order: galaxies that were tried again are in added parts."""
    if len(tables) == 1:
        return tables[0]
    table = _joined(tables)
    ids = plan.read_ids(output, plan.snippet(snippet))
    place = {galaxy: index for index, galaxy in enumerate(ids.to_pylist())}
    places = np.array([place[galaxy] for galaxy in table.column(ID).to_pylist()])
    return table.take(pa.array(np.argsort(places, kind="stable")))

"""Catalogues as users write them: every id kept exactly, and one line for each that cannot be used."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_zoo.catalogue import check as check_rows
from beam_zoo.catalogue import read as catalogues
from beam_zoo.catalogue.check import Checker
from beam_zoo.catalogue.read import find, limited
from beam_zoo.errors import UserError

ODD_IDS = [
    "000001", "-12345678901234567", "NA", "null", "nan", "None", "1e5", "1.0", "0x10", "TRUE",
    "Ωμέγα 銀河", "a, b", 'the "best" one', " leading", "trailing ", "two\nlines", "'", "\u00e9",
    "e\u0301", "#7", "x" * 100_000,
]  # fmt: skip
HEADER = b"id_str,file_loc\n"


def _csv(path: Path, ids: list[str], **columns: list[object]) -> Path:
    pd.DataFrame({"id_str": ids, "file_loc": [f"{i}.jpg" for i in range(len(ids))], **columns}).to_csv(
        path, index=False
    )
    return path


def _parquet(path: Path, ids: object, **columns: object) -> Path:
    locations = [f"{i}.jpg" for i in range(len(ids))]  # type: ignore[arg-type]
    pq.write_table(pa.table({"id_str": ids, "file_loc": pa.array(locations), **columns}), path)
    return path


def _rows(path: Path | str, carry: tuple[str, ...] = ()) -> pa.Table:
    catalogue = find(str(path))
    catalogue.require(carry)
    return pa.Table.from_batches(catalogue.batches(carry))


def _check(path: Path | str, limit: int | None = None, **settings: bool) -> Checker:
    catalogue = find(str(path))
    catalogue.require()
    checker = Checker(catalogue.folder, **{"root_given": False, "allow_outside": False, **settings})
    for batch in limited(catalogue.batches(), limit):
        checker.add(batch)
    return checker


def _digest(path: Path | str, limit: int | None = None, **settings: bool) -> str:
    return _check(path, limit, **settings).finish(find(str(path)), limit)


def _refusal(path: Path | str, carry: tuple[str, ...] = (), **settings: bool) -> str:
    with pytest.raises(UserError) as caught:
        _digest(path, **settings)
        _rows(path, carry)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_ids_are_kept_exactly(tmp_path: Path) -> None:
    """In CSV (quoted as pandas quotes) and in Parquet, and both have the same fingerprint."""
    csv = _csv(tmp_path / "c.csv", ODD_IDS)
    parquet = _parquet(tmp_path / "c.parquet", ODD_IDS)
    assert _rows(csv)["id_str"].to_pylist() == _rows(parquet)["id_str"].to_pylist() == ODD_IDS
    assert _digest(csv) == _digest(parquet)


@pytest.mark.parametrize(
    ("ids", "texts"),
    [
        (pa.array([-(2**63), 2**63 - 1, 0]), ["-9223372036854775808", "9223372036854775807", "0"]),
        (pa.array([2**64 - 1], pa.uint64()), ["18446744073709551615"]),
        (pa.array(["a", "b", "0"]).dictionary_encode(), ["a", "b", "0"]),
        (pa.array([-5, 7]).dictionary_encode(), ["-5", "7"]),
        (pa.array(["a", "b"], pa.large_string()), ["a", "b"]),
        (pa.array(["a", "b"], pa.string_view()), ["a", "b"]),
    ],
)
def test_id_types_of_parquet(tmp_path: Path, ids: pa.Array, texts: list[str]) -> None:
    rows = _rows(_parquet(tmp_path / "c.parquet", ids))
    assert rows["id_str"].to_pylist() == texts
    assert rows.schema.types == [pa.string(), pa.string()]


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        (pa.array([1.0, 2.0]), "type double: a float cannot hold every id"),
        (pa.array([True, False]), "type bool"),
        (pa.array([b"a", b"b"]), "type binary"),
        (pa.nulls(2), "it is empty"),
        (pa.array(["a", None, ""]), "missing or empty in 2 of 3 rows"),
        (pa.array([1, None]), "missing or empty in 1 of 2 rows"),
        (pa.array(["a", "b", "a"]), "1 ids of"),
        (pa.array([], pa.string()), "no rows"),
    ],
)
def test_ids_refused(tmp_path: Path, ids: pa.Array, words: str) -> None:
    assert words in _refusal(_parquet(tmp_path / "c.parquet", ids))


def test_duplicates_by_name_and_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Across files and batches; `1` and `01` are two names."""
    monkeypatch.setattr(catalogues, "BATCH_ROWS", 2)
    (tmp_path / "cat").mkdir()
    _parquet(tmp_path / "cat" / "a.parquet", ["1", "01", "x", "y", "z"])
    _parquet(tmp_path / "cat" / "b.parquet", ["w", "x", "v", "x", "y"])
    text = _refusal(tmp_path / "cat")
    assert "2 ids" in text and "'x' stands in 3 rows" in text
    assert _digest(tmp_path / "cat", limit=6)  # the rows that are left out are not refused


def test_duplicates_over_the_whole_range_of_hashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many names as pandas finds, wherever their hashes fall, at the edges of the pieces too."""
    edges = [piece * 2**60 + step for piece in range(16) for step in (-1, 0, 1)]
    hashes = np.array([edge % 2**64 for edge in edges] * 2, np.uint64)
    assert sorted(check_rows._repeated([np.sort(hashes[:50]), np.sort(hashes[50:])])) == sorted(set(hashes))
    assert not len(check_rows._repeated([np.unique(hashes), np.array([12345], np.uint64)]))
    monkeypatch.setattr(catalogues, "BATCH_ROWS", 100)
    names = [f"g{number}" for number in np.random.default_rng(0).integers(0, 5000, 3000)]
    counts = pd.Series(names).value_counts()
    assert f"{(counts > 1).sum():,} ids" in _refusal(_parquet(tmp_path / "c.parquet", names))


@pytest.mark.parametrize("group_rows", [700, 10_000, 25_000, 200_000])
def test_memory_of_a_large_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group_rows: int) -> None:
    """Parquet is not kept once its rows went by, whatever its row groups, and all rows come in order."""
    monkeypatch.setattr(catalogues, "BATCH_ROWS", 10_000)
    monkeypatch.setattr(catalogues, "READ_AT_ONCE", 1 << 16)
    random = np.random.default_rng(0)
    ids = [random.bytes(10).hex() for _ in range(200_000)]
    table = pa.table({"id_str": ids, "file_loc": [f"{galaxy}.jpg" for galaxy in ids]})
    pq.write_table(table, tmp_path / "c.parquet", row_group_size=group_rows, use_dictionary=False)
    before, most, found = pa.total_allocated_bytes(), 0, []
    for batch in find(str(tmp_path / "c.parquet")).batches():
        most = max(most, pa.total_allocated_bytes() - before)
        found += batch.column("id_str").to_pylist()
    assert found == ids
    assert most < (tmp_path / "c.parquet").stat().st_size / 2


def test_two_ids_of_one_hash_are_two_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_rows, "_hashes", lambda ids: np.zeros(len(ids), np.uint64))
    assert _digest(_csv(tmp_path / "a.csv", ["a", "b", "c"]))
    assert "'b' stands in 2 rows" in _refusal(_csv(tmp_path / "b.csv", ["a", "b", "b"]))


@pytest.mark.parametrize(
    ("content", "ids"),
    [
        (b"\xef\xbb\xbf" + HEADER + b"a,b\n", ["a"]),
        (b"id_str,file_loc\r\na,b\r\nc,d\r\n", ["a", "c"]),
        (HEADER + b"a,b", ["a"]),
        (HEADER + b"\na,b\n\n", ["a"]),
        (HEADER + b'"a\nb",c\n"d""e",f\n', ["a\nb", 'd"e']),
        (HEADER + b'a"b,c\n', ['a"b']),
        (HEADER + b" a , b \n", [" a "]),
        (b"x,id_str,x,file_loc\n1,a,2,b\n", ["a"]),
        (b"id_str,file_loc,note\na,b,caf\xe9\n", ["a"]),
        (b'id_str,file_loc,note\na,b,"two\nlines"\n', ["a"]),
        (b"file_loc,,id_str\nb,,a\n", ["a"]),
    ],
)
def test_csv_quirks(tmp_path: Path, content: bytes, ids: list[str]) -> None:
    (tmp_path / "c.csv").write_bytes(content)
    assert _rows(tmp_path / "c.csv")["id_str"].to_pylist() == ids


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "Empty CSV file"),
        (b"\n\n", "Empty CSV file"),
        (HEADER, "no rows"),
        (HEADER + b"a\n", "Expected 2 columns, got 1"),
        (HEADER + b"a,b,c\n", "Expected 2 columns, got 3"),
        (HEADER + b"\xe9,b\n", "UTF8"),
        ("id_str,file_loc\na,b\n".encode("utf-16"), "UTF-16"),
        (b"id_str,file_loc,id_str\na,b,c\n", "two columns named 'id_str'"),
        (b"id_str,path\na,b\n", "no column 'file_loc' (choose from id_str, path)"),
        (b"ID_STR,file_loc\na,b\n", "no column 'id_str' (did you mean 'ID_STR'?)"),
        (b"id_str, file_loc\na,b\n", "did you mean ' file_loc'?"),
        (b"id_str;file_loc\na;b\n", "id_str;file_loc"),
        (HEADER + b",b\n", "missing or empty in 1 of 1 rows"),
        # A quotation mark that nobody closes swallows the rows after it.
        (HEADER + b'a,"b\nc,d\ne,f\n', "line break"),
        (b'file_loc,id_str\na,"b\nc,d\n', "not closed"),
        (b'id_str,file_loc,note\na,b,"c\nd,e,f\n', "not closed"),
    ],
)
def test_csv_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "c.csv").write_bytes(content)
    assert words in _refusal(tmp_path / "c.csv")


def test_carried_csv_columns_have_sensible_types(tmp_path: Path) -> None:
    """A column has one type over all files; nothing that looks like a name becomes a number."""
    columns = {
        "ra": ["1.5", "2", ""], "count": ["1", "", "-3"], "field": ["001", "002", "3"],
        "hex": ["0x1", "2", "3"], "big": ["18446744073709551615", "1", "2"], "mixed": ["1", "x", "2"],
        "spaced": [" 1", "2", "3"], "exponent": ["1e5", "nan", "-inf"], "na": ["NA", "1", ""],
    }  # fmt: skip
    (tmp_path / "cat").mkdir()
    for number in range(3):
        _csv(
            tmp_path / "cat" / f"{number}.csv", [f"g{number}"], **{k: [v[number]] for k, v in columns.items()}
        )
    rows = _rows(tmp_path / "cat", tuple(columns))
    types = {name: str(rows.schema.field(name).type) for name in columns}
    numbers = {"ra": "double", "count": "int64", "exponent": "double"}
    assert types == {**dict.fromkeys(columns, "string"), **numbers}
    assert rows["ra"].to_pylist() == [1.5, 2.0, None]
    assert rows["count"].to_pylist() == [1, None, -3]
    for name in set(columns) - set(numbers):
        assert rows[name].to_pylist() == columns[name]


def test_carried_parquet_columns_keep_their_types(tmp_path: Path) -> None:
    columns = {
        "int": pa.array([1, None], pa.int32()), "when": pa.array([1, 2], pa.timestamp("ns", "UTC")),
        "list": pa.array([[1.0], []]), "flag": pa.array([True, None]), "s.q": pa.array(["a", "b"]),
        "word": pa.array(["a", "b"]).dictionary_encode(), "half": pa.array([1, 2], pa.float16()),
    }  # fmt: skip
    rows = _rows(_parquet(tmp_path / "c.parquet", ["a", "b"], **columns), tuple(columns))
    for name, column in columns.items():
        assert rows.schema.field(name).type == column.type
        assert rows[name].to_pylist() == column.to_pylist()


def test_carried_types_agree_between_files(tmp_path: Path) -> None:
    """A file where the column is all null takes the others' type."""
    _parquet(tmp_path / "1.parquet", ["a"], z=pa.nulls(1))
    _parquet(tmp_path / "2.parquet", ["b"], z=pa.array([1.5]))
    rows = _rows(tmp_path / "*.parquet", ("z",))
    assert rows["z"].to_pylist() == [None, 1.5] and rows.schema.field("z").type == pa.float64()
    _parquet(tmp_path / "3.parquet", ["c"], z=pa.array([1]))
    text = _refusal(tmp_path / "*.parquet", ("z",))
    assert "'z'" in text and "double" in text and "int64" in text
    assert _rows(tmp_path / "*.parquet").num_rows == 3  # it does not matter where it is not carried


def test_columns_of_every_file(tmp_path: Path) -> None:
    _parquet(tmp_path / "1.parquet", ["a"], z=pa.array([1]))
    _parquet(tmp_path / "2.parquet", ["b"])
    assert "2.parquet has no column 'z'" in _refusal(tmp_path / "*.parquet", ("z",))
    twice = pa.table([["a"], ["b"], ["c"]], names=["id_str", "file_loc", "id_str"])
    pq.write_table(twice, tmp_path / "twice.parquet")
    assert "two columns named 'id_str'" in _refusal(tmp_path / "twice.parquet")


def test_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ids and locations in their order, and of nothing else."""
    ids = [f"g{i}" for i in range(50)]
    whole = _digest(_csv(tmp_path / "whole.csv", ids))
    monkeypatch.setattr(catalogues, "BATCH_ROWS", 7)
    assert _digest(_parquet(tmp_path / "whole.parquet", ids)) == whole
    table = pq.read_table(tmp_path / "whole.parquet").append_column("ra", pa.array(range(50)))
    (tmp_path / "split").mkdir()
    pq.write_table(table.slice(0, 13), tmp_path / "split" / "1.parquet")
    pq.write_table(table.slice(13, 0), tmp_path / "split" / "2.parquet")
    pq.write_table(table.slice(13), tmp_path / "split" / "3.parquet")
    assert _digest(tmp_path / "split") == whole
    assert _digest(tmp_path / "whole.csv", limit=20) == _digest(tmp_path / "split", limit=20) != whole
    assert _digest(_csv(tmp_path / "reversed.csv", ids[::-1])) != whole
    # The same letters, cut into ids otherwise.
    assert _digest(_csv(tmp_path / "x.csv", ["ab", "c"])) != _digest(_csv(tmp_path / "y.csv", ["a", "bc"]))


def test_locations_of_files(tmp_path: Path) -> None:
    """A file, a folder with sub-folders (hidden ones left out), a glob; a folder's images start at it."""
    (tmp_path / "cat" / "sub").mkdir(parents=True)
    for name in (
        "b.parquet",
        "a.parquet",
        "sub/c.PARQUET",
        ".hidden.parquet",
        "_x.parquet",
        "sub/._y.parquet",
    ):
        _parquet(tmp_path / "cat" / name, [name])
    (tmp_path / "cat" / "README.txt").write_text("not a table")
    assert _rows(tmp_path / "cat")["id_str"].to_pylist() == ["a.parquet", "b.parquet", "sub/c.PARQUET"]
    assert _rows(tmp_path / "cat" / "?.parquet")["id_str"].to_pylist() == ["a.parquet", "b.parquet"]
    assert find(str(tmp_path / "*" / "a.parquet")).folder == str(tmp_path)
    assert find(str(tmp_path / "cat")).folder == find(str(tmp_path / "cat" / "a.parquet")).folder
    bracket = _csv(tmp_path / "a[1].csv", ["a"])
    assert _rows(bracket).num_rows == 1


def test_locations_refused(tmp_path: Path) -> None:
    _csv(tmp_path / "galaxies.csv", ["a"])
    assert "did you mean 'galaxies.csv'?" in _refusal(tmp_path / "galaxys.csv")
    assert f"{tmp_path} has no folder 'no'" in _refusal(tmp_path / "no" / "where" / "galaxies.csv")
    (tmp_path / "x.fits").write_bytes(b"SIMPLE")
    assert "must end in .parquet or .csv" in _refusal(tmp_path / "x.fits")
    (tmp_path / "x.parquet").write_bytes(b"id_str,file_loc\n")
    assert "cannot read" in _refusal(tmp_path / "x.parquet")
    assert "both Parquet and CSV" in _refusal(tmp_path)
    assert "no .parquet or .csv file" in _refusal(tmp_path / "*.nothing")
    assert "only local ones and gs://" in _refusal("s3://bucket/c.parquet")


@pytest.mark.parametrize(
    ("location", "outside", "outside_of_given"),
    [
        ("a/b.jpg", False, False),
        ("a/../b.jpg", False, False),
        ("a..b/c...jpg", False, False),
        ("../b.jpg", True, True),
        ("a/../../b.jpg", True, True),
        ("/data/b.jpg", False, True),
        ("/data/a..b/c.jpg", False, True),
        ("gs://bucket/b.jpg", False, True),
        ("", False, False),
    ],
)
def test_paths_outside(tmp_path: Path, location: str, outside: bool, outside_of_given: bool) -> None:
    path = tmp_path / "c.csv"
    pd.DataFrame({"id_str": ["1", "2"], "file_loc": ["x.jpg", location]}).to_csv(path, index=False)
    for given, refused in ((False, outside), (True, outside_of_given)):
        if refused:
            text = _refusal(path, root_given=given)
            assert "1 rows" in text and repr(location) in text and "--allow_outside" in text
        else:
            assert _digest(path, root_given=given)
        assert _digest(path, root_given=given, allow_outside=True)


def test_an_absolute_path_inside_the_given_root(tmp_path: Path) -> None:
    inside = pd.DataFrame({"id_str": ["1"], "file_loc": [str(tmp_path / "x.jpg")]})
    inside.to_csv(tmp_path / "c.csv", index=False)
    assert _digest(tmp_path / "c.csv", root_given=True)
    checker = Checker("gs://bucket/images", root_given=True, allow_outside=False)
    checker.add(pa.RecordBatch.from_pydict({"id_str": ["1"], "file_loc": ["gs://bucket/images/x.jpg"]}))
    assert checker.finish(find(str(tmp_path / "c.csv")), None)

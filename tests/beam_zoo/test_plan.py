"""The plan on disk: what was put in comes out, row by row; and what tells two runs apart."""

import dataclasses
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_zoo.auditing import plan_files
from beam_zoo.auditing.findings import Findings
from beam_zoo.errors import UserError
from beam_zoo.members.member import Member
from beam_zoo.plan import plan as plans
from beam_zoo.plan import plan_file
from beam_zoo.plan.plan import Plan
from beam_zoo.plan.planned_catalogue import KnownImage, PlannedCatalogue, RowChecks
from beam_zoo.plan.rows import CarriedDigest
from beam_zoo.storage import files
from beam_zoo.storage import output as outputs
from beam_zoo.storage.stamps import FileStamp

CARRIED = ("ra", "name")
NAME = f"{files.sha256(b'weights')[:16]}.ckpt"


def _member(name: str = "a", **changes: Any) -> Member:
    settings: dict[str, Any] = {
        "name": name, "zoobot_class": "ZoobotTree", "checkpoint": "a.ckpt", "path": "/a.ckpt",
        "sha256": "0" * 64, "revision": None, "architecture": None, "architecture_kwargs": {},
        "encoder": None, "schema": None, "outputs": ("x",), "view": {"output_size": 64}, "greyscale": False,
        "dropout_rate": 0.2, "random_view": False, "trust_checkpoint": False,
    }  # fmt: skip
    return Member(**{**settings, **changes})


def _plan(rows: int, snippet_size: int, **changes: Any) -> Plan:
    settings: dict[str, Any] = {
        "command": "predict", "rows": rows, "catalogue": PlannedCatalogue("c.csv", (), None, None, "f"),
        "image_root": "/images", "snippet_size": snippet_size, "members": (_member(),), "first_pass": 0,
        "passes": 2, "seed": 0, "precision": "fp32", "carried": CARRIED,
        "carried_digest": "c" * 64, "versions": {},
    }  # fmt: skip
    return Plan(**{**settings, **changes})


def _table(rows: int) -> pa.Table:
    return pa.table(
        {
            "id_str": [f"galaxy, {i}" for i in range(rows)],
            "file_loc": [None if i % 5 == 3 else f"{i}.jpg" for i in range(rows)],
            "ra": pa.array([None if i % 7 == 2 else i / 3 for i in range(rows)], pa.float64()),
            "name": pa.array([f"n{i % 4}" for i in range(rows)]).dictionary_encode(),
        }
    )


def _batches(table: pa.Table, size: int) -> Iterator[pa.RecordBatch]:
    # Each file has a dictionary of its own, as those of a folder of Parquet files do.
    for start in range(0, table.num_rows, size):
        batch = table.slice(start, size)
        name = batch["name"].cast(pa.string()).combine_chunks().dictionary_encode()
        yield from batch.set_column(3, "name", name).combine_chunks().to_batches()


@pytest.mark.parametrize(
    ("rows", "snippet_size", "batch"),
    [(1, 1, 1), (23, 5, 4), (20, 5, 20), (23, 1, 7), (23, 1000, 2), (130, 7, 64), (3, 3, 1)],
)
def test_rows_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, snippet_size: int, batch: int
) -> None:
    """A row group a snippet, a file a table part, whatever batches the catalogue comes in."""
    monkeypatch.setattr(plans, "TABLE_ROWS", 40)
    table, plan, output = _table(rows), _plan(rows, snippet_size), str(tmp_path / "out")
    plan_file.write(plan, output, _batches(table, batch), {})
    assert plan_file.read(output) == plan
    assert sum(len(plan.table_rows(part)) for part in range(plan.table_parts)) == rows
    for number in range(plan.snippets):
        snippet = plan.snippet(number)
        part = table.slice(snippet.start, snippet.stop - snippet.start)
        ids, locations = plan.read_rows(output, snippet)
        assert (ids, locations) == (part["id_str"].to_pylist(), part["file_loc"].to_pylist())
        carried = plan.read_carried(output, number)
        assert carried.to_pylist() == part.select(CARRIED).to_pylist()
    files = sorted(Path(plan.rows_folder(output)).iterdir())
    assert len(files) == plan.table_parts
    assert sum(pq.ParquetFile(file).num_row_groups for file in files) == plan.snippets
    parts = [plan.read_table_rows(output, part) for part in range(plan.table_parts)]
    assert [row for part in parts for row in part.to_pylist()] == table.to_pylist()
    assert parts[0].schema.field("ra").type == pa.float64()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["_plan"]


def test_the_catalogue_comes_back(tmp_path: Path) -> None:
    checks = RowChecks(9, True, False, "/images", 5, False)
    stamps, probes = (FileStamp("c.csv", 7, 123),), (KnownImage("0.jpg", "e" * 64),)
    catalogue = PlannedCatalogue("c.csv", stamps, checks, 9, "f", probes)
    plan, output = _plan(9, 5, catalogue=catalogue), str(tmp_path / "out")
    plan_file.write(plan, output, _batches(_table(9), 4), {})
    assert plan_file.read(output) == plan
    stored = json.loads((tmp_path / "out" / "_plan" / "plan.json").read_text())["catalogue"]
    assert stored["files"] == [["c.csv", 7, 123]] and stored["probes"] == [["0.jpg", "e" * 64]]
    assert stored["checked"]["image_root_given"] is True


def test_dictionaries_inside_of_lists_are_carried(tmp_path: Path) -> None:
    """Of several snippets: pyarrow's ParquetFile cannot read them, tables can; the audit finds nothing."""
    kind = pa.list_(pa.dictionary(pa.int32(), pa.string()))
    words = [[f"w{number % 3}", "w"] for number in range(20)]
    table = _table(20).select(["id_str", "file_loc"]).append_column("words", pa.array(words).cast(kind))
    digest = CarriedDigest(("words",), 5)
    for batch in table.to_batches():
        digest.add(batch)
    plan, output = _plan(20, 5, carried=("words",), carried_digest=digest.finish()), str(tmp_path / "out")
    plan_file.write(plan, output, iter(table.to_batches()), {})
    findings = Findings()
    plan_files.check_carried(plan, output, findings)
    assert not findings.lines
    assert plan.read_table_rows(output, 0)["words"].to_pylist() == words
    wrong = dataclasses.replace(plan, carried_digest="c" * 64)
    plan_files.check_carried(wrong, output, findings)
    assert len(findings.lines) == 1


def test_the_first_of_two_plans_stays(tmp_path: Path) -> None:
    """Two jobs that plan at once: one plan, whole, and nothing left of the other."""
    output, table = str(tmp_path / "out"), _table(50)
    jobs = [_plan(50, 10, seed=seed) for seed in range(4)]
    start = threading.Barrier(len(jobs))

    def write(plan: Plan) -> None:
        start.wait()
        plan_file.write(plan, output, _batches(table, 9), {})

    threads = [threading.Thread(target=write, args=(plan,)) for plan in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    there = plan_file.read(output)
    assert there in jobs
    plan_file.write(_plan(50, 10, seed=99), output, _batches(table, 9), {})
    assert plan_file.read(output) == there
    assert [path.name for path in Path(output).iterdir()] == ["_plan"]


def test_of_a_plan_that_comes_second_nothing_is_left(tmp_path: Path) -> None:
    """Neither rows, nor carried columns, nor checkpoints, but for what the first has too."""
    output, table = str(tmp_path / "out"), _table(20)
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(name.encode())
    paths = {name: f"_plan/members/{files.sha256(name.encode())[:16]}.ckpt" for name in "abc"}
    first = _plan(20, 5, members=tuple(_member(name, path=paths[name]) for name in "ab"))
    second = _plan(20, 10, members=tuple(_member(name, path=paths[name]) for name in "bc"))
    third = dataclasses.replace(first, seed=7, carried=("name",), carried_digest="d" * 64)

    def write(plan: Plan, meanwhile: Iterator[pa.RecordBatch]) -> None:
        staged = {member.path: str(tmp_path / member.name) for member in plan.members}
        plan_file.write(plan, output, meanwhile, staged)

    def others_first() -> Iterator[pa.RecordBatch]:
        write(first, _batches(table, 9))
        there.extend(sorted(path for path in tmp_path.rglob("*")))
        yield from _batches(table, 9)

    there: list[Path] = []
    write(second, others_first())
    assert plan_file.read(output) == first
    assert sorted(path for path in tmp_path.rglob("*")) == there
    write(third, _batches(table, 9))
    assert sorted(path for path in tmp_path.rglob("*")) == there
    assert first.read_table_rows(output, 0).to_pylist() == table.to_pylist()


def test_a_plan_that_fails_is_no_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that it has written are in nobody's way."""

    def broken() -> Iterator[pa.RecordBatch]:
        yield from _batches(_table(10), 5)
        raise UserError("the catalogue changed")

    monkeypatch.setattr(plans, "TABLE_ROWS", 5)
    output = str(tmp_path / "out")
    with pytest.raises(UserError):
        plan_file.write(_plan(20, 5), output, broken(), {})
    assert plan_file.read(output) is None
    outputs.check(output, overwrite=False)
    plan_file.write(_plan(10, 5), output, _batches(_table(10), 5), {})
    assert plan_file.read(output) == _plan(10, 5)


def test_staged_checkpoints_are_copied(tmp_path: Path) -> None:
    (tmp_path / "x.ckpt").write_bytes(b"weights")
    staged = {f"_plan/members/{NAME}": str(tmp_path / "x.ckpt")}
    plan_file.write(_plan(3, 3), str(tmp_path / "out"), _batches(_table(3), 3), staged)
    assert (tmp_path / "out" / "_plan" / "members" / NAME).read_bytes() == b"weights"


def test_other_carried_columns_build_only_their_own_files(tmp_path: Path) -> None:
    output, table = str(tmp_path / "out"), _table(12)
    old = _plan(12, 5)
    plan_file.write(old, output, _batches(table, 4), {})
    before = {path: path.stat().st_mtime_ns for path in Path(output, "_plan").rglob("*.parquet")}
    new = dataclasses.replace(old, carried=("name",), carried_digest="d" * 64)
    assert not plans.differences(old, new)
    plan_file.update(old, new, output, _batches(table, 4))
    after = {path: path.stat().st_mtime_ns for path in Path(output, "_plan").rglob("*.parquet")}
    assert {path: after[path] for path in before} == before
    assert len(after) == len(before) + 1
    there = plan_file.read(output)
    assert there == new
    assert there.read_table_rows(output, 0).to_pylist() == table.drop_columns(["ra"]).to_pylist()
    plan_file.update(new, old, output, _batches(table, 4))  # and back: nothing is built again
    assert len(list(Path(output, "_plan").rglob("*.parquet"))) == len(after)


def test_of_two_updates_of_one_plan_the_first_stays(tmp_path: Path) -> None:
    """Both jobs began with the same plan; the same update twice is one."""
    output, table = str(tmp_path / "out"), _table(12)
    old = _plan(12, 5)
    plan_file.write(old, output, _batches(table, 4), {})
    first, second = (dataclasses.replace(old, interval=interval) for interval in ("mixture", "other"))
    for _ in range(2):
        plan_file.update(old, first, output, None)
    with pytest.raises(UserError, match="another job has just changed the plan"):
        plan_file.update(old, second, output, None)
    assert plan_file.read(output) == first
    plan_file.update(first, second, output, None)
    assert plan_file.read(output) == second


def test_a_plan_that_is_gone_is_not_updated(tmp_path: Path) -> None:
    """Another job has begun to overwrite the output."""
    output = tmp_path / "out"
    old = _plan(12, 5)
    plan_file.write(old, str(output), _batches(_table(12), 4), {})
    (output / "_plan" / "plan.json").unlink()
    with pytest.raises(UserError, match="another job has just planned something else"):
        plan_file.update(old, dataclasses.replace(old, interval="mixture"), str(output), None)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 1}, "seed (0 there, 1 now)"),
        ({"passes": 3}, "passes (2 there, 3 now)"),
        ({"first_pass": 5}, "first_pass (0 there, 5 now)"),
        ({"precision": "bf16"}, "precision (fp32 there, bf16 now)"),
        ({"snippet_size": 7}, "snippet_size (5 there, 7 now)"),
        ({"command": "represent", "carried": ()}, "command (predict there, represent now)"),
        (
            {"catalogue": PlannedCatalogue("c.csv", (), None, None, "e")},
            "catalogue (its ids, image paths or rows)",
        ),
        ({"catalogue": PlannedCatalogue("c.csv", (), None, 9, "e")}, "limit (none there, 9 now)"),
        ({"members": (_member("b"),)}, "members (a is there only)"),
        ({"members": (_member(), _member("b"))}, "members (b is now only)"),
        ({"members": (_member(sha256="1"),)}, "sha256 of member a"),
        ({"members": (_member(view={"output_size": 128}),)}, "view of member a"),
        ({"members": (_member(dropout_rate=0.0),)}, "dropout_rate of member a"),
    ],
)
def test_differences_are_named(changes: dict[str, Any], words: str) -> None:
    old = _plan(10, 5)
    new = dataclasses.replace(old, **changes)
    assert words in plans.differences(old, new)
    assert new.fingerprint != old.fingerprint


def test_what_moves_no_number_is_no_difference() -> None:
    old = _plan(10, 5, members=(_member("a"), _member("b")))
    moved = (_member("a", path="/elsewhere.ckpt", checkpoint="b.ckpt", trust_checkpoint=True), _member("b"))
    stamps = (FileStamp("x", 1, 2),)
    catalogue = dataclasses.replace(old.catalogue, location="elsewhere.csv", files=stamps)
    new = dataclasses.replace(old, image_root="/x", carried=(), members=moved, catalogue=catalogue)
    assert plans.differences(old, new) == [] and new.fingerprint == old.fingerprint
    swapped = dataclasses.replace(old, members=old.members[::-1])
    assert plans.differences(old, swapped) == ["the order of the members"]


def test_damaged_plans_are_one_line(tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    assert plan_file.read(output) is None
    plan_file.write(_plan(3, 3), output, _batches(_table(3), 3), {})
    path = tmp_path / "out" / "_plan" / "plan.json"
    content = json.loads(path.read_text())
    newer_member = [{**content["members"][0], "colour": 1}]
    newer = "made by a newer version of this program \\(it has '{}'\\)"
    for text, words in (
        ("", "cannot read the plan"),
        ("{", "cannot read the plan"),
        (json.dumps({**content, "format": 999}), "another version"),
        (json.dumps({**content, "zoom": 2, "angle": 1}), newer.format("angle")),
        (json.dumps({**content, "members": newer_member}), newer.format("colour")),
        (json.dumps({**content, "catalogue": {**content["catalogue"], "x": 1}}), newer.format("x")),
        (json.dumps({**content, "catalogue": 7}), "is damaged"),
        (json.dumps({name: content[name] for name in content if name != "seed"}), "is damaged"),
        (json.dumps([content]), "is damaged"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=words):
            plan_file.read(output)


def test_clear_removes_what_is_ours_and_the_plan_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop half-way leaves an output that can still be cleared; folders and files of the user stay."""
    output = tmp_path / "out"
    plan_file.write(_plan(12, 5), str(output), _batches(_table(12), 4), {})
    for name in ("samples/part-0000001.parquet", "representations/a/part-0000001.parquet", "_retry/0000001"):
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).touch()
    theirs = ["notes.txt", "samples/mine.parquet", "friendly/part-1.csv", "_plan/read me"]
    for name in theirs:
        (output / name).parent.mkdir(exist_ok=True)
        (output / name).touch()
    (output / "empty").mkdir()
    removed = []
    unlink = outputs.os.unlink

    def watched(path: str) -> None:
        removed.append(path)
        unlink(path)

    monkeypatch.setattr(outputs.os, "unlink", watched)
    outputs.clear(str(output))
    assert removed[-1].endswith("_plan/plan.json")
    left = sorted(str(path.relative_to(output)) for path in output.rglob("*") if path.is_file())
    assert left == sorted(theirs)
    assert (output / "empty").is_dir() and not (output / "representations").exists()

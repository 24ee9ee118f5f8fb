"""The audit of an aggregate: healthy ones pass, and damage to them or to their sources is found."""

import json
import math
import shutil

import pandas as pd
import pyarrow.parquet as pq
import pytest

from beam_zoo.storage.layout import AGGREGATE_MARK
from pipelines import audit
from tests import galaxies
from tests.pipelines import audited as a
from tests.pipelines.unions import aggregate

pytestmark = pytest.mark.slow

SAMPLES = "samples/part-0000001.parquet"
FRIENDLY, ADVANCED, FAILURES = (
    f"{name}/part-000001.parquet" for name in ("friendly", "advanced", "failures")
)
ANSWER = "smooth-or-featured-dr8_smooth_fraction"
OPTIONS = ["--passes", 2, "--snippet_size", 4, "--max_failure_fraction", 0.5]
MOST = ("--max_failure_fraction", 0.5)


@pytest.fixture(scope="module")
def broken(few, tmp_path_factory):
    """The galaxies of `few`, by catalogue; 0004 is broken for good, 0009 is missing."""
    folder = tmp_path_factory.mktemp("broken") / "sky"
    shutil.copytree(few.parent, folder)
    (folder / "images" / "0004.jpg").write_bytes(b"no image")
    (folder / "images" / "0009.jpg").unlink()
    rows = pd.read_csv(folder / "catalogue.csv")
    rows["note"] = [None if i == 11 else f"note {i}" for i in range(len(rows))]
    rows["file_loc"] = [str(folder / location) for location in rows["file_loc"]]
    chosen = {"all": rows, "shuffled": rows.sample(frac=1, random_state=1), "half": rows[:12]}
    for name, table in chosen.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    return {name: folder / f"{name}.csv" for name in chosen}


@pytest.fixture(scope="module")
def member_a(runs, broken, trees):
    return runs(broken["all"], trees[0], *OPTIONS, "--carry", "ra", "note")


@pytest.fixture(scope="module")
def member_b(runs, broken, trees):
    """The other member, in another order and in snippets of another size."""
    return runs(broken["shuffled"], trees[1], *OPTIONS[:2], "--snippet_size", 5, *MOST)


@pytest.fixture(scope="module")
def half_b(runs, broken, trees):
    """The other member, of the first half."""
    return runs(broken["half"], trees[1], *OPTIONS)


@pytest.fixture(scope="module")
def shuffled(tmp_path_factory, member_a, member_b):
    return aggregate(tmp_path_factory.mktemp("shuffled") / "out", member_a, member_b, options=MOST).output


@pytest.fixture(scope="module")
def kept(tmp_path_factory, member_a, half_b):
    options = ("--incomplete", "keep", *MOST)
    return aggregate(tmp_path_factory.mktemp("kept") / "out", member_a, half_b, options=options).output


@pytest.fixture(scope="module")
def dropped(tmp_path_factory, member_a, half_b):
    options = ("--incomplete", "drop", "--max_failure_fraction", 0.9)
    return aggregate(tmp_path_factory.mktemp("dropped") / "out", member_a, half_b, options=options).output


def fit(output):
    """Make checksums, sizes, row numbers and counts in the manifest those of the tables."""
    content = json.loads((output / "manifest.json").read_text())
    (output / "manifest.json").write_text(json.dumps({**content, "parts": []}))
    a.fit(output)
    a.manifest(output, lambda m: m.pop("parts"))


@pytest.fixture
def moved(shuffled, tmp_path):
    """Folders of a copy of the aggregate and of its sources, which may be damaged."""
    output = a.copy(shuffled, tmp_path)
    sources = []

    def follow(manifest):
        for number, source in enumerate(manifest["sources"]):
            path = tmp_path / f"source-{number}"
            sources.append(shutil.copytree(source["path"], path))
            source["path"] = str(path)

    a.manifest(output, follow)
    return output, sources


def assert_found(found, file, said):
    code, lines = found
    assert code == 1
    assert any(line.startswith(f"{file}: ") and said in line for line in lines), lines


def test_healthy(shuffled, kept, dropped, moved, capfd):
    for output, said in {
        shuffled: "23 rows of 2 sources = 21 predicted + 2 failed; "
        "11 parts with 84 rows of samples and 8 files",
        kept: "23 rows of 2 sources = 21 predicted + 2 failed",
        dropped: "23 rows of 2 sources = 10 predicted + 13 failed",
        moved[0]: "23 rows of 2 sources = 21 predicted + 2 failed",
    }.items():
        code, lines = a.audited(output, capfd)
        assert code == 0 and len(lines) == 1 and said in lines[0], lines
    stages = pq.read_table(dropped / "failures").column("stage").to_pylist()
    assert stages.count("aggregate") == 11


def test_two_halves_and_a_report(runs, sky, trees, tmp_path, capfd):
    """Of a galaxy that is in both. What is found stays in the report's folder, and nothing else."""
    some = [runs(sky[name], trees[0], *OPTIONS) for name in ("first", "second")]
    output = aggregate(tmp_path / "out", *some).output
    code, lines = a.audited(output, capfd, "--report", str(tmp_path / "report"))
    assert code == 0 and "23 rows of 2 sources = 23 predicted + 0 failed" in lines[0], lines
    assert [path.name for path in (tmp_path / "report").iterdir()] == ["audit.jsonl"]


def swap(frame):
    return frame.iloc[[1, 0, *range(2, len(frame))]]


TABLES = {
    "a fraction": (lambda o: a.cell(o, FRIENDLY, 0, ANSWER, lambda x: x + 1e-4), FRIENDLY, f"{ANSWER} is"),
    "an advanced fraction": (
        lambda o: a.cell(o, ADVANCED, 2, ANSWER, lambda x: x - 1e-4),
        ADVANCED,
        f"{ANSWER} is",
    ),
    "a NaN": (lambda o: a.cell(o, ADVANCED, 2, ANSWER, math.nan), ADVANCED, "must be a number"),
    "rows swapped": (lambda o: a.change(o, FRIENDLY, swap), FRIENDLY, "not in the order of the plan"),
    "a row removed": (lambda o: a.change(o, ADVANCED, lambda f: f.iloc[1:]), ADVANCED, "is missing"),
    "a row twice": (
        lambda o: a.change(o, ADVANCED, lambda f: f.iloc[[0, *range(len(f))]]),
        ADVANCED,
        "is a duplicate",
    ),
    "a carried value": (lambda o: a.cell(o, FRIENDLY, 1, "note", "x"), FRIENDLY, "note is 'x'"),
    "a carried text for an empty one": (
        lambda o: a.cell(o, FRIENDLY, 2, "note", "x"),
        FRIENDLY,
        "'gal 0011': note is 'x' and should be ''",
    ),
    "a failure removed": (
        lambda o: a.change(o, FAILURES, lambda f: f.iloc[:0]),
        FAILURES,
        "'gal 0009' is missing",
    ),
    "a failure told otherwise": (
        lambda o: a.cell(o, FAILURES, 0, "stage", "inference"),
        FAILURES,
        "is not the failure in its part",
    ),
    "a column removed": (
        lambda o: a.write(o / FRIENDLY, pq.read_table(o / FRIENDLY).drop_columns(["ra"])),
        FRIENDLY,
        "has no column 'ra'",
    ),
    "a file of another part": (
        lambda o: shutil.copy(o / "advanced" / "part-000000.parquet", o / ADVANCED),
        ADVANCED,
        "is unknown to the plan of this part",
    ),
    "a file removed": (lambda o: (o / ADVANCED).unlink(), ADVANCED, "is missing"),
    "a file forgotten": (
        lambda o: ((o / FRIENDLY).unlink(), a.manifest(o, lambda m: m["tables"].pop(3))),
        FRIENDLY,
        "is missing",
    ),
    "a surplus file": (
        lambda o: shutil.copy(o / FRIENDLY, o / "friendly" / "part-000003.parquet"),
        "friendly",
        "part-000003.parquet does not belong there",
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_damage_to_tables(shuffled, tmp_path, capfd, name):
    """As it is, and with all checksums made to fit."""
    damage, file, said = TABLES[name]
    output = a.copy(shuffled, tmp_path)
    damage(output)
    if (output / file).is_file():
        assert_found(a.audited(output, capfd), file, "sha256: manifest.json says")
        fit(output)
    assert_found(a.audited(output, capfd), file, said)


def test_kept_galaxies(kept, tmp_path, capfd):
    """The row of a galaxy that lacks a member is held against the samples that it has."""
    output = a.copy(kept, tmp_path)
    a.cell(output, "friendly/part-000002.parquet", 3, ANSWER, lambda x: x - 1e-4)
    fit(output)
    assert_found(a.audited(output, capfd), "friendly/part-000002.parquet", "'gal 0019'")


def test_dropped_galaxies(dropped, tmp_path, capfd):
    """A galaxy less in the tables' failures, and the counts made to fit."""
    output, file = a.copy(dropped, tmp_path), "failures/part-000002.parquet"
    a.change(output, file, lambda frame: frame.iloc[1:])
    fit(output)
    a.manifest(output, lambda m: m.update(rows_failed=12, rows_in=22))
    found = a.audited(output, capfd)
    assert_found(found, file, "'gal 0016' is missing")
    assert_found(found, "manifest.json", "rows_in is 22, and its sources say 23")
    assert_found(found, "manifest.json", "rows_failed is 12, and 13 were found")


def source_of(number, **values):
    return lambda manifest: manifest["sources"][number].update(values)


def change_sum(manifest):
    manifest["sources"][1]["parts"][2]["sha256"] = 64 * "0"


MANIFEST = {
    "rows_predicted": (lambda m: m.update(rows_predicted=20), "rows_predicted is 20, and 21 were found"),
    "rows_failed": (lambda m: m.update(rows_failed=3), "rows_failed is 3, and 2 were found"),
    "both": (lambda m: m.update(rows_predicted=20, rows_failed=3), "rows_predicted is 20"),
    "rows_incomplete": (lambda m: m.update(rows_incomplete=1), "rows_incomplete is 1, and 0 were found"),
    "no count": (lambda m: m.pop("rows_failed"), "rows_failed is None"),
    "incomplete": (lambda m: m.update(incomplete="keep"), "tables_fingerprint is"),
    "carried": (lambda m: m.update(carried=["ra", "dec"]), "no run carries a column 'dec'"),
    "part size": (lambda m: m.update(rows_per_table_part=0), "rows_per_table_part is 0"),
    "a table": (lambda m: m["tables"].append({"name": "samples/x"}), "lists 'samples/x', which is no file"),
    "a source less": (lambda m: m["sources"].pop(), "members are ['a', 'b']"),
    "sources in another order": (lambda m: m["sources"].reverse(), "members are ['a', 'b']"),
    "no sources": (lambda m: m.update(sources=[]), "lists no sources"),
    "sources of another type": (lambda m: m.update(sources=3), "sources is 3"),
    "a source of another type": (lambda m: m.update(sources=["x"]), "source 1 is no mapping"),
    "no path": (source_of(1, path=None), "source 2: path is None"),
    "rows of a source": (source_of(1, rows=22), "source 2: rows is 22, and its plan says 23"),
    "members of a source": (source_of(0, members=["x"]), "source 1: members is ['x']"),
    "passes": (lambda m: m["members"][1].update(passes=[0]), "passes of member b is [0]"),
    "a checkpoint": (lambda m: m["members"][0].update(sha256="0"), "sha256 of member a is '0'"),
    "another's part": (source_of(0, parts=[{"name": "friendly/part-000000.parquet"}]), "source 1: lists"),
}


def test_damage_to_the_manifest(shuffled, tmp_path, capfd):
    for number, (edit, said) in enumerate(MANIFEST.values()):
        (tmp_path / f"{number}").mkdir()
        output = a.copy(shuffled, tmp_path / f"{number}")
        a.manifest(output, edit)
        assert_found(a.audited(output, capfd), "manifest.json", said)


def test_a_checksum_of_a_part(shuffled, member_b, tmp_path, capfd):
    output = a.copy(shuffled, tmp_path)
    a.manifest(output, change_sum)
    assert_found(a.audited(output, capfd), member_b / "samples/part-0000002.parquet", "sha256: manifest.json")


def flip(file):
    chunk = pq.read_metadata(file).row_group(0).column(5)
    data = bytearray(file.read_bytes())
    data[chunk.data_page_offset + chunk.total_compressed_size - 2] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("number", [0, 1])
def test_damage_to_parts(runs, broken, trees, moved, capfd, number):
    """Of a source that is read in place, and of one in another order."""
    output, sources = moved
    source = sources[number]
    file, data = source / SAMPLES, (source / SAMPLES).read_bytes()
    tables = "table part 0" if number == 0 else "manifest.json"
    unread = "cannot be held against its samples" if number == 0 else "its sources cannot be read together"

    file.unlink()
    a.cell(output, FRIENDLY, 0, ANSWER, lambda x: x + 1e-4)
    found = a.audited(output, capfd)
    assert_found(found, file, "is listed in manifest.json and not there")
    assert_found(found, tables, unread)
    assert_found(found, FRIENDLY, "sha256: manifest.json says")  # what can be said without samples is said
    assert not any("were found" in line for line in found[1])

    file.write_bytes(data)
    flip(file)
    assert_found(a.audited(output, capfd), file, "is damaged")

    name = ("all", "shuffled")[number]
    other = runs(
        broken[name], trees[number], "--passes", 2, "--snippet_size", 5 - (number == 0), *MOST, "--seed", 1
    )
    shutil.copy(other / SAMPLES, file)
    assert_found(a.audited(output, capfd), file, "belongs to another run")

    # A sample that differs in a good file: the checksum tells, and where it fits, the tables.
    file.write_bytes(data)
    column = ANSWER.removesuffix("_fraction")
    a.cell(source, SAMPLES, 0, column, lambda x: x * 0.9 + 1)
    found = a.audited(output, capfd)
    assert_found(found, file, "sha256: manifest.json says")
    assert any(line.startswith("advanced/") and f"{ANSWER} is" in line for line in found[1])


def test_an_added_part(runs, trees, tmp_path, capfd):
    """A source whose missing image came later: its aggregate is one of what was there before."""
    galaxies.simulated(tmp_path / "sky", 12)
    catalogue, image = tmp_path / "sky" / "catalogue.csv", tmp_path / "sky" / "images" / "0003.jpg"
    image.rename(tmp_path / "0003.jpg")
    a.run(a.predict.main, catalogue, trees[:1], tmp_path / "run", "--passes", 1)
    output = aggregate(tmp_path / "out", tmp_path / "run", options=MOST).output
    assert a.audited(output, capfd)[0] == 0
    (tmp_path / "0003.jpg").rename(image)
    a.run(a.predict.main, catalogue, trees[:1], tmp_path / "run", "--passes", 1)
    found = a.audited(output, capfd)
    assert_found(found, tmp_path / "run", "(1, first samples/part-0000000_1.parquet): build it anew")
    assert not any(line.startswith(("friendly", "failures", "table part")) for line in found[1])
    output = aggregate(tmp_path / "out", tmp_path / "run", options=("--overwrite",)).output
    assert a.audited(output, capfd)[0] == 0


def test_sources_that_are_not_what_they_were(moved, member_a, capfd):
    output, (first, second) = moved
    plan = json.loads((second / "_plan" / "plan.json").read_text())

    (second / "_plan" / "plan.json").write_text(json.dumps({**plan, "seed": 7}))
    assert_found(a.audited(output, capfd), second, "source 2 of manifest.json holds another run by now")

    (second / "_plan" / "plan.json").write_text("{")
    found = a.audited(output, capfd)
    assert found[0] == 1 and any(line.startswith(str(second)) for line in found[1])

    shutil.rmtree(second)
    a.change(output, ADVANCED, lambda frame: frame.iloc[1:])
    found = a.audited(output, capfd)
    assert_found(found, second, "source 2 of manifest.json is not there: it was moved or removed")
    assert_found(found, ADVANCED, "rows: manifest.json says")

    shutil.copytree(member_a, second)
    assert_found(a.audited(output, capfd), second, "holds another run by now")

    (rows,) = (first / "_plan").glob("rows-*")
    shutil.rmtree(rows)
    assert_found(a.audited(output, capfd), rows, "000000.parquet is missing")


def test_the_mark(shuffled, member_a, tmp_path, capfd):
    """A lost one does not matter; a run that has lost its plan is no aggregate."""
    output = a.copy(shuffled, tmp_path)
    (output / AGGREGATE_MARK).unlink()
    assert a.audited(output, capfd)[0] == 0
    run = shutil.copytree(member_a, tmp_path / "run")
    shutil.rmtree(run / "_plan")
    capfd.readouterr()
    assert audit.main([str(run)]) == 2
    assert "it has no plan and no sources" in capfd.readouterr().err


def test_manifests_that_are_no_manifest(shuffled, tmp_path, capfd):
    output = a.copy(shuffled, tmp_path)
    for text in ("{", "[]"):
        (output / "manifest.json").write_text(text)
        assert_found(a.audited(output, capfd), "manifest.json", "cannot be read")
    (output / "manifest.json").write_text("{}")
    assert_found(a.audited(output, capfd), "manifest.json", "sources is None")
    (output / "manifest.json").unlink()
    capfd.readouterr()
    assert audit.main([str(output)]) == 2
    assert "is not complete" in capfd.readouterr().err

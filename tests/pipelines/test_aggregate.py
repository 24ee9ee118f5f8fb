"""An aggregate of several runs is the one run that has all of their members, passes and galaxies."""

import hashlib
import shutil

import numpy as np
import pandas as pd
import pytest

from beam_zoo.plan import plan_file
from beam_zoo.samples import parts
from beam_zoo.tables.columns import TableColumns
from beam_zoo.union import reading, union
from beam_zoo.union.output_samples import open_samples
from beam_zoo.union.reading import unique_files
from tests import checkpoints, galaxies
from tests.pipelines.unions import OPTIONS, aggregate, assert_refused, assert_same

pytestmark = pytest.mark.slow


def test_a_member_added_later_in_another_order(whole, run_a, run_b, tmp_path):
    result = aggregate(tmp_path / "out", run_a, run_b)
    assert_same(result, whole)
    manifest = result.manifest
    assert manifest["command"] == "aggregate"
    assert [(m["name"], m["passes"]) for m in manifest["members"]] == [("a", [0, 1, 2]), ("b", [0, 1, 2])]
    assert [source["path"] for source in manifest["sources"]] == [str(run_a), str(run_b)]
    for source, output in zip(manifest["sources"], (run_a, run_b), strict=True):
        assert source["fingerprint"] == plan_file.read(str(output)).fingerprint
        assert {part["name"]: part["sha256"] for part in source["parts"]} == {
            f"samples/{p.name}": hashlib.sha256(p.read_bytes()).hexdigest()
            for p in (output / "samples").iterdir()
        }
    for table in manifest["tables"]:
        assert table["sha256"] == hashlib.sha256((result.output / table["name"]).read_bytes()).hexdigest()
    assert len(list((result.output / "friendly").iterdir())) == 3


def test_the_order_is_that_of_the_first_run(whole, run_a, run_b, sky, tmp_path):
    """The other way round: rows as run b has them, members b and a, columns dec and ra."""
    result = aggregate(tmp_path / "out", run_b, run_a)
    assert result.code == 0
    assert list(result.table("friendly")["id_str"]) == list(pd.read_csv(sky["shuffled"])["id_str"])
    for name in ("friendly", "advanced"):
        expected = pd.read_parquet(whole / name).set_index("id_str")
        got = result.table(name).set_index("id_str")
        assert list(got.columns[:2]) == ["dec", "ra"]
        pd.testing.assert_frame_equal(got.loc[expected.index, expected.columns], expected, rtol=0, atol=1e-6)


def test_more_passes(runs, sky, trees, run_a, tmp_path):
    """Passes 2 and then 0-1 of one member, in snippets of another size."""
    early = runs(sky["all"], trees[0], "--passes", 2, "--snippet_size", 7, "--carry", "ra")
    late = runs(sky["all"], trees[0], "--passes", 1, "--first_pass", 2, "--snippet_size", 40)
    for order, sources in enumerate(((early, late), (late, early))):
        assert_same(aggregate(tmp_path / f"{order}", *sources), run_a)


def test_three_runs_at_once(runs, sky, trees, whole, run_b, tmp_path):
    early = runs(sky["all"], trees[0], "--passes", 2, "--snippet_size", 7, "--carry", "ra")
    late = runs(sky["all"], trees[0], "--passes", 1, "--first_pass", 2, "--snippet_size", 40)
    assert_same(aggregate(tmp_path / "out", late, run_b, early), reordered(runs, sky, trees))


def reordered(runs, sky, trees):
    """The one run whose carried columns come as those three runs give them."""
    return runs(sky["all"], trees, *OPTIONS, "--carry", "dec", "ra")


def test_two_halves_of_a_catalogue(runs, sky, trees, whole, tmp_path, monkeypatch):
    """Read directly; the galaxy of both halves counts once."""
    monkeypatch.setattr(union, "PartitionWriter", lambda *_: pytest.fail("rows were reordered"))
    monkeypatch.setattr(reading, "PartitionWriter", lambda *_: pytest.fail("samples were reordered"))
    first = runs(sky["first"], trees, *OPTIONS, "--carry", "ra", "dec")
    second = runs(sky["second"], trees, "--passes", 3, "--snippet_size", 4, "--carry", "ra", "dec")
    result = aggregate(tmp_path / "out", first, second)
    assert_same(result, whole)
    assert sum(source["rows"] for source in result.manifest["sources"]) == 24


def test_appended_rows_of_a_run_in_another_order(runs, sky, trees, whole, tmp_path):
    """Rows that the first run has, and rows that it lacks, which follow in the order of the second."""
    first = runs(sky["first"], trees, *OPTIONS, "--carry", "ra", "dec")
    mixed = runs(sky["mixed"], trees, *OPTIONS, "--carry", "dec")
    result = aggregate(tmp_path / "out", first, mixed)
    ids = list(pd.read_csv(sky["first"])["id_str"])
    ids += [name for name in pd.read_csv(sky["mixed"])["id_str"] if name not in ids]
    friendly = result.table("friendly")
    assert list(friendly["id_str"]) == ids
    expected = pd.read_parquet(whole / "friendly").set_index("id_str").loc[ids].reset_index()
    expected.loc[12:, "ra"] = np.nan  # no run that has these galaxies carries it
    pd.testing.assert_frame_equal(friendly, expected, rtol=0, atol=1e-6)


def test_carry_names_a_subset(whole, run_a, run_b, tmp_path):
    assert_same(aggregate(tmp_path / "dec", run_a, run_b, options=("--carry", "dec")), whole, drop=("ra",))
    none = aggregate(tmp_path / "none", run_a, run_b, options=("--carry",))
    assert_same(none, whole, drop=("ra", "dec"))
    refused = aggregate(tmp_path / "wrong", run_a, run_b, options=("--carry", "deg"))
    assert_refused(refused, "no run carries a column 'deg'", "did you mean 'dec'?")


def test_carried_types_must_agree(runs, sky, trees, run_a, tmp_path):
    rows = pd.read_csv(sky["first"], dtype=str)
    rows["ra"] = "unknown"
    rows.to_csv(tmp_path / "text.csv", index=False)
    text = runs(tmp_path / "text.csv", trees[0], *OPTIONS, "--carry", "ra")
    assert_refused(aggregate(tmp_path / "out", run_a, text), "'ra' is of type double", "string", "--carry")
    assert aggregate(tmp_path / "out", run_a, text, options=("--carry",)).code == 0


@pytest.mark.parametrize("kind", ["classifier", "regressor"])
def test_other_kinds(runs, few, tmp_path, kind):
    name, settings = {
        "classifier": ("FinetuneableZoobotClassifier", {"num_classes": 3}),
        "regressor": ("FinetuneableZoobotRegressor", {}),
    }[kind]
    saved = checkpoints.finetuned(name, tmp_path / "m.ckpt", **settings)
    more = {"class_names": ["x", "y", "z"]} if kind == "classifier" else {"value_name": "size"}
    model = checkpoints.member(
        tmp_path / "m.yaml", saved, zoobot_class=name, test_time_dropout=True, encoder="test_resnet", **more
    )
    some = ["--limit", 11, "--snippet_size", 4]
    one = runs(few, model, *some, "--passes", 3)
    halves = [runs(few, model, *some, "--passes", n, "--first_pass", f) for n, f in ((1, 0), (2, 1))]
    assert_same(aggregate(tmp_path / "out", *halves), one)


@pytest.fixture(scope="module")
def broken(few, tmp_path_factory):
    """The catalogue of `few` with one broken and one missing image, beside images that are whole."""
    folder = tmp_path_factory.mktemp("broken") / "sky"
    shutil.copytree(few.parent, folder)
    (folder / "images" / "0004.jpg").write_bytes(b"no image")
    (folder / "images" / "0017.jpg").unlink()
    return folder / "catalogue.csv"


def test_failures(runs, few, broken, trees, tmp_path):
    """Failures of one run are failures of the aggregate, and predicted where another run has it all."""
    some = [*OPTIONS, "--max_failure_fraction", 0.5]
    one = runs(broken, trees, *some)
    a, b = (runs(broken, tree, *some) for tree in trees)
    healthy_a, healthy_b = (runs(few, tree, "--passes", 3, "--snippet_size", 6) for tree in trees)
    most = ("--max_failure_fraction", 0.5)
    assert_same(aggregate(tmp_path / "both", a, b, options=most), one)
    assert_same(aggregate(tmp_path / "one", healthy_b, a, options=most), one)
    assert_same(aggregate(tmp_path / "healed", a, healthy_a, healthy_b), runs(few, trees, *OPTIONS))
    kept = aggregate(tmp_path / "kept", a, healthy_b, options=("--incomplete", "keep"))
    assert kept.code == 0 and kept.manifest["rows_incomplete"] == 2
    expected = pd.read_parquet(healthy_b / "advanced").set_index("id_str")
    for name in ("gal 0004", "gal 0017"):
        got = kept.table("advanced").set_index("id_str").loc[name]
        pd.testing.assert_series_equal(got, expected.loc[name], rtol=0, atol=1e-6)
    many = aggregate(tmp_path / "many", a, b)
    assert many.code == 3 and "2 of 23 galaxies failed" in many.err
    assert (many.output / "manifest.json").exists()


def test_incomplete_galaxies(runs, sky, trees, whole, run_a, tmp_path):
    """Member b of the first half only."""
    half = runs(sky["first"], trees[1], *OPTIONS)
    refused = aggregate(tmp_path / "out", run_a, half)
    assert_refused(refused, "11 of 23 galaxies", "'gal 0012'", "--incomplete drop", "--incomplete keep")

    dropped = aggregate(
        tmp_path / "out", run_a, half, options=("--incomplete", "drop", "--max_failure_fraction", 0.5)
    )
    assert dropped.code == 0, dropped.err
    failures = dropped.table("failures")
    assert list(failures["id_str"]) == [f"gal {n:04d}" for n in range(12, 23)]
    assert set(failures["stage"]) == {"aggregate"} and not failures["may_pass"].any()
    assert set(failures["error"]) == {"no samples of b passes 0-2"}
    expected = pd.read_parquet(whole / "friendly").drop(columns="dec")
    pd.testing.assert_frame_equal(dropped.table("friendly"), expected[:12], rtol=0, atol=1e-6)

    kept = aggregate(tmp_path / "kept", run_a, half, options=("--incomplete", "keep"))
    assert kept.manifest["rows_incomplete"] == 11
    alone = pd.read_parquet(run_a / "friendly")
    expected = pd.concat([expected[:12], alone[12:]])
    pd.testing.assert_frame_equal(kept.table("friendly"), expected, rtol=0, atol=1e-6)


def test_a_failure_explains_what_is_missing(runs, few, broken, trees, tmp_path, monkeypatch):
    """A galaxy that failed in the first run and is not in the second is no reason to refuse."""
    rows = pd.read_csv(few)
    rows = rows[~rows["id_str"].isin(["gal 0004", "gal 0017"])]
    rows["file_loc"] = [str(few.parent / location) for location in rows["file_loc"]]
    rows.to_csv(tmp_path / "without.csv", index=False)
    some = [*OPTIONS, "--max_failure_fraction", 0.5]
    a = runs(broken, trees[0], *some)
    b = runs(tmp_path / "without.csv", trees[1], *some)
    result = aggregate(tmp_path / "out", a, b, options=("--max_failure_fraction", 0.5))
    assert_same(result, runs(broken, trees, *some))
    shorter = runs(tmp_path / "without.csv", trees[1], *some, "--limit", 20)
    monkeypatch.setattr(parts, "read_part", lambda *_: pytest.fail("read to the end before it is refused"))
    assert_refused(aggregate(tmp_path / "no", a, shorter), "1 of 23 galaxies", "'gal 0022'")


def test_one_graph_as_clusters_run_it(whole, run_a, run_b, cluster, tmp_path, monkeypatch):
    """All parts at once, in any order: no samples are reordered."""
    monkeypatch.setattr(reading, "PartitionWriter", lambda *_: pytest.fail("samples were reordered"))
    assert_same(aggregate(tmp_path / "out", run_a, run_b), whole)


def test_galaxies_tried_again(predict, trees, run_a, tmp_path):
    """A source whose missing image came later: its added part counts."""
    galaxies.simulated(tmp_path / "sky", 12)
    catalogue, image = tmp_path / "sky" / "catalogue.csv", tmp_path / "sky" / "images" / "0003.jpg"
    image.rename(tmp_path / "0003.jpg")
    options = [*OPTIONS, "--max_failure_fraction", 0.5]
    first = predict(catalogue, trees[0], *options)
    second = predict(catalogue, trees[1], *options)
    (tmp_path / "0003.jpg").rename(image)
    assert list(aggregate(tmp_path / "1", first.output, second.output).table("failures")["id_str"]) == [
        "gal 0003"
    ]
    for result, tree in ((first, trees[0]), (second, trees[1])):
        assert predict(catalogue, tree, *options, output=result.output).code == 0
    assert_same(
        aggregate(tmp_path / "2", first.output, second.output), predict(catalogue, trees, *OPTIONS).output
    )


def test_what_an_audit_reads(run_a, run_b, sky, tmp_path):
    """The samples of each table part give what the tables hold, from the parts that the manifest names."""
    result = aggregate(tmp_path / "out", run_a, run_b)
    (tmp_path / "work").mkdir()
    opened = open_samples(str(result.output), str(tmp_path / "work"))
    runs = opened.union
    friendly = result.table("friendly")
    files = list(opened.files_read)
    for number in range(runs.table_parts):
        part, rows = opened.read_table_part(number), runs.table_rows(number)
        expected = friendly.iloc[rows.start : rows.stop]
        assert part.rows.column("id_str").to_pylist() == list(expected["id_str"])
        assert part.rows.column("ra").to_pylist() == list(expected["ra"])
        (some,) = part.galaxies
        assert [friendly["id_str"][row] for row in some.rows] == some.ids
        columns = TableColumns(runs)
        numbers = columns.compute(some.samples)[0][np.argsort(some.rows)]
        np.testing.assert_array_equal(numbers, expected[columns.friendly])
        assert part.failures == []
        files += part.files
    read = [(file["source"], file["name"], file["sha256"]) for file in unique_files(files)]
    sources = result.manifest["sources"]
    assert read == [(n, p["name"], p["sha256"]) for n, s in enumerate(sources) for p in s["parts"]]
    assert [source.reordered is None for source in runs.sources] == [True, False]

"""Every command still reads, and goes on with, outputs of earlier versions."""

import json
import tarfile
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from examples.demo import MEMBERS
from pipelines import aggregate, audit, export, finish
from tests.fixtures.make_outputs import ABSENT, ROOT, SETTINGS

ARCHIVES = sorted((Path(__file__).parents[1] / "fixtures").glob("outputs-*.tar.xz"))
MODELS = [MEMBERS / "demo_a.yaml", MEMBERS / "demo_b.yaml"]
TABLES = ("friendly", "advanced", "failures")
FAILURES = ["--max_failure_fraction", "0.5"]


@pytest.fixture(params=ARCHIVES, ids=lambda path: path.name)
def earlier(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder with the outputs of an earlier version, see `tests.fixtures.make_outputs`."""
    with tarfile.open(request.param) as packed:
        packed.extractall(tmp_path / "earlier", filter="data")
    # An aggregate's sources are read where its manifest says that they are; all else may be moved.
    path = tmp_path / "earlier" / "aggregated" / "manifest.json"
    manifest = json.loads(path.read_text())
    for source in manifest["sources"]:
        source["path"] = source["path"].replace(str(ROOT), str(tmp_path / "earlier"))
    path.write_text(json.dumps(manifest))
    return tmp_path / "earlier"


def test_there_are_outputs_of_an_earlier_version():
    assert [path.name for path in ARCHIVES] == ["outputs-0.1.0.tar.xz"]


def contents(output: Path, *folders: str) -> dict[str, bytes]:
    """Bytes of all files in these folders of an output, by path."""
    files = [path for folder in folders for path in (output / folder).rglob("*.parquet")]
    assert files
    return {str(path.relative_to(output)): path.read_bytes() for path in files}


def tables(output: Path) -> dict[str, pd.DataFrame]:
    """The output's tables by name."""
    return {name: pd.read_parquet(output / name) for name in TABLES}


def assert_same_tables(actual: dict[str, pd.DataFrame], expected: dict[str, pd.DataFrame]) -> None:
    """Same columns, dtypes, rows and order; numbers to a few units in the last place."""
    for name in TABLES:
        pd.testing.assert_frame_equal(actual[name], expected[name], rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ["predicted", "represented", "aggregated"])
def test_audit(earlier, name, capfd):
    assert audit.main([str(earlier / name)]) == 0, capfd.readouterr()


@pytest.mark.parametrize("command", ["predict", "represent"])
def test_the_same_command_finds_nothing_to_do(earlier, request, command):
    """The image of one galaxy is still absent: it is tried again, and everything stays as it is."""
    output = earlier / ("predicted" if command == "predict" else "represented")
    folders = ("samples", *TABLES) if command == "predict" else ("representations", "failures")
    before = contents(output, *folders)
    options = ["--passes", 2] if command == "predict" else []
    run = request.getfixturevalue(command)
    result = run(earlier / "sky" / "catalogue.csv", MODELS, *options, *SETTINGS, output=output)
    assert result.code == 0, result.err
    assert "0 to do, 3 already stored" in result.err
    assert "10 of 12 galaxies predicted (10 of them before), 2 failed" in result.err
    assert contents(output, *folders) == before


def test_predict_fills_in_what_is_absent(earlier, predict):
    """A part of samples that was lost, and a galaxy whose image has come: the other numbers stay."""
    output = earlier / "predicted"
    before, samples = tables(output), pd.read_parquet(output / "samples")
    (output / "samples" / "part-0000001.parquet").unlink()
    (earlier / "later" / ABSENT).rename(earlier / "sky" / "images" / ABSENT)
    result = predict(earlier / "sky" / "catalogue.csv", MODELS, "--passes", 2, *SETTINGS, output=output)
    assert result.code == 0, result.err
    assert "11 of 12 galaxies predicted (7 of them before), 1 failed" in result.err
    galaxy = Path(ABSENT).stem
    after = result.table("samples")
    assert set(after["id_str"]) == {*samples["id_str"], galaxy}
    keys = ["id_str", "member", "pass"]
    old = after[after["id_str"] != galaxy].sort_values(keys, ignore_index=True)
    pd.testing.assert_frame_equal(old, samples.sort_values(keys, ignore_index=True), rtol=1e-4)
    advanced = result.table("advanced")
    pd.testing.assert_frame_equal(
        advanced[advanced["id_str"] != galaxy].reset_index(drop=True), before["advanced"], rtol=1e-4
    )
    assert list(result.table("failures")["id_str"]) == ["sim-000004"]
    assert audit.main([str(output)]) == 0


def test_represent_predicts_a_lost_part_again(earlier, represent):
    output, name = earlier / "represented", "representations/demo_b"
    before = pd.read_parquet(output / name)
    (output / name / "part-0000001.parquet").unlink()
    result = represent(earlier / "sky" / "catalogue.csv", MODELS, *SETTINGS, output=output)
    assert result.code == 0, result.err
    after = result.table(name)
    assert list(after["id_str"]) == list(before["id_str"])
    pd.testing.assert_frame_equal(after[["ra", "dec"]], before[["ra", "dec"]])
    np.testing.assert_allclose(np.stack(after["feature"]), np.stack(before["feature"]), rtol=1e-4, atol=1e-5)


def test_finish_keeps_the_tables_that_are_there(earlier):
    output = earlier / "predicted"
    before = contents(output, *TABLES)
    assert finish.main([str(output), *FAILURES]) == 0
    assert contents(output, *TABLES) == before


def test_finish_builds_lost_tables_again(earlier):
    """One part of each table."""
    output = earlier / "predicted"
    before = tables(output)
    (output / "_tables" / "part-000001.json").unlink()
    for name in TABLES:
        (output / name / "part-000001.parquet").unlink()
    assert finish.main([str(output), *FAILURES]) == 0
    assert_same_tables(tables(output), before)


def test_aggregate(earlier, tmp_path):
    """The same runs give the same tables, also in place of the earlier ones."""
    sources = ["--samples", *(str(earlier / name) for name in ("predicted", "more")), *FAILURES]
    new, old = tmp_path / "new", earlier / "aggregated"
    expected = tables(old)
    assert aggregate.main([*sources, "--output", str(new)]) == 0
    assert_same_tables(tables(new), expected)
    assert aggregate.main([*sources, "--output", str(old), "--overwrite"]) == 0
    assert_same_tables(tables(old), expected)


def test_export(earlier, tmp_path):
    new = tmp_path / "new.hdf5"
    assert export.main([str(earlier / "aggregated"), "--hdf5", str(new)]) == 0
    with h5py.File(new) as actual, h5py.File(earlier / "exported.hdf5") as expected:
        assert list(actual) == list(expected)
        for name in expected:
            np.testing.assert_array_equal(actual[name][()], expected[name][()])
            assert dict(actual[name].attrs) == dict(expected[name].attrs)

"""Predicted runs that several modules of tests put together in their own way."""

import apache_beam as beam
import pandas as pd
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from beam_zoo.plan import plan as plans
from runners import beam_options
from runners.flink import submission
from tests.pipelines.unions import OPTIONS, Runs


@pytest.fixture(scope="module")
def small_table_parts():
    """Table parts of 8 rows: all that is done table part by table part is done several times."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plans, "TABLE_ROWS", 8)
        yield


@pytest.fixture
def cluster(monkeypatch) -> None:
    """From now on another runner, as far as this program knows; its graphs run in this process."""

    def run(build, flags):
        pipeline = beam.Pipeline(runner=FnApiRunner())
        build(pipeline)
        pipeline.run().wait_until_finish()

    monkeypatch.setattr(submission, "check", lambda flags: None)
    monkeypatch.setattr(submission, "run", run)
    monkeypatch.setattr(beam_options, "runner_name", lambda flags: beam_options.FLINK)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, small_table_parts) -> Runs:
    """Predicted runs with such table parts; a module that asks for them builds its aggregates alike."""
    return Runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def sky(few, tmp_path_factory):
    """Other catalogues of the galaxies of `few`, by name; their images are absolute paths."""
    folder = tmp_path_factory.mktemp("sky")
    rows = pd.read_csv(few)
    rows["file_loc"] = [str(few.parent / location) for location in rows["file_loc"]]
    chosen = {
        "all": rows,
        "shuffled": rows.sample(frac=1, random_state=1),
        "first": rows[:12],
        "second": rows[11:],  # one galaxy is in both halves
        "last": rows[20:],
        "mixed": rows[9:].sample(frac=1, random_state=2),
    }
    for name, table in chosen.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    return {name: folder / f"{name}.csv" for name in chosen}


@pytest.fixture(scope="module")
def whole(runs, sky, trees):
    """The one run with all members and galaxies."""
    return runs(sky["all"], trees, *OPTIONS, "--carry", "ra", "dec")


@pytest.fixture(scope="module")
def run_a(runs, sky, trees):
    """Member a alone."""
    return runs(sky["all"], trees[0], *OPTIONS, "--carry", "ra")


@pytest.fixture(scope="module")
def run_b(runs, sky, trees):
    """Member b, in another order and other snippets."""
    return runs(sky["shuffled"], trees[1], "--passes", 3, "--snippet_size", 4, "--carry", "dec", "ra")

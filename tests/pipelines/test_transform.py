"""`beam_zoo.Predict` in other people's pipelines: the numbers of the command, windows, failures, streams."""

from pathlib import Path
from typing import ClassVar

import apache_beam as beam
import numpy as np
import pandas as pd
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.test_stream import TestStream
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import FixedWindows, SlidingWindows, TimestampedValue
from apache_beam.utils.timestamp import Timestamp

import beam_zoo
from beam_zoo.inference.load_rows import LoadRows
from tests import checkpoints, oracle

RUNNER = "FnApiRunner"
AT = "at" >> beam.Map(lambda row: TimestampedValue(row, row["at"]))


@pytest.fixture
def rows(few):
    """The catalogue's rows, with paths that mean the same anywhere."""
    table = pd.read_csv(few, dtype={"id_str": str, "file_loc": str})
    table["file_loc"] = [str(few.parent / location) for location in table["file_loc"]]
    return table.to_dict("records")


@pytest.fixture
def random_view(tmp_path):
    """A member with views and dropout of its own in every pass."""
    path = checkpoints.tree(tmp_path / "r.ckpt", seed=4)
    return checkpoints.member(tmp_path / "r.yaml", path, view={"base": "default", "output_size": 64})


class Collected(list):
    """The elements of a PCollection, with their windows and timestamps."""

    found: ClassVar[list[list[tuple]]] = []

    def __init__(self):
        super().__init__()
        self._number = len(Collected.found)
        Collected.found.append(self)

    def add(self, element, window=beam.DoFn.WindowParam, timestamp=beam.DoFn.TimestampParam):
        Collected.found[self._number].append((element, window, timestamp))

    def __reduce__(self):
        return _same, (self._number,)

    def table(self, leave_out=()):
        """The dictionaries as a table, in the order of their ids."""
        frame = pd.DataFrame([element for element, _, _ in self]).drop(columns=list(leave_out))
        return frame.sort_values("id_str", ignore_index=True)


def _same(number):
    return Collected.found[number]


def run(rows, transform, *before):
    """What the transform gives: predictions and failures."""
    predictions, failures = Collected(), Collected()
    with beam.Pipeline(RUNNER) as pipeline:
        given = pipeline | beam.Create(rows, reshuffle=False)
        for step in before:
            given = given | step
        found = given | transform
        found.predictions | "collect" >> beam.Map(predictions.add)
        found.failures | "collect failures" >> beam.Map(failures.add)
    return predictions, failures


def expected(result, table="advanced"):
    """A table of the command, in the order of its ids."""
    return result.table(table).sort_values("id_str", ignore_index=True)


def assert_same(found, wanted):
    assert list(found.columns) == list(wanted.columns)
    assert list(found["id_str"]) == list(wanted["id_str"])
    numbers = [name for name in wanted.columns if name != "id_str"]
    np.testing.assert_allclose(found[numbers].astype(float), wanted[numbers].astype(float), rtol=1e-4)


def test_the_numbers_are_those_of_the_command(predict, few, rows, trees, random_view):
    models = [*trees, random_view]
    settings = {"passes": 3, "seed": 5, "first_pass": 2, "carry": ["ra", "dec"]}
    words = ["--passes", 3, "--seed", 5, "--first_pass", 2, "--carry", "ra", "dec"]
    result = predict(few, models, *words, "--batch_size", 7)
    predictions, failures = run(rows, beam_zoo.Predict(models, samples=True, batch_size=5, **settings))
    assert not failures
    assert_same(predictions.table(["samples"]), expected(result))
    samples = [
        {"id_str": found["id_str"], **sample} for found, _, _ in predictions for sample in found["samples"]
    ]
    assert list(samples[0]) == list(result.table("samples").columns)
    oracle.assert_same_samples(pd.DataFrame(samples), result.table("samples"))


@pytest.mark.parametrize("interval", ["median", "mixture"])
def test_the_interval(predict, few, rows, trees, interval):
    result = predict(few, trees, "--passes", 2, "--interval", interval)
    predictions, _ = run(rows, beam_zoo.Predict(trees, passes=2, interval=interval))
    assert_same(predictions.table(), expected(result))


def test_a_classifier_in_fast_views(predict, few, rows, tmp_path):
    path = checkpoints.finetuned("FinetuneableZoobotClassifier", tmp_path / "c.ckpt", num_classes=3)
    settings = {"class_names": ["a", "b", "c"], "zoobot_class": "FinetuneableZoobotClassifier"}
    member = checkpoints.member(tmp_path / "c.yaml", path, encoder=checkpoints.ARCHITECTURE, **settings)
    result = predict(few, member, "--passes", 1, "--fast_views")
    predictions, _ = run(rows, beam_zoo.Predict([member], passes=1, fast_views=True))
    assert_same(predictions.table(), expected(result))


def test_bytes_instead_of_files(rows, trees, tmp_path):
    from_files, _ = run(rows, beam_zoo.Predict(trees, passes=2))
    contents = [{"id_str": row["id_str"], "image": Path(row["file_loc"]).read_bytes()} for row in rows]
    from_bytes, failures = run(contents, beam_zoo.Predict(trees, passes=2))
    assert not failures
    assert_same(from_bytes.table(), from_files.table())


def test_what_cannot_be_predicted_is_a_failure(rows, trees, tmp_path, few):
    (tmp_path / "page.jpg").write_text("<html>")
    root = str(few.parent)
    inside = rows[0]["file_loc"].removeprefix(f"{root}/")
    bad = [
        ({"id_str": "page", "file_loc": str(tmp_path / "page.jpg")}, "outside", False),
        ({"id_str": "climbing", "file_loc": "../page.jpg"}, "outside", False),
        ({"id_str": "gone", "file_loc": "gone.jpg"}, "cannot read", True),
        ({"id_str": "cut", "image": b"\xff\xd8\xff"}, "image", False),
        ({"id_str": "text", "image": "text"}, "image must be bytes", False),
        ({"id_str": "nothing"}, "neither file_loc nor image", False),
        ({"id_str": 7, "file_loc": inside}, "id_str must be text, not 7", False),
        ({"file_loc": inside}, "id_str must be text, not None", False),
    ]
    good = {"id_str": "good", "file_loc": inside}
    transform = beam_zoo.Predict(trees, passes=1, image_root=root)
    predictions, failures = run([good, *(row for row, _, _ in bad)], transform)
    assert [found["id_str"] for found, _, _ in predictions] == ["good"]
    by_id = {str(found["id_str"]): found for found, _, _ in failures}
    assert len(failures) == len(by_id) == len(bad)
    for row, reason, may_pass in bad:
        found = by_id[str(row.get("id_str"))]
        assert list(found) == ["id_str", "file_loc", "stage", "error", "may_pass"]
        assert reason in found["error"] and found["may_pass"] == may_pass, found
        assert found["file_loc"] == row.get("file_loc")


def test_what_is_carried_must_be_there(rows, trees):
    row = {name: value for name, value in rows[1].items() if name != "ra"}
    predictions, failures = run([rows[0], row], beam_zoo.Predict(trees, passes=1, carry=["ra", "dec"]))
    assert [found["ra"] for found, _, _ in predictions] == [rows[0]["ra"]]
    [(failure, _, _)] = failures
    assert failure["error"] == "the row has no 'ra'" and failure["dec"] == row["dec"]


def test_few_rows_wait_where_there_are_many_windows(rows, trees, monkeypatch):
    """In a bundle of 23 windows at most four batches' worth of rows wait, and each is predicted once."""
    waiting = []
    start = LoadRows._start

    def noted(step, window):
        waiting.append(sum(map(len, step._waiting.values())))
        return start(step, window)

    monkeypatch.setattr(LoadRows, "_start", noted)
    timed = [{**row, "at": 10 * number} for number, row in enumerate(rows)]
    transform = beam_zoo.Predict(trees[:1], passes=1, batch_size=2)
    predictions, _ = run(timed, transform, AT, beam.WindowInto(FixedWindows(10)))
    starts = {found["id_str"]: int(window.start) for found, window, _ in predictions}
    assert len(predictions) == len(rows) and starts == {row["id_str"]: row["at"] for row in timed}
    assert max(waiting) == 4 * 2


def test_paths_without_an_image_root(rows, trees, few):
    relative = {"id_str": "relative", "file_loc": "images/0.jpg"}
    predictions, failures = run([rows[0], relative], beam_zoo.Predict(trees, passes=1))
    assert len(predictions) == 1 and "give image_root" in failures[0][0]["error"]
    outside = {"id_str": "outside", "file_loc": rows[0]["file_loc"]}
    allowed = beam_zoo.Predict(trees, passes=1, image_root=str(few.parent / "nowhere"), allow_outside=True)
    predictions, failures = run([outside], allowed)
    assert len(predictions) == 1 and not failures


def test_galaxies_keep_their_windows_and_timestamps(rows, trees):
    """Two windows in one bundle, filled in turns, and batches of three."""
    timed = [{**row, "at": number} for number, row in enumerate(rows)]
    timed.append({"id_str": "bad", "at": 21})
    transform = beam_zoo.Predict(trees, passes=1, batch_size=3, carry=["at"])
    predictions, failures = run(timed, transform, AT, beam.WindowInto(FixedWindows(10)))
    assert len(predictions) == len(rows)
    for found, window, timestamp in predictions:
        assert timestamp == Timestamp(found["at"])
        assert window.start == found["at"] // 10 * 10 and window.end == window.start + 10
    [(found, window, timestamp)] = failures
    assert found["id_str"] == "bad" and timestamp == Timestamp(21) and window.start == 20


def test_sliding_windows(rows, trees):
    timed = [{**row, "at": 7} for row in rows[:4]]
    predictions, _ = run(timed, beam_zoo.Predict(trees, passes=1), AT, beam.WindowInto(SlidingWindows(10, 5)))
    starts = sorted((found["id_str"], int(window.start)) for found, window, _ in predictions)
    assert starts == sorted((row["id_str"], start) for row in rows[:4] for start in (0, 5))


def test_an_unbounded_collection(rows, trees):
    """Rows that arrive before the watermark passes their window count there, before the stream ends."""
    stream = TestStream()
    for number, row in enumerate(rows[:6]):
        at = number * 5
        stream = stream.add_elements([TimestampedValue(row, at)]).advance_watermark_to(at + 1)
    stream = stream.advance_watermark_to_infinity()
    with TestPipeline(options=beam.options.pipeline_options.PipelineOptions(["--streaming"])) as pipeline:
        given = pipeline | stream | beam.WindowInto(FixedWindows(10))
        found = given | beam_zoo.Predict(trees, passes=1)
        counts = (
            found.predictions
            | beam.Map(lambda galaxy: ("all", galaxy["id_str"]))
            | beam.GroupByKey()
            | beam.MapTuple(lambda _, ids: sorted(ids))
        )
        wanted = [sorted(row["id_str"] for row in rows[start : start + 2]) for start in (0, 2, 4)]
        assert_that(counts, equal_to(wanted))


def test_refusals(trees, tmp_path):
    with pytest.raises(beam_zoo.UserError, match=r"no option 'pases' \(did you mean 'passes'"):
        beam_zoo.Predict(trees, pases=3)
    with pytest.raises(beam_zoo.UserError, match="at least 1"):
        beam_zoo.Predict(trees, passes=0)
    with pytest.raises(beam_zoo.UserError, match="models is empty"):
        beam_zoo.Predict([])
    with pytest.raises(beam_zoo.UserError, match="two members are named"):
        beam_zoo.Predict([trees[0], trees[0]])
    with pytest.raises(beam_zoo.UserError, match="a column of that name"):
        beam_zoo.Predict(trees, carry=["smooth-or-featured-dr8_smooth_fraction"])
    with pytest.raises(beam_zoo.UserError, match="'samples' is a column"):
        beam_zoo.Predict(trees, carry=["samples"], samples=True)
    with pytest.raises(beam_zoo.UserError, match="there is no"):
        beam_zoo.Predict(tmp_path / "nowhere.yaml")

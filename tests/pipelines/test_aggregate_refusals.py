"""What `aggregate` refuses, and that nothing is published before all is well."""

import json
import os
import shutil

import pytest

from pipelines import aggregate_manifest, aggregate_output
from tests import checkpoints, oracle
from tests.pipelines.unions import OPTIONS, aggregate, assert_refused, assert_same


def test_contradictions_are_refused(runs, sky, trees, run_a, tmp_path):
    """Another seed gives other values of the same passes; the same values under another order count once."""
    other = runs(sky["last"], trees[0], *OPTIONS, "--seed", 1)  # found when earlier table parts are built
    assert_refused(aggregate(tmp_path / "out", run_a, other), "member a, pass 0", str(run_a), str(other))
    again = runs(sky["shuffled"], trees[0], "--passes", 3, "--batch_size", 3, "--carry", "ra")
    assert_same(aggregate(tmp_path / "again", run_a, again), run_a)


def test_runs_that_do_not_go_together(runs, few, run_a, represent, tmp_path):
    def other(name, **settings):
        (tmp_path / name).mkdir()
        schema = settings.pop("schema", checkpoints.TREE_SCHEMA)
        saved = checkpoints.tree(tmp_path / name / "a.ckpt", seed=9, schema=schema)
        return checkpoints.member(tmp_path / name / f"{settings.pop('called', 'a')}.yaml", saved, **settings)

    few_rows = ["--limit", 3, "--passes", 1]
    retrained = runs(few, other("retrained"), *few_rows)
    assert_refused(aggregate(tmp_path / "1", run_a, retrained), "member a is not the same", "sha256")
    viewed = other("view", view={"base": "minimal", "output_size": 32})
    assert_refused(aggregate(tmp_path / "2", run_a, runs(few, viewed, *few_rows)), "sha256, view")
    schema = runs(few, other("schema", schema="gz_candels_ortho_schema", called="c"), *few_rows)
    assert_refused(
        aggregate(tmp_path / "3", run_a, schema), "members a of", "c of", "different questions and answers"
    )
    regressor = checkpoints.finetuned("FinetuneableZoobotRegressor", tmp_path / "r.ckpt")
    model = checkpoints.member(
        tmp_path / "r.yaml",
        regressor,
        zoobot_class="FinetuneableZoobotRegressor",
        encoder="test_resnet",
        value_name="size",
    )
    value = runs(few, model, *few_rows)
    assert_refused(aggregate(tmp_path / "4", run_a, value), "a tree and a regressor")
    features = represent(few, other("features"), "--limit", 3)
    assert features.code == 0, features.err
    assert_refused(aggregate(tmp_path / "5", run_a, features.output), "is an output of represent")


def test_mistakes(run_a, run_b, tmp_path):
    out = tmp_path / "out"
    assert_refused(aggregate(out, run_a, run_a), "given twice")
    assert_refused(aggregate(out, run_a, tmp_path), "not an output of predict: it has no plan")
    near = aggregate(out, run_a, run_b.with_name(f"{run_b.name}x"))
    assert_refused(near, "there is no output", "did you mean")
    assert_refused(aggregate(out, run_a, options=("--incomplete", "dorp")), "choose from refuse, drop, keep")
    assert_refused(aggregate(out, run_a, options=("--incomplet", "drop")), "did you mean '--incomplete'?")
    assert_refused(aggregate(out, run_a, options=("--max_failure_fraction", 2)), "must be at most 1, not 2")
    before = sorted(p.name for p in run_a.iterdir())
    inside = aggregate(run_a / "out", run_a, run_b)
    assert_refused(inside, "is in", "one of the runs")
    assert aggregate(run_a, run_a, run_b).code == 2
    assert sorted(p.name for p in run_a.iterdir()) == before
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("do not lose")
    full = aggregate(tmp_path / "full", run_a, run_b)
    assert full.code == 2 and "not empty and not an aggregate" in full.err
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["thesis.txt"]


def test_a_missing_snippet_is_refused(run_a, run_b, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run_b, copy)
    for number in (0, 3, 4):
        (copy / "samples" / f"part-000000{number}.parquet").unlink()
    assert_refused(aggregate(tmp_path / "out", run_a, copy), str(copy), "--snippets 0:1 3:5")


def test_a_run_needs_no_tables_and_a_damaged_part_is_refused(whole, run_a, run_b, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run_b, copy)
    for name in ("friendly", "advanced", "failures", "_tables"):
        shutil.rmtree(copy / name)
    (copy / "manifest.json").unlink()
    assert_same(aggregate(tmp_path / "out", run_a, copy), whole)
    part = copy / "samples" / "part-0000002.parquet"
    oracle.damage(part)
    assert_refused(aggregate(tmp_path / "damaged", run_a, copy), str(part), "is damaged")


def tables(output):
    names = ("friendly", "advanced", "failures")
    return {p.relative_to(output): p.read_bytes() for name in names for p in (output / name).iterdir()}


@pytest.mark.parametrize("moment", ["before publishing", "while publishing", "before the manifest"])
def test_killed_and_run_again(whole, run_a, run_b, tmp_path, monkeypatch, moment):
    expected = tables(aggregate(tmp_path / "uninterrupted", run_a, run_b).output)
    output = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(aggregate_output, "_clean", lambda output, work: None)  # a kill tidies nothing up
        move, write = os.replace, aggregate_output.write_json

        def stop(*_):
            raise KeyboardInterrupt

        def move_friendly(source, target):
            return stop() if os.path.dirname(target) == str(output / "advanced") else move(source, target)

        if moment == "before publishing":
            patch.setattr(aggregate_manifest, "unique_files", stop)
        elif moment == "while publishing":
            patch.setattr(os, "replace", move_friendly)
        else:
            patch.setattr(
                aggregate_output, "write_json", lambda p, c: stop() if "manifest" in p else write(p, c)
            )
        assert aggregate(output, run_a, run_b).code == 130
    assert not (output / "manifest.json").exists()
    assert (output / "_work").exists()
    again = aggregate(output, run_a, run_b)
    assert again.code == 0 and tables(output) == expected
    assert len(list((output / "_work").iterdir())) == 1  # it might be of a command on another machine
    assert_same(aggregate(output, run_a, run_b, options=("--overwrite",)), whole)
    assert tables(output) == expected


def test_two_at_the_same_time(whole, run_a, run_b, tmp_path, monkeypatch):
    """Another command begins and ends while one works: both publish the same tables, or one is refused."""
    expected = tables(aggregate(tmp_path / "alone", run_a, run_b).output)
    unique_files, results = aggregate_manifest.unique_files, []

    def meanwhile(output, *sources, options=()):
        def other(files):
            with monkeypatch.context() as patch:
                patch.setattr(aggregate_manifest, "unique_files", unique_files)
                results.append(aggregate(output, *sources, options=options))
            return unique_files(files)

        monkeypatch.setattr(aggregate_manifest, "unique_files", other)

    meanwhile(tmp_path / "same", run_a, run_b)
    one = aggregate(tmp_path / "same", run_a, run_b)
    assert_same(one, whole)
    assert_same(results[-1], whole)
    assert tables(one.output) == expected
    for name in ("overwrite", "same"):
        meanwhile(tmp_path / name, run_a, options=("--overwrite",))
        assert_same(aggregate(tmp_path / name, run_a, run_b, options=("--overwrite",)), whole)
        assert results[-1].code == 0 and tables(tmp_path / name) == expected
    meanwhile(tmp_path / "other", run_a)
    one = aggregate(tmp_path / "other", run_a, run_b)
    assert one.code == 2 and "another command has built an aggregate" in one.err
    assert_same(results[-1], run_a)
    meanwhile(tmp_path / "refused", run_a, options=("--carry", "deg"))
    assert_same(aggregate(tmp_path / "refused", run_a, run_b), whole)
    assert results[-1].code == 2


def test_left_working_folders(run_a, tmp_path):
    work = tmp_path / "out" / "_work"
    assert aggregate(tmp_path / "out", run_a).code == 0 and not work.exists()
    for name in ("new", "old", "running"):
        (work / name / "tables").mkdir(parents=True)
    os.utime(work / "old", (0, 0))
    output = str(tmp_path / "out")
    with aggregate_output._locked(str(work / "running"), wait=False) as is_locked:
        assert is_locked
        with aggregate_output.working_folder(output, overwrite=False) as own:
            assert {p.name for p in work.iterdir()} == {"new", "running", os.path.basename(own)}
        with aggregate_output.working_folder(output, overwrite=True) as own:
            assert {p.name for p in work.iterdir()} == {"running", os.path.basename(own)}
    assert aggregate(tmp_path / "out", run_a, options=("--overwrite",)).code == 0
    assert not work.exists()


def test_overwrite(whole, run_a, run_b, tmp_path):
    output = tmp_path / "out"
    assert aggregate(output, run_a).code == 0
    before = tables(output)
    again = aggregate(output, run_a, run_b)
    assert again.code == 2 and "--overwrite" in again.err
    refused = aggregate(output, run_a, run_b, options=("--overwrite", "--carry", "deg"))
    assert refused.code == 2
    assert tables(output) == before and json.loads((output / "manifest.json").read_text())
    (output / "friendly" / "notes.txt").write_text("mine")
    result = aggregate(output, run_a, run_b, options=("--overwrite",))
    assert (output / "friendly" / "notes.txt").read_text() == "mine"
    (output / "friendly" / "notes.txt").unlink()
    assert_same(result, whole)


def test_predict_does_not_mix_into_an_aggregate(predict, run_a, few, trees, tmp_path):
    output = tmp_path / "out"
    assert aggregate(output, run_a).code == 0
    before = tables(output)
    assert predict(few, trees, output=output).code == 2
    assert predict(few, trees, "--overwrite", output=output).code == 2
    assert tables(output) == before
    assert_refused(aggregate(tmp_path / "next", output), "an aggregate: name the runs")

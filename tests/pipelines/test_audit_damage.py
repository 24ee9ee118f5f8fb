"""Damage of every kind to the output of trees is found: as it is, and with all checksums made to fit."""

import math
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import audit
from runners import processes
from tests import oracle
from tests.pipelines import audited as a
from tests.pipelines.damages import (
    ADDED,
    ADVANCED,
    ANSWER,
    FAILURES,
    FRIENDLY,
    OTHER,
    PART,
    another_id,
    carried_everywhere,
    count,
    forget_part,
    invent_failure,
    members_sha,
    metadata,
    more_in_both,
    one_for_another,
    other_part,
    plan_json,
    plan_rows,
    plan_values,
    rename,
    require,
    retype,
    rows_of,
    surplus_failures,
    swap,
    swap_bounds,
    truncate,
    unmask,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setattr("beam_zoo.plan.plan.TABLE_ROWS", a.TABLE_ROWS)
    yield a.trees(tmp_path_factory.mktemp("trees"))
    patch.undo()


DAMAGE = {
    "a bit of a sample page": (lambda o: oracle.damage(o / PART), PART, "damaged"),
    "a part's metadata": (metadata, PART, "its metadata has another checksum"),
    "a bit of a table": (lambda o: oracle.damage(o / ADVANCED), ADVANCED, "damaged"),
    "a truncated part": (truncate, PART, "damaged"),
    "an empty table": (lambda o: (o / FRIENDLY).write_bytes(b""), FRIENDLY, "damaged"),
    "a deleted part": (lambda o: (o / PART).unlink(), PART, "is missing"),
    "a deleted added part": (lambda o: (o / ADDED).unlink(), ADDED, "not there"),
    "an added part that is forgotten": (forget_part, "friendly/part-000000.parquet", "'gal 0003' is here"),
    "a deleted table": (lambda o: (o / ADVANCED).unlink(), ADVANCED, "is missing"),
    "a part under another's name": (lambda o: shutil.copy(o / PART, o / OTHER), OTHER, "another run"),
    "a part twice": (
        lambda o: shutil.copy(o / PART, o / ADDED.replace("_1", "_2")),
        ADDED.replace("_1", "_2"),
        "is a duplicate: samples/part-0000000.parquet has it too",
    ),
    "a part of another run": (other_part, PART, "another run"),
    "a surplus part": (
        lambda o: shutil.copy(o / PART, o / "samples" / "part-0000099.parquet"),
        "samples",
        "part-0000099.parquet does not belong",
    ),
    "a surplus table": (
        lambda o: shutil.copy(o / FRIENDLY, o / "friendly" / "part-000003.parquet"),
        "friendly",
        "part-000003.parquet does not belong",
    ),
    "an unknown file": (lambda o: (o / "advanced" / "notes.txt").write_text("x"), "advanced", "notes.txt"),
    "a foreign folder": (
        lambda o: (o / "representations" / "a").mkdir(parents=True),
        "representations",
        "a does not belong",
    ),
    "two rows swapped": (lambda o: a.change(o, FRIENDLY, swap), FRIENDLY, "not in the order"),
    "a fraction in friendly": (
        lambda o: a.cell(o, FRIENDLY, 3, f"{ANSWER}_fraction", lambda x: x - 1e-4),
        FRIENDLY,
        f"{ANSWER}_fraction is 0.",
    ),
    "a fraction in advanced": (
        lambda o: a.cell(o, ADVANCED, 3, f"{ANSWER}_fraction", lambda x: x - 1e-4),
        ADVANCED,
        "and should be",
    ),
    "a fraction in both": (more_in_both, ADVANCED, "the sum of smooth-or-featured-dr8_smooth, "),
    "a proportion asked": (
        lambda o: a.cell(o, ADVANCED, 0, "bar-dr8_no_proportion-asked", lambda x: x + 1e-5),
        ADVANCED,
        "bar-dr8_no_proportion-asked is",
    ),
    "NaN in friendly": (
        lambda o: a.cell(o, FRIENDLY, 0, f"{ANSWER}_fraction", math.nan),
        FRIENDLY,
        f"{ANSWER}_fraction is nan",
    ),
    "NaN in advanced": (
        lambda o: a.cell(o, ADVANCED, 0, f"{ANSWER}_90pc-lower", math.nan),
        ADVANCED,
        "must be a number",
    ),
    "null in advanced": (
        lambda o: a.cell(o, ADVANCED, 0, f"{ANSWER}_90pc-lower", None),
        ADVANCED,
        "has nulls",
    ),
    "a mask lifted": (unmask, FRIENDLY, "and should be nan"),
    "bounds swapped": (swap_bounds, ADVANCED, "must not be above the upper bound"),
    "a row removed": (lambda o: a.change(o, FRIENDLY, lambda f: f.drop(index=2)), FRIENDLY, "is missing"),
    "a row twice": (
        lambda o: a.change(o, ADVANCED, lambda f: f.iloc[[0, *range(len(f))]]),
        ADVANCED,
        "'gal 0008' is a duplicate",
    ),
    "another id": (lambda o: a.change(o, FRIENDLY, another_id), FRIENDLY, "'somebody else' is unknown"),
    "a failure removed": (
        lambda o: a.change(o, FAILURES, lambda f: f.iloc[:0]),
        FAILURES,
        "'gal 0012' is missing",
    ),
    "a failure invented": (
        lambda o: a.change(o, FAILURES, invent_failure),
        FAILURES,
        "'gal 0009' is here, and it was predicted",
    ),
    "a failure twice": (surplus_failures, FAILURES, "'gal 0012' is a duplicate"),
    "another reason": (
        lambda o: a.cell(o, FAILURES, 0, "error", "the moon was in the way"),
        FAILURES,
        "the moon was in the way",
    ),
    "a failure that may not pass": (
        lambda o: a.cell(o, FAILURES, 0, "may_pass", False),
        FAILURES,
        "False) is not",
    ),
    "another image of a failure": (
        lambda o: a.cell(o, FAILURES, 0, "file_loc", "images/0000.jpg"),
        FAILURES,
        "file_loc is 'images/0000.jpg'",
    ),
    "a failure that a part does not tell of": (
        lambda o: a.failures_of(o, OTHER, lambda f: []),
        OTHER,
        "has 12 rows and should have 16",
    ),
    "another failure in a part": (
        lambda o: a.failures_of(o, OTHER, lambda f: [[f[0][0], "view", "another", True]]),
        FAILURES,
        "is not the failure in its part, ('view', 'another', True)",
    ),
    "a failure of another galaxy in a part": (
        lambda o: a.failures_of(o, OTHER, lambda f: [[2, *f[0][1:]]]),
        OTHER,
        "id_str is 'gal 0013' and should be 'gal 0012'",
    ),
    "a retry of what has failed for good": (
        lambda o: a.failures_of(o, PART, lambda f: [[*f[0][:3], False]]),
        ADDED,
        "'gal 0003' was not to be tried again",
    ),
    "a carried text": (
        lambda o: a.cell(o, ADVANCED, 1, "note", "another"),
        ADVANCED,
        "note is 'another' and should be 'note 9'",
    ),
    "a carried null": (
        lambda o: a.cell(o, FRIENDLY.replace("1.", "0."), 1, "note", ""),
        "friendly/part-000000.parquet",
        "note is '' and should be None",
    ),
    "a column renamed": (lambda o: rename(o, FRIENDLY, "ra", "dec"), FRIENDLY, "has no column 'ra'"),
    "another type": (
        lambda o: retype(o, ADVANCED, f"{ANSWER}_fraction", pa.float64()),
        ADVANCED,
        "is of type double, and should be float",
    ),
    "a column of which no value may be null": (
        lambda o: require(o, FRIENDLY, f"{ANSWER}_fraction"),
        FRIENDLY,
        "is of type float not null, and should be float",
    ),
    "another type of a failures column": (
        lambda o: retype(o, FAILURES, "may_pass", pa.int8()),
        FAILURES,
        "'may_pass' is of type int8",
    ),
    "columns in another order": (
        lambda o: a.write(o / FRIENDLY, (t := pq.read_table(o / FRIENDLY)).select(t.column_names[::-1])),
        FRIENDLY,
        "another order",
    ),
    "a sample": (
        lambda o: a.cell(o, OTHER, 5, ANSWER, lambda x: x + 1),
        ADVANCED,
        f"'gal 0014': {ANSWER}_fraction is",
    ),
    "a sample that no head gives": (
        lambda o: a.cell(o, PART, 0, ANSWER, 0.5),
        PART,
        "a concentration is from 1 to 101",
    ),
    "a sample that is NaN": (lambda o: a.cell(o, PART, 0, ANSWER, math.nan), PART, "must be finite"),
    "a member of another name": (
        lambda o: a.cell(o, PART, 2, "member", "a"),
        PART,
        "member is 'a' and should be 'b' (row 2)",
    ),
    "passes swapped": (
        lambda o: a.change(o, PART, lambda f: f.iloc[[1, 0, *range(2, len(f))]]),
        PART,
        "pass is 1 and should be 0 (row 0)",
    ),
    "an id twice in the samples": (
        lambda o: a.change(o, PART, one_for_another),
        PART,
        "id_str is 'gal 0000' and should be 'gal 0001'",
    ),
    "a row of samples removed": (
        lambda o: a.change(o, PART, lambda f: f.iloc[1:]),
        PART,
        "has 11 rows and should have 12",
    ),
    "rows_predicted": (
        lambda o: count(o, rows_predicted=20, rows_failed=2),
        "manifest.json",
        "rows_predicted is 20, and 19 were found",
    ),
    "rows_in": (lambda o: count(o, rows_in=23, rows_failed=4), "manifest.json", "rows_in is 23"),
    "rows_reused": (lambda o: count(o, rows_reused=20), "manifest.json", "rows_reused is 20"),
    "a text for a number": (lambda o: count(o, rows_failed="3"), "manifest.json", "rows_failed is '3'"),
    "no list of parts": (lambda o: count(o, parts=None), "manifest.json", "no list 'parts'"),
    "a part not listed": (
        lambda o: a.manifest(o, lambda m: m["parts"].pop(0)),
        PART,
        "is not listed",
    ),
    "a table not listed": (
        lambda o: a.manifest(o, lambda m: m["tables"].remove(a.listed(m, "tables", ADVANCED))),
        ADVANCED,
        "is not listed",
    ),
    "a part listed twice": (
        lambda o: a.manifest(o, lambda m: m["parts"].append(m["parts"][0])),
        "manifest.json",
        "twice",
    ),
    "a part listed of no snippet": (
        lambda o: a.manifest(o, lambda m: m["parts"][0].update(name="samples/part-0000077.parquet")),
        "manifest.json",
        "no file of this plan",
    ),
    "galaxies of a part": (
        lambda o: a.manifest(o, lambda m: m["parts"][0].update(galaxies=4)),
        PART,
        "galaxies: manifest.json says 4, found 3",
    ),
    "another checkpoint": (members_sha, "manifest.json", "sha256 of member b"),
    "a manifest that is no JSON": (
        lambda o: (o / "manifest.json").write_text("{"),
        "manifest.json",
        "cannot be read",
    ),
    "an image in the plan": (plan_rows, "_plan/rows-", "ids and locations have SHA-256"),
    "another plan": (plan_json, "manifest.json", "fingerprint is"),
    "a plan that is no JSON": (
        lambda o: (o / "_plan" / "plan.json").write_text("[]"),
        "_plan/plan.json",
        "cannot be read",
    ),
    "a plan of rows that are no number": (
        lambda o: plan_values(o, rows="x"),
        "_plan/plan.json",
        "rows is 'x'",
    ),
    "a plan of empty snippets": (
        lambda o: plan_values(o, snippet_size=0),
        "_plan/plan.json",
        "snippet_size is 0",
    ),
    "a plan without members": (lambda o: plan_values(o, members=[]), "_plan/plan.json", "cannot be read"),
    "a carried text in plan and tables": (
        carried_everywhere,
        "_plan/carried-",
        "carried columns have SHA-256",
    ),
    "galaxies in a part's metadata": (
        lambda o: a.metadata_of(o, PART, lambda m: m.update(galaxies=64 * "a")),
        PART,
        "of its galaxies, which have",
    ),
    "another attempt in a part's metadata": (
        lambda o: a.metadata_of(o, ADDED, lambda m: m.update(attempt=2)),
        ADDED,
        "its metadata says attempt 2, and its name 1",
    ),
    "an unknown folder": (lambda o: (o / "notes").mkdir(), "notes", "does not belong there"),
    "no versions": (
        lambda o: a.manifest(o, lambda m: m.pop("versions")),
        "manifest.json",
        "versions is missing",
    ),
    "no start": (lambda o: a.manifest(o, lambda m: m.pop("start")), "manifest.json", "start is missing"),
    "a speed that is a text": (
        lambda o: count(o, galaxies_per_second="fast"),
        "manifest.json",
        "galaxies_per_second is 'fast'",
    ),
    "a file of the plan's rows": (
        lambda o: (rows_of(o) / "000002.parquet").unlink(),
        "_plan/rows-",
        "000002.parquet is missing",
    ),
}


def test_the_healthy_output_passes(healthy, capfd):
    code, lines = a.audited(healthy, capfd)
    assert code == 0 and len(lines) == 1, lines
    assert "22 rows of the plan = 19 predicted + 3 failed" in lines[0]
    assert "7 parts with 76 rows of samples" in lines[0]
    # It has what the damages below need: three table parts, an added part, masks, retryable failures and
    # others.
    assert sorted(p.name for p in (healthy / "friendly").iterdir() if p.name[0] != ".") == [
        f"part-00000{n}.parquet" for n in range(3)
    ]
    assert (healthy / ADDED).exists()


@pytest.mark.parametrize("name", DAMAGE)
def test_damage(healthy, tmp_path, capfd, name):
    damage, file, said = DAMAGE[name]
    output = a.copy(healthy, tmp_path)
    shutil.copy(healthy.parent / "other" / PART, tmp_path / "other-part")
    damage(output)
    before, manifest = None, output / "manifest.json"
    for fitting in (False, True):
        if fitting and file not in ("manifest.json", "_plan/plan.json"):
            a.fit(output)
        if manifest.read_bytes() == before:
            continue  # no checksum is of what was damaged
        before = manifest.read_bytes()
        code, lines = a.audited(output, capfd)
        text = "\n".join(lines)
        assert code == 1, text
        start = file if file.endswith("-") else f"{file}: "  # a folder that is named by what it holds
        assert any(line.startswith(start) and said in line for line in lines), text
        assert len(lines) < 25
        assert not fitting or "sha256: manifest.json says" not in text


def test_several_processes_find_the_same(healthy, tmp_path, capfd, monkeypatch):
    """And of the same counts: an element at a time, here and in another process."""
    monkeypatch.setattr(audit, "ELEMENTS_AT_ONCE", 1)
    monkeypatch.setattr(processes, "available_memory", lambda: 10 << 30)
    output, found = a.copy(healthy, tmp_path), {}
    for cores in (1, 2):
        monkeypatch.setattr(processes, "cores", lambda cores=cores: cores)
        found[cores] = a.audited(healthy, capfd, "--report", str(tmp_path / f"{cores}"))
    assert found[1] == found[2] and found[1][0] == 0, found
    reports = [sorted((tmp_path / name / "audit.jsonl").read_text().splitlines()) for name in "12"]
    assert reports[0] == reports[1] and '["elements", 4]' in reports[0]
    truncate(output)
    swap_bounds(output)
    for cores in (1, 2):
        monkeypatch.setattr(processes, "cores", lambda cores=cores: cores)
        found[cores] = a.audited(output, capfd)
    assert found[1] == found[2] and found[1][0] == 1, found
    assert {line.partition(": ")[0] for line in found[1][1]} >= {PART, ADVANCED}

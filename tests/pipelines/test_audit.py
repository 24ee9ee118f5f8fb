"""The audit as a command: what it says of healthy outputs of every kind, and of mistakes."""

import json
import math
import re
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import beam_zoo
from beam_zoo.auditing.findings import LINES, Findings
from pipelines import audit, predict, represent
from tests import checkpoints
from tests.pipelines import audited as a
from tests.pipelines.unions import aggregate


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    names = ["spiral", "smooth", "merger"]
    return a.finetuned(
        tmp_path_factory.mktemp("c"),
        "FinetuneableZoobotClassifier",
        passes=3,
        class_names=names,
        view={"base": "default", "output_size": 64},
    )


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    return a.representations(tmp_path_factory.mktemp("r"))


def test_a_classifier(classifier, capfd):
    code, lines = a.audited(classifier, capfd)
    assert code == 0, lines
    assert "10 rows of the plan = 10 predicted + 0 failed; 3 parts with 30 rows of samples" in lines[0]


@pytest.mark.parametrize("passes", [1, 4])
def test_a_regressor(tmp_path, capfd, passes):
    """With one pass, std and bounds are NaN; as they are of equal passes."""
    settings = {"value_name": "size", "test_time_dropout": True}
    output = a.finetuned(tmp_path, "FinetuneableZoobotRegressor", passes=passes, **settings)
    code, lines = a.audited(output, capfd)
    assert code == 0, lines
    a.cell(
        output,
        "advanced/part-000000.parquet",
        2,
        "size_std",
        lambda x: 0.1 if x is None or x != x else math.nan,
    )
    a.fit(output)
    code, lines = a.audited(output, capfd)
    assert code == 1 and lines[0].startswith("advanced/part-000000.parquet: galaxy 'gal 0002': size_std is")


@pytest.mark.parametrize(
    ("damage", "file", "said"),
    [
        (
            lambda o: a.cell(o, "samples/part-0000001.parquet", 0, "merger", lambda x: x + 1e-4),
            "samples/part-0000001.parquet",
            "the sum of probabilities is 1.0001",
        ),
        (
            lambda o: a.cell(o, "samples/part-0000001.parquet", 0, "merger", -0.5),
            "samples/part-0000001.parquet",
            "merger is -0.5 and a probability is from 0 to 1",
        ),
        (
            lambda o: a.cell(
                o, "advanced/part-000000.parquet", 1, "merger_probability_std", lambda x: x + 1e-4
            ),
            "advanced/part-000000.parquet",
            "merger_probability_std is",
        ),
        (
            lambda o: a.cell(o, "advanced/part-000000.parquet", 1, "merger_probability_90pc-upper", 1.5),
            "advanced/part-000000.parquet",
            "must be from 0 to 1",
        ),
        (
            lambda o: a.cell(o, "friendly/part-000000.parquet", 1, "merger_probability", math.nan),
            "friendly/part-000000.parquet",
            "merger_probability is nan",
        ),
    ],
)
def test_damage_of_a_classifier(classifier, tmp_path, capfd, damage, file, said):
    output = a.copy(classifier, tmp_path)
    damage(output)
    a.fit(output)
    code, lines = a.audited(output, capfd)
    assert code == 1
    assert any(line.startswith(f"{file}: ") and said in line for line in lines), lines


def test_representations(encoders, capfd):
    code, lines = a.audited(encoders, capfd)
    assert code == 0, lines
    assert "10 rows of the plan = 9 predicted + 1 failed; 8 parts with 18 rows of features" in lines[0]


@pytest.mark.parametrize("back", [(), ("0005",), ("0005", "0006")])
def test_a_snippet_that_failed_whole(tmp_path, capfd, back):
    """Its first part has no galaxies, and is as it should be: of a run, and of an aggregate of it."""
    path = checkpoints.finetuned("FinetuneableZoobotRegressor", tmp_path / "m.ckpt")
    settings = {"zoobot_class": "FinetuneableZoobotRegressor", "encoder": "test_resnet", "value_name": "size"}
    member = checkpoints.member(tmp_path / "m.yaml", path, **settings)
    output = a.failed_whole(tmp_path, predict.main, member, back=back)
    code, lines = a.audited(output, capfd)
    assert code == 0, lines
    assert f"12 rows of the plan = {8 + len(back)} predicted + {4 - len(back)} failed" in lines[0]
    united = aggregate(tmp_path / "united", output, options=("--max_failure_fraction", 1))
    assert united.code == 0, united.err
    code, lines = a.audited(united.output, capfd)
    assert code == 0, lines
    assert f"{8 + len(back)} predicted + {4 - len(back)} failed" in lines[0]


@pytest.mark.parametrize("back", [(), ("0005",)])
def test_representations_of_a_snippet_that_failed_whole(tmp_path, capfd, back):
    path = checkpoints.zoobot_encoder(tmp_path / "m.ckpt")
    member = checkpoints.member(tmp_path / "m.yaml", path, **a.ENCODER)
    code, lines = a.audited(a.failed_whole(tmp_path, represent.main, member, back=back), capfd)
    assert code == 0, lines


M, N = (f"representations/{name}/part-0000001.parquet" for name in "mn")


def nan_feature(output):
    a.cell(output, N, 1, "feature", lambda values: [*values[:-1], math.nan])


def shorter(output):
    table = pq.read_table(output / N)
    short = [values[:-1] for values in table.column("feature").to_pylist()]
    kind = pa.list_(pa.float32(), len(short[0]))
    where = table.schema.get_field_index("feature")
    a.write(output / N, table.set_column(where, "feature", pa.array(short, kind)))


def fewer(output):
    """One galaxy of the second member less, told as a failure."""
    a.change(output, N, lambda frame: frame.iloc[:-1])
    a.failures_of(output, N, lambda f: [*f, [3, "inference", "odd", False]])


REPRESENT = {
    "a part of a member": (lambda o: (o / N).unlink(), N, "is missing"),
    "an added part of a member": (
        lambda o: (o / N.replace("1.", "0_1.")).unlink(),
        "representations/n/part-0000000_1.parquet",
        "is missing",
    ),
    "NaN": (nan_feature, N, "is nan and must be finite"),
    "a shorter feature": (shorter, "representations/n", "features have lengths"),
    "fewer galaxies": (fewer, N, "hold different galaxies"),
    "a carried value": (lambda o: a.cell(o, N, 0, "ra", 1.5), N, "ra is 1.5 and should be"),
    "an id": (lambda o: a.cell(o, N, 0, "id_str", "x"), N, "id_str is 'x' and should be 'gal 0004'"),
    "a surplus member": (
        lambda o: shutil.copytree(o / "representations" / "n", o / "representations" / "x"),
        "representations",
        "x does not belong there",
    ),
    "a table": (
        lambda o: shutil.copytree(o / "failures", o / "friendly"),
        "friendly",
        "does not belong there",
    ),
    "a failure removed": (
        lambda o: a.change(o, "failures/part-000000.parquet", lambda f: f.iloc[:0]),
        "failures/part-000000.parquet",
        "'gal 0006' is missing",
    ),
}


@pytest.mark.parametrize("name", REPRESENT)
def test_damage_of_representations(encoders, tmp_path, capfd, name):
    damage, file, said = REPRESENT[name]
    output = a.copy(encoders, tmp_path)
    damage(output)
    a.fit(output)
    code, lines = a.audited(output, capfd)
    assert code == 1
    assert any(line.startswith(f"{file}: ") and said in line for line in lines), lines


def test_left_overs_are_fine(classifier, tmp_path, capfd):
    """What a killed job leaves, and what others put beside the tables under such names."""
    output = a.copy(classifier, tmp_path)
    (output / "samples" / (".part-0000001.parquet." + 32 * "a")).write_bytes(b"half")
    (output / "friendly" / "_SUCCESS").touch()
    shutil.rmtree(output / "_tables")
    assert a.audited(output, capfd)[0] == 0


def test_a_report(classifier, tmp_path, capfd):
    code, lines = a.audited(classifier, capfd, "--report", str(tmp_path / "report"))
    assert code == 0 and "10 predicted" in lines[0]
    found = [json.loads(line) for line in (tmp_path / "report" / "audit.jsonl").read_text().splitlines()]
    assert ["predicted", 10] in found


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["nowhere"], "nowhere does not exist"),
        ([], "the following arguments are required: OUT"),
        (["OUT", "--reports", "x"], "there is no option --reports (did you mean '--report'?)"),
        (["OUT", "--direct_num_worker", "2"], "did you mean '--direct_num_workers'?"),
        (["OUT", "--direct_running_mode", "multi_processing"], "would listen on the network"),
        (["OUT", "--runner", "FlinkRunner"], "--report DIR is missing"),
        (["OUT", "another"], "'another' belongs to no option"),
        (["OUT/friendly"], "is not an output of predict or represent"),
        (["OUT/manifest.json"], "is not a folder"),
    ],
)
def test_mistakes_are_one_line(classifier, capfd, options, said):
    capfd.readouterr()
    assert audit.main([option.replace("OUT", str(classifier)) for option in options]) == 2
    captured = capfd.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("error: ") and said in line


def test_a_run_that_is_not_complete(few, trees, tmp_path, capfd):
    argv = [
        "--catalogue",
        few,
        "--models",
        *trees,
        "--output",
        tmp_path / "out",
        "--snippets",
        ":",
        "--passes",
        1,
    ]
    assert predict.main([str(word) for word in argv]) == 0
    capfd.readouterr()
    assert audit.main([str(tmp_path / "out")]) == 2
    captured = capfd.readouterr()
    assert "the run is not complete" in captured.err and captured.out == ""


def test_lines_are_bounded():
    findings = Findings()
    findings.some("a", (f"galaxy {i}" for i in range(100)))
    assert findings.lines == ["a: galaxy 0", "a: galaxy 1", "a: galaxy 2", "a: ... and 97 more like this"]
    for i in range(100):
        findings.add("b", f"line\n{i}")
    assert len(findings.lines) == LINES
    assert findings.all("table part 7")[-1] == "table part 7: ... and 84 lines more"
    assert not any("\n" in line for line in findings.all("x"))


def test_workers_need_no_pipelines():
    """What a worker checks knows nothing of pipelines/ or runners/."""
    files = sorted(Path(beam_zoo.__file__).parent.glob("auditing/*.py"))
    assert files
    for file in files:
        assert not re.search(r"^ *(from|import) (pipelines|runners)", file.read_text(), re.MULTILINE), file

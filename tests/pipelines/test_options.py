"""A mistake is one line on stderr that starts with `error:`, exit code 2, and nothing is written."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

REPO = Path(__file__).parents[2]


def _tree(folder: Path) -> dict[str, float]:
    return {str(path): path.lstat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture
def work(tmp_path: Path, few: Path, trees: list[Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, the current one, with a catalogue, two members and files to go wrong with."""
    shutil.copytree(few.parent / "images", tmp_path / "images")
    shutil.copy(few, tmp_path / "galaxies.csv")
    for member in trees:
        for path in (member, member.with_suffix(".ckpt")):
            shutil.copy(path, tmp_path / path.name)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("irreplaceable")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere" / "x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]):
    """Runs a command line as it stands: (exit code, stdout, stderr)."""
    from pipelines.predict import main

    def run(*words: object) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main([str(word) for word in words])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def refuse(command, work: Path):
    """Runs a command line that must be refused; gives the line."""

    def run(*words: object) -> str:
        before = _tree(work)
        code, out, err = command(*words)
        assert code == 2, err
        assert out == ""
        assert _tree(work) == before
        *notes, last = err.splitlines()
        assert last.startswith("error: ")
        assert not any(line.startswith("error:") for line in notes)
        assert "Traceback" not in err and "\n" not in err.strip("\n").removeprefix("\n".join(notes)).strip(
            "\n"
        )
        return last

    return run


GOOD = ["--catalogue", "galaxies.csv", "--models", "a.yaml", "b.yaml", "--output", "out"]

WRONG = [
    ("", "--catalogue is missing"),
    ("--catalogue galaxies.csv --output out", "--models is missing"),
    ("--catalogue galaxies.csv --models a.yaml", "--output is missing"),
    ("galaxies.csv", "'galaxies.csv' belongs to no option"),
    ("GOOD -x", "'-x' belongs to no option"),
    ("GOOD --", "'--' belongs to no option"),
    # Misspelt, of this program and of Beam; abbreviations are none.
    ("--cataloge galaxies.csv", "did you mean '--catalogue'?"),
    ("GOOD --carrry ra dec", "no option --carrry (did you mean '--carry'?)"),
    ("GOOD --dry-run", "did you mean '--dry_run'?"),
    ("GOOD --Passes 2", "did you mean '--passes'?"),
    ("GOOD --batch 2", "no option --batch"),
    ("GOOD --direct_num_worker=2", "did you mean '--direct_num_workers'?"),
    ("GOOD --runner=DirectRuner", "no runner 'DirectRuner' (did you mean 'DirectRunner'?)"),
    ("GOOD --runner direct", "did you mean 'DirectRunner'?"),
    ("GOOD --runner", "--runner: expected one argument"),
    ("GOOD --direct_num_workers=two", "invalid int value: 'two'"),
    ("GOOD --direct_running_mode=many", "choose from 'in_memory'"),
    ("GOOD --direct_running_mode=multi_processing", "multi_processing would listen on the network"),
    ("GOOD --direct_running_mode multi_threading", "leave it out, for the local runner is one process"),
    ("GOOD --direct_num_workers=2", "--direct_num_workers=2 would only start threads"),
    ("GOOD --direct_num_workers 0", "python -m runners.slurm submit"),
    ("GOOD --runner=FlinkRunner --direct_running_mode=multi_processing", "would listen on the network"),
    (
        "GOOD --runner=PortableRunner --job_endpoint=a:1",
        "uses services that anybody can connect to: choose from DirectRunner",
    ),
    ("GOOD --runner=PrismRunner", "services that anybody can connect to"),
    ("GOOD --runner=SparkRunner", "services that anybody can connect to"),
    ("GOOD --runner=FlinkRunner --flink_master=a:1 --environment_type=LOOPBACK", "runs whatever any user"),
    ("GOOD --runner=FlinkRunner", "needs --flink_master=HOST:PORT"),
    ("GOOD --runner=FlinkRunner --flink_master=[local]", "needs --flink_master=HOST:PORT"),
    ("GOOD --runner=FlinkRunner --flink_master=a:1", "needs --environment_type=PROCESS"),
    (
        "GOOD --runner=FlinkRunner --flink_master=a:1 --environment_type=EXTERNAL",
        "needs --environment_type=PROCESS",
    ),
    # Values.
    ("GOOD --passes", "--passes: expected one argument"),
    ("GOOD --passes five", "--passes must be a whole number, not 'five'"),
    ("GOOD --passes 2.5", "--passes must be a whole number"),
    ("GOOD --passes 1_0", "--passes must be a whole number"),
    ("GOOD --passes 0", "--passes must be at least 1, not 0"),
    ("GOOD --passes 99999999999999999999", "--passes must be at most 10,000"),
    ("GOOD --first_pass -1", "--first_pass must be at least 0"),
    ("GOOD --batch_size 0", "--batch_size must be at least 1"),
    ("GOOD --snippet_size -5", "--snippet_size must be at least 1"),
    ("GOOD --limit 0", "--limit must be at least 1"),
    ("GOOD --seed x", "--seed must be a whole number"),
    ("GOOD --max_failure_fraction 5", "--max_failure_fraction must be at most 1, not 5"),
    ("GOOD --max_failure_fraction nan", "--max_failure_fraction must be a number"),
    ("GOOD --max_failure_fraction -0.1", "--max_failure_fraction must be at least 0"),
    ("GOOD --precision fp64", "--precision cannot be 'fp64' (choose from fp32, tf32, bf16, fp16)"),
    ("GOOD --precision tf32 --device cpu", "tf32"),
    ("GOOD --device gpu", "--device cannot be 'gpu' (choose from auto, cpu, cuda)"),
    ("GOOD --overwrite=yes", "--overwrite"),
    ("GOOD --carry", "--carry: expected at least one argument"),
    ("GOOD --carry RA", "no column 'RA' (did you mean 'ra'?)"),
    ("GOOD --carry ra ra", "--carry ra: the tables have a column of that name already"),
    ("GOOD --carry id_str", "--carry id_str: the tables have"),
    # Snippets.
    ("GOOD --snippets 3", "--snippets must be A:B"),
    ("GOOD --snippets 1:2:3", "--snippets must be A:B"),
    ("GOOD --snippets a:b", "--snippets must be A:B"),
    ("GOOD --snippets 5:9", "holds no snippet: there are 1, numbered from 0"),
    ("GOOD --snippets=", "--snippets must be text"),
    ("GOOD --snippets 0:1 --overwrite", "--overwrite and --snippets do not go together"),
    # Paths.
    ("GOOD --catalogue galaxys.csv", "no catalogue galaxys.csv (did you mean 'galaxies.csv'?)"),
    ("GOOD --catalogue images", "no .parquet or .csv file"),
    ("GOOD --catalogue a.ckpt", "must end in .parquet or .csv"),
    ("GOOD --image_root imagse", "imagse does not exist (did you mean 'images'?)"),
    ("GOOD --image_root galaxies.csv", "galaxies.csv is not a folder"),
    ("GOOD --image_root images", "none of 16 images"),
    ("GOOD --models c.yaml", "no --models c.yaml"),
    ("--catalogue galaxies.csv --output out --models a.yml", "(did you mean 'a.yaml'?)"),
    ("GOOD --models a.yaml", "two members are named 'a'"),
    ("GOOD --models full", "cannot read full"),
    ("GOOD --models a.ckpt", "a.ckpt is not plain YAML"),
    ("GOOD --models *.toml", "no file matches --models *.toml"),
    ("GOOD --config run.yaml", "no --config run.yaml"),
    ("GOOD --config no/where/run.yaml", "has no folder 'no'"),
    ("GOOD --output galaxies.csv", "galaxies.csv is a file, not a folder"),
    ("GOOD --output galaxies.csv/out", "cannot be written"),
    ("GOOD --output full", "is not empty and not an output of this program"),
    ("GOOD --output full --overwrite", "is not empty and not an output of this program"),
    ("GOOD --output .", "is not empty and not an output of this program"),
    ("GOOD --output images --overwrite", "is not empty and not an output of this program"),
    ("GOOD --output dangling", "cannot be written"),
    ("GOOD --output /proc/beam-zoo", "cannot write"),
    ("GOOD --output " + "o" * 300, "cannot be written"),
    ("GOOD --output s3://bucket/out", "only local folders and gs://"),
    ("GOOD --output=", "--output must be text"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "words"), WRONG, ids=[line[-40:] or "nothing" for line, _ in WRONG])
def test_one_line_for_a_mistake(refuse, line: str, words: str) -> None:
    given = [
        word for part in line.split(" ") for word in (GOOD if part == "GOOD" else [part] if part else [])
    ]
    assert words in refuse(*given)


def test_names_with_line_breaks_stay_on_one_line(refuse) -> None:
    assert "no catalogue no such.csv" in refuse(*GOOD, "--catalogue", "no\nsuch.csv")
    assert refuse(*GOOD, "--output", "galaxies.csv/a\nb")
    assert refuse(*GOOD, "--carry", "a\nb")
    assert refuse(*GOOD, "--runn\ner=x")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_no_gpu_is_an_error(refuse) -> None:
    assert "--device=cuda, but this machine has no usable GPU" in refuse(*GOOD, "--device=cuda")


def test_paths_outside_the_root(refuse, work: Path) -> None:
    (work / "sub").mkdir()
    text = (work / "galaxies.csv").read_text().replace("images/", "../images/")
    (work / "sub" / "galaxies.csv").write_text(text)
    assert "23 rows" in refuse(*GOOD, "--catalogue", "sub/galaxies.csv")


def test_an_unwritable_output(refuse, monkeypatch: pytest.MonkeyPatch, work: Path) -> None:
    """Root may write everywhere, so the system's answer is played."""
    from beam_zoo.storage import output

    monkeypatch.setattr(output.os, "access", lambda path, mode: False)
    assert f"{work} is not a writable folder" in refuse(*GOOD)


def test_dry_run_prints_the_plan_and_writes_nothing(command, work: Path) -> None:
    before = _tree(work)
    code, out, err = command(*GOOD, "--dry_run", "--snippet_size", 5, "--passes", 3, "--snippets", "1:")
    assert code == 0, err
    assert _tree(work) == before
    for words in (
        "23 galaxies in 5 snippets of up to 5",
        "4 to do, 0 already stored",
        "member a: 1 encoder and 3 head passes",
        "member b:",
        "the encoder runs once",
        "share it",
        "output: about",
    ):
        assert words in out + err


def test_overwrite_removes_only_what_is_ours(command, work: Path) -> None:
    """Other settings are refused by name; notes of the user in the output survive --overwrite."""
    small = [*GOOD, "--passes", 1, "--limit", 4]
    assert command(*small)[0] == 0
    (work / "out" / "notes.txt").write_text("mine")
    (work / "out" / "friendly" / "mine.csv").write_text("mine")
    before = _tree(work)
    code, _, err = command(*small, "--seed", 1)
    assert code == 2 and "seed (0 there, 1 now)" in err.splitlines()[-1] and "--overwrite" in err
    assert command(*small, "--seed", 1, "--overwrite", "--dry_run")[0] == 0
    assert _tree(work) == before
    assert command(*small, "--seed", 1, "--overwrite")[0] == 0
    assert (
        (work / "out" / "notes.txt").read_text()
        == (work / "out" / "friendly" / "mine.csv").read_text()
        == "mine"
    )
    parts = [path for path in before if "/samples/part" in path]
    assert parts and all(_tree(work)[path] != before[path] for path in parts)


def test_overwrite_after_a_planning_that_was_killed(command, work: Path) -> None:
    left = work / "out" / "_plan" / f"rows-{'0' * 12}"
    left.mkdir(parents=True)
    (left / "000000.parquet").touch()
    code, _, err = command(*GOOD, "--passes", 1, "--limit", 3, "--overwrite")
    assert code == 0, err
    friendly = work / "copy" / "friendly"
    friendly.mkdir(parents=True)
    (friendly / "part-000000.parquet").touch()  # somebody's copy of a table, without its plan
    code, _, err = command(*GOOD, "--output", "copy", "--overwrite")
    assert code == 2 and "--overwrite removes nothing there" in err


def test_the_real_command_line(tmp_path: Path) -> None:
    """Its exit codes, as a shell sees them."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(REPO)}
        argv = [sys.executable, "-m", "pipelines.predict", *words]
        return subprocess.run(
            argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    helped = run("--help")
    assert helped.returncode == 0 and helped.stderr == ""
    for option in ("--catalogue", "--models", "--max_failure_fraction", "--dry_run", "--runner"):
        assert option in helped.stdout
    wrong = run("--catalog", "x.csv")
    assert wrong.returncode == 2 and wrong.stdout == ""
    assert wrong.stderr == "error: there is no option --catalog (did you mean '--catalogue'?)\n"
    assert list(tmp_path.iterdir()) == []


def test_a_finished_output_needs_neither_images_nor_catalogue(command, work: Path) -> None:
    """Only what the stored plan lacks is refused: columns to carry that nobody has any more."""
    small = [*GOOD, "--passes", 1, "--limit", 4]
    assert command(*small, "--carry", "ra", "dec")[0] == 0
    shutil.rmtree(work / "images")
    assert command(*small, "--carry", "ra", "dec")[0] == 0
    (work / "galaxies.csv").unlink()
    code, _, err = command(*small, "--carry", "ra", "dec")
    assert code == 0 and "going on with the plan made from it" in err
    code, _, err = command(*small, "--carry", "dec")
    assert code == 2 and "to carry other columns from" in err.splitlines()[-1]

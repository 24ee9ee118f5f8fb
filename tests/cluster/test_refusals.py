"""What the real Slurm refuses, and what --overwrite does, before anything is submitted."""

import re
import subprocess

import pytest

from runners.slurm import submit as submission


@pytest.mark.parametrize(
    ("job", "options", "said"),
    [
        (["--partition", "nowhere"], [], "Slurm refuses the job: invalid partition specified: nowhere"),
        (
            ["--acount", "galaxies"],
            [],
            "there is no option --acount of sbatch or of submit (did you mean 'account'?)",
        ),
        (["--time", "soon"], [], "Slurm refuses the job: Invalid --time specification"),
        ([], ["--snippetsize", 4], "there is no option --snippetsize (did you mean '--snippet_size'?)"),
        ([], ["--models", "/nowhere.yaml"], "there is no --models /nowhere.yaml"),
    ],
)
def test_refused(cluster, slurm_command, few, trees, flink, tmp_path, job, options, said):
    """One line, no plan, no job."""
    words = ["submit", "--time", "5", "--engine", "flink", "--flink", flink, *job, "--"]
    words += ["--catalogue", few, "--models", trees[0], "--output", tmp_path / "out", *options]
    code, out, err = slurm_command(*words)
    assert code == 2 and out == "" and said in err, err
    assert len([line for line in err.splitlines() if line.startswith("error: ")]) == 1
    assert not (tmp_path / "out").exists()
    assert subprocess.run(["squeue", "--noheader"], capture_output=True, text=True).stdout == ""


def test_a_refusal_removes_nothing(cluster, slurm_command, predict, few, trees):
    """--overwrite acts when Slurm has taken the job."""
    output = predict(few, trees[0], "--passes", 1).output
    before = sorted(path for path in output.rglob("*") if path.is_file())
    words = ["--catalogue", few, "--models", trees[0], "--output", output, "--overwrite"]
    code, _, err = slurm_command("submit", "--time", 5, "--partition", "nowhere", "--", *words)
    assert code == 2 and "Slurm refuses the job" in err
    assert sorted(path for path in output.rglob("*") if path.is_file()) == before


def test_variables_of_sbatch(submit, monkeypatch):
    """They would win over the script's own lines."""
    for name, value in {"TIMELIMIT": "3", "ARRAY_INX": "0-3", "PARTITION": "nowhere"}.items():
        monkeypatch.setenv(f"SBATCH_{name}", value)
    job = submit(["--engine", "flink", "--nodes", 2, "--hold"])
    assert job.field("TimeLimit") == "00:10:00" and job.field("ArrayTaskId") == ""


def test_overwrite(submit, slurm_command, catalogue, trees):
    """It acts at submission, not while another job works on the output; the script does not have it."""
    waiting = ["--engine", "array", "--shared_nodes", "--hold"]
    job = submit(waiting, "--snippet_size", 50)
    words = [
        "--catalogue",
        catalogue,
        "--models",
        *trees,
        "--output",
        job.output,
        "--snippet_size",
        40,
        "--overwrite",
    ]
    code, _, err = slurm_command("submit", "--time", 5, *waiting, "--", *words)
    assert code == 2 and f"--overwrite: job {job.id} on {job.output} has not ended: cancel it first" in err
    assert slurm_command("cancel", job.id)[0] == 0
    job.wait()
    again = submit(waiting, "--snippet_size", 40, "--overwrite", output=job.output)
    scripts = list((job.output / "_slurm").glob("array-*.sh"))
    assert len(scripts) == 2 and not any("--overwrite" in script.read_text() for script in scripts)
    assert slurm_command("status", again.id)[0] == 0
    assert slurm_command("cancel", again.id)[0] == 0


def test_of_two_at_the_same_moment_one_stays(cluster, slurm_command, few, trees, tmp_path, monkeypatch):
    """Both found no plan; the second to publish one says so, and leaves no job, no script and no rows."""
    words = ["--catalogue", few, "--models", trees[0], "--output", tmp_path / "out", "--carry"]
    how = ["submit", "--time", 5, "--engine", "array", "--shared_nodes", "--hold", "--"]
    hand_in, first = submission._hand_in, []

    def after_the_other(*args):
        monkeypatch.setattr(submission, "_hand_in", hand_in)
        first.append(slurm_command(*how, *words, "ra", "--snippet_size", 8))
        assert first[0][0] == 0, first[0]
        first.append({path.relative_to(tmp_path) for path in tmp_path.rglob("*")})
        return hand_in(*args)

    monkeypatch.setattr(submission, "_hand_in", after_the_other)
    code, out, err = slurm_command(*how, *words, "dec", "--snippet_size", 4)
    assert code == 2 and out == "" and len(err.splitlines()) == 1, err
    assert "another job has just planned a run with other settings" in err
    assert {path.relative_to(tmp_path) for path in tmp_path.rglob("*")} == first[1]
    ids = re.findall(r"^job (\d+)", first[0][1], re.MULTILINE)
    waiting = subprocess.run(["squeue", "--noheader", "--format=%A"], capture_output=True, text=True)
    assert set(waiting.stdout.split()) == set(ids)
    assert slurm_command("cancel", ids[0])[0] == 0

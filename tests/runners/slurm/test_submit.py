"""`python -m runners.slurm submit`: what it refuses, and its script. tests/cluster has a real Slurm."""

import json
import os
import re
import shlex
from pathlib import Path

import pytest

from beam_zoo.storage.files import sha256
from pipelines.command_line import parse
from runners.flink import install
from runners.slurm.__main__ import main
from runners.slurm.submit import split_evenly, words_of

FLINK = ["--nodes", "2", "--time", "1:00:00"]


@pytest.fixture
def flink(tmp_path) -> Path:
    """An installation of one file."""
    folder = tmp_path / "flink"
    folder.mkdir()
    (folder / "boot").write_text(install._BOOT)
    mark = {
        "wanted": install._wanted(install.read_lock(), None),
        "files": {"boot": sha256(install._BOOT.encode())},
    }
    (folder / install.MARK).write_text(json.dumps(mark))
    return folder


@pytest.fixture
def submit(few, trees, flink, tmp_path, capfd):
    """Runs submit with `--print` in this process: code, stdout, stderr."""

    def run(job: list[object], *options: object, models=trees, with_flink=True) -> tuple[int, str, str]:
        words = ["submit", "--print", *job, *(["--flink", flink] if with_flink else []), "--"]
        words += ["--catalogue", few, "--models", *models, "--output", tmp_path / "out", *options]
        capfd.readouterr()
        code = main([str(word) for word in words])
        said = capfd.readouterr()
        return code, said.out, said.err

    return run


def command_of(text: str) -> list[str]:
    """The words of a script's last command."""
    return shlex.split(text[text.index("exec ") :].replace("\\\n", " "))


def test_print(submit, few, trees, flink, tmp_path):
    """The script on stdout; nothing is written."""
    code, out, err = submit(
        [*FLINK, "--partition", "gpu", "--mem_per_cpu=4G"], "--passes", 3, "--carry", "ra", "dec"
    )
    assert code == 0, err
    assert not (tmp_path / "out").exists()
    words = command_of(out)
    assert words[2:5] == ["-P", "-m", "runners.slurm.job"]
    own, theirs = words[5 : words.index("--")], words[words.index("--") + 1 :]
    assert own == [f"--flink={flink}"]
    assert theirs[0] == "predict"
    read = parse("predict", "", theirs[1:])
    assert read.inputs.catalogue == str(few) and read.inputs.models == tuple(map(str, trees))
    assert (read.sampling.passes, read.inputs.carry, read.work.device) == (3, ("ra", "dec"), "cpu")
    assert "#SBATCH --partition=gpu\n" in out and "#SBATCH --mem-per-cpu=4G\n" in out
    assert "#SBATCH --exclusive\n" in out and "#SBATCH --nodes=2\n" in out


def test_relative_paths(submit, few, trees, tmp_path, monkeypatch, flink, capfd):
    """The job may start in another folder: paths in the script are absolute, as a YAML file's are."""
    monkeypatch.chdir(few.parent)
    config = tmp_path / "run.yaml"
    config.write_text(f"models: [{trees[0]}]\npasses: 2\noverwrite: true\n")
    words = [
        *FLINK,
        "--print",
        "--flink",
        flink,
        "--",
        "--catalogue",
        few.name,
        "--output",
        "out",
        "--config",
        config,
    ]
    assert main(["submit", *map(str, words)]) == 0
    words = command_of(capfd.readouterr().out)
    assert f"--catalogue={few}" in words and f"--output={few.parent / 'out'}" in words
    assert f"--models={trees[0]}" in words and "--passes=2" in words
    # It acts once, when the job is submitted: a job that is requeued must not remove what it stored.
    assert not any("overwrite" in word or "config" in word for word in words)


def test_gpus(submit):
    """Asking for GPUs makes the job run on them."""
    code, out, _ = submit([*FLINK, "--gpus_per_node", 4])
    assert code == 0 and "--device=cuda" in command_of(out) and "--gpus_per_node=4" in command_of(out)
    assert "#SBATCH --gpus-per-node=4\n" in out
    code, out, _ = submit(
        ["--time", 9, "--nodes", 3, "--gpus_per_node", 2, "--engine", "array"], with_flink=False
    )
    assert code == 0 and "#SBATCH --array=0-0\n" in out  # one snippet, so one task
    code, out, _ = submit(
        ["--time", 9, "--nodes", 3, "--gpus_per_node", 2, "--engine", "array"],
        "--snippet_size",
        2,
        with_flink=False,
    )
    assert "#SBATCH --array=0-5\n" in out and "#SBATCH --gpus-per-node=1\n" in out  # a task a GPU
    assert "--exclusive" not in out  # which share nodes


@pytest.mark.parametrize(
    ("asked", "flink_asks", "task_asks"),
    [
        (["--gpus_per_node", 2], ["gpus-per-node=2"], ["gpus-per-node=1"]),
        (["--gpus-per-node=2"], ["gpus-per-node=2"], ["gpus-per-node=1"]),
        (["--gpus_per_node", "a100:2"], ["gpus-per-node=a100:2"], ["gpus-per-node=a100:1"]),
        (["--gres", "gpu:a100:2"], ["gres=gpu:a100:2"], ["gres=gpu:a100:1"]),
        (["--gres=gpu:2,nvme:100"], ["gres=gpu:2,nvme:100"], ["gres=gpu:1,nvme:100"]),
        (
            ["--gpus-per-task=a100:2"],
            ["gpus-per-task=a100:2", "ntasks-per-node=1"],
            ["gpus-per-task=a100:1", "ntasks=1"],
        ),
        (["--gpus_per_node=2", "--gres=gpu:a100:2"], ["gres=gpu:a100:2"], ["gres=gpu:a100:1"]),
    ],
)
def test_forms_of_gpus(submit, asked, flink_asks, task_asks):
    """The scripts ask in the user's form only; there is a worker for each GPU, and none for the tables."""

    def asks(text: str) -> list[str]:
        return [line[10:] for line in text.splitlines() if re.match("#SBATCH --(gpus|gres|ntasks)", line)]

    more = ["--constraint", "fast", "--cpus-per-gpu", 4]
    code, out, err = submit([*FLINK, *asked, *more])
    assert code == 0, err
    assert asks(out) == flink_asks
    assert {"--device=cuda", "--gpus_per_node=2"} <= set(command_of(out))
    words = ["--time", 9, "--nodes", 2, "--engine", "array", *asked, *more]
    code, out, err = submit(words, "--snippet_size", 2, with_flink=False)
    array, finish = out.split("#!/bin/bash\n")[1:]
    assert asks(array) == task_asks and "#SBATCH --array=0-3\n" in array
    assert "--device=cuda" in command_of(array) and "#SBATCH --cpus-per-gpu=4\n" in array
    assert asks(finish) == [word for word in ["gres=nvme:100"] if "nvme" in str(asked)]
    assert "#SBATCH --constraint=fast\n" in finish and not re.search("#SBATCH --[a-z-]*gpu", finish)


def test_dashes_are_underscores(submit):
    """In the names of all options of submit."""
    code, out, err = submit([*FLINK, "--shared-nodes", "--taskmanager-memory=2g", "--restarts", 3])
    assert code == 0, err
    assert "--exclusive" not in out and "--taskmanager_memory=2g" in command_of(out)


def test_one_node_needs_no_flink(submit):
    """The default engine follows the number of nodes."""
    code, out, _ = submit(["--time", 9], "--snippet_size", 2, with_flink=False)
    assert code == 0 and "#SBATCH --exclusive\n" in out
    array, finish = out.split("#!/bin/bash\n")[1:]
    assert "snippets=(0:12)" in array and "-m pipelines.predict" in array
    assert "-m runners.slurm.tables" in finish and "--max_failure_fraction=0.05" in finish


REFUSED = [
    (
        ["--nodes", 2, "--time", 9],
        [],
        False,
        "--engine flink needs --flink DIR, made by python -m runners.flink install",
    ),
    (
        ["--time", 9, "--engine", "array"],
        [],
        True,
        "--flink is of --engine flink, and this is --engine array",
    ),
    (["--nodes", 2], [], True, "the following arguments are required: --time"),
    (["--nodes", 0, "--time", 9], [], True, "0 is less than 1"),
    (["--time", 9, "--array=0-3"], [], False, "--array is set by submit: use --tasks, with --engine array"),
    (["--time", 9, "--gpus=2"], [], False, "--gpus is set by submit: use --gpus_per_node, of each node"),
    (
        ["--time", 9, "--gpus-per-socket=1"],
        [],
        False,
        "--gpus-per-socket is set by submit: use --gpus_per_node",
    ),
    (
        ["--time", 9, "--gpus-per-node=2", "--gres=gpu:1"],
        [],
        False,
        "--gres and --gpus-per-node ask for different GPUs: give one of them",
    ),
    (
        ["--time", 9, "--gpus-per-node=a100:x"],
        [],
        False,
        "--gpus-per-node: 'a100:x' is not a whole number or",
    ),
    (["--time", 9, "--gres=gpu:a100:1"], ["--device", "cpu"], False, "--device=cpu does not go with 1 GPUs"),
    (["--time", 9, "--gres="], [], False, "--gres needs what is asked for, such as gpu:2"),
    (["--time", 9, "--exclusive"], [], False, "whole nodes are asked for, or --shared_nodes"),
    (["--time", 9, "--output", "x"], [], False, "logs are below the output"),
    (["--time", 9, "--comment", "a\nb"], [], False, "cannot hold a line break"),
    (["--time", 9, "--nodes", "x"], [], False, "'x' is not a whole number"),
    (["--time", 9, "--gpus_per_node=-1"], [], False, "'-1' is not a whole number"),
    (["--time", 1], [], False, "1 is too short: Slurm's warning comes 60 s before the limit"),
    (["--time", "00:02:00"], [], False, "00:02:00 is too short"),
    ([*FLINK, "--taskmanager_memory", "lots"], [], True, "'lots' is not a size such as 1536m or 2g"),
    ([*FLINK, "--registration_seconds", "inf"], [], True, "'inf' is not a number of seconds"),
    ([*FLINK, "--restarts=-1"], [], True, "'-1' is not a whole number"),
    (["--time", 9, "--clusters", "b"], [], False, "use the login node of that cluster"),
    (
        ["--time", 9],
        ["--direct_running_mode=multi_processing"],
        False,
        "would listen on the network, without a password: leave it out",
    ),
    (FLINK, ["--output", "/a\\b"], True, "sbatch takes no path with"),
    (FLINK, ["--output", "/a:b"], True, "on a class path of Java a colon separates folders"),
    (
        ["--time", 9, "-p", "main"],
        [],
        False,
        "'-p' belongs to no option: options of sbatch have their long form here",
    ),
    ([*FLINK, "--tasks", 3], [], True, "--tasks is of --engine array"),
    (
        [*FLINK, "--gpus_per_node", 1],
        ["--device", "cpu"],
        True,
        "--device=cpu does not go with 1 GPUs a node",
    ),
    (
        FLINK,
        ["--device", "cuda"],
        True,
        "--device=cuda does not go with 0 GPUs a node: --gpus_per_node N asks",
    ),
    (FLINK, ["--runner=DataflowRunner"], True, "--runner=DataflowRunner does not go with --engine flink"),
    (FLINK, ["--flink_master=a:1"], True, "--flink_master=a:1 does not go with --engine flink"),
    (FLINK, ["--snippets", "0:1"], True, "--snippets is given by --engine array"),
    (FLINK, ["--dry_run"], True, "--dry_run submits nothing"),
    (FLINK, ["--snippetsize", 3], True, "there is no option --snippetsize (did you mean '--snippet_size'?)"),
    (FLINK, ["--catalogue", "/nowhere.csv"], True, "/nowhere.csv"),
    (FLINK, ["--passes", 0], True, "--passes must be at least 1"),
]


@pytest.mark.parametrize(("job", "options", "with_flink", "said"), REFUSED)
def test_refused(submit, tmp_path, job, options, with_flink, said):
    """One line, before anything is written or submitted."""
    code, out, err = submit(job, *options, with_flink=with_flink)
    assert code == 2 and out == "" and not (tmp_path / "out").exists()
    assert said in err and len(err.strip().splitlines()) == 1, err


def test_no_slurm_here(few, trees, tmp_path, monkeypatch, capfd):
    """Without --print a machine without Slurm says so, and nothing is planned."""
    monkeypatch.setenv("PATH", str(tmp_path))
    words = ["--catalogue", few, "--models", trees[0], "--output", tmp_path / "out"]
    assert main(["submit", "--time", "9", "--", *map(str, words)]) == 2
    assert "there is no sbatch on the PATH" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_not_an_installation(submit, flink):
    """The line says how to make it."""
    os.unlink(flink / install.MARK)
    code, _, err = submit(FLINK)
    assert code == 2 and f"is not there: python -m runners.flink install {flink}" in err


@pytest.mark.parametrize("change", ["other bytes", "one more", "one less", "another version"])
def test_a_changed_installation(submit, flink, change):
    """Workers are safe only if `ServerFactory` comes first on the class path: any change is refused."""
    if change == "other bytes":
        (flink / "boot").write_text("#!/bin/sh\n")
    elif change == "one more":
        (flink / "classes").mkdir()
        (flink / "classes" / "Other.class").touch()
    elif change == "one less":
        os.unlink(flink / "boot")
    else:
        mark = json.loads((flink / install.MARK).read_text())
        (flink / install.MARK).write_text(json.dumps(mark | {"wanted": "0" * 64}))
    code, out, err = submit(FLINK)
    said = {
        "another version": "by another version of this program: "
        "remove it, then python -m runners.flink install",
        "one more": "Other.class was not there when",
    }.get(change, "is not as it was installed: remove")
    assert code == 2 and out == "" and said in err


@pytest.mark.parametrize("text", ["3", "0", "2-0", "1:00:00", "10:00", "1-12:30", "UNLIMITED"])
def test_time_limits(submit, text):
    """Every form that sbatch takes, 0 and words too."""
    code, out, err = submit(["--nodes", 2, "--time", text])
    assert code == 0 and f"#SBATCH --time={text}\n" in out, err


def test_no_command_after_the_dashes(capfd):
    """Nothing to predict."""
    assert main(["submit", "--time", "9"]) == 2
    assert "come -- and those of predict" in capfd.readouterr().err
    assert main(["sbmit"]) == 2
    assert "there is no command 'sbmit' (did you mean 'submit'?)" in capfd.readouterr().err


@pytest.mark.parametrize("tasks", [1, 2, 3, 7, 40])
@pytest.mark.parametrize("missing", [[0], [3, 4, 9], list(range(20)), [19]])
def test_split_evenly(missing, tasks):
    """Together all snippets, without overlap; no two tasks differ by more than one in what is to do."""
    ranges = [range(*map(int, text.split(":"))) for text in split_evenly(missing, tasks, 20)]
    assert [n for each in ranges for n in each] == list(range(20))
    todo = [len(set(each) & set(missing)) for each in ranges]
    assert len(ranges) == min(tasks, len(missing)) and max(todo) - min(todo) <= 1


def test_words_of_are_read_again(few, trees):
    """Whatever differs from its default comes back as it was."""
    words = [
        "--catalogue",
        few,
        "--models",
        *trees,
        "--output",
        "/o",
        "--passes",
        7,
        "--carry",
        "ra",
        "--limit",
        3,
    ]
    words += ["--allow_outside", "--precision", "bf16", "--max_failure_fraction", 0.5, "--seed", 4]
    options = parse("predict", "", [str(word) for word in words])
    again = parse("predict", "", words_of(options))
    assert again.values == options.values


def test_a_bucket_as_output(submit):
    """Scripts and logs lie in the output: it must be a folder."""
    code, _, err = submit(FLINK, "--output", "gs://bucket/out")
    assert code == 2 and "so that it must be a folder" in err.splitlines()[-1]

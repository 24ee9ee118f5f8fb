"""YAML configs: later files win over earlier ones, the command line over all; a mistake names its file."""

from pathlib import Path

import pytest

from beam_zoo.errors import UserError
from pipelines.command_line import parse
from pipelines.options import OPTIONS, Options, models_of
from runners import beam_options


def _parse(*words: object) -> Options:
    names = [option.name for option in OPTIONS]
    return parse("predict", "", [str(w) for w in words], lambda flags: beam_options.check(flags, names))


def _yaml(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def _refusal(*words: object) -> str:
    with pytest.raises(UserError) as caught:
        _parse(*words)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_later_wins_and_the_command_line_over_all(tmp_path: Path) -> None:
    a = _yaml(tmp_path / "a.yaml", "passes: 1\nseed: 1\nbatch_size: 1\noverwrite: true\ncarry: [ra, dec]\n")
    b = _yaml(tmp_path / "b.yaml", "seed: 2\nbatch_size: 2\ncarry: ra\n")
    options = _parse("--config", a, b, "--batch_size", 3, "--no-overwrite")
    assert (options.values["passes"], options.values["seed"], options.values["batch_size"]) == (1, 2, 3)
    assert options.values["carry"] == ("ra",) and options.values["overwrite"] is False
    assert options.values["limit"] is None and options.values["precision"] == "fp32"
    assert _parse("--config", b, a).values["seed"] == 1
    assert _parse("--config", b, "--config", a).values["seed"] == 1
    origins = [options.origins[n] for n in ("passes", "seed", "batch_size", "overwrite", "limit")]
    assert origins == [str(a), str(b), "command line", "command line", "default"]


def test_null_is_the_default_again(tmp_path: Path) -> None:
    a = _yaml(tmp_path / "a.yaml", "limit: 5\ncarry: [ra]\n")
    b = _yaml(tmp_path / "b.yaml", "limit: null\ncarry: []\n")
    options = _parse("--config", a, b)
    assert options.values["limit"] is None and options.values["carry"] == ()


def test_relative_paths_start_at_their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = "catalogue: ../c.csv\nmodels: [a.yaml, /abs/b.yaml, ~/c.yaml]\noutput: gs://x/out\nimage_root: .\n"
    _yaml(tmp_path / "conf" / "run.yaml", text)
    monkeypatch.setenv("HOME", "/home/me")
    options = _parse("--config", "conf/run.yaml", "--output", "here")
    assert options.values["catalogue"] == "c.csv"
    assert options.values["models"] == ("conf/a.yaml", "/abs/b.yaml", "/home/me/c.yaml")
    assert (options.values["image_root"], options.values["output"]) == ("conf", "here")
    assert _parse("--config", "conf/run.yaml").values["output"] == "gs://x/out"


def test_models_given_twice_are_all_members() -> None:
    assert _parse("--models", "a", "b", "--models", "c").values["models"] == ("a", "b", "c")


def test_globs_of_models(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yaml", "[x].yaml"):
        _yaml(tmp_path / name, "name: x")
    assert models_of([str(tmp_path / "?.yaml")]) == [str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")]
    assert models_of([str(tmp_path / "[x].yaml")]) == [str(tmp_path / "[x].yaml")]
    with pytest.raises(UserError, match=r"did you mean 'a\.yaml'"):
        models_of([str(tmp_path / "aa.yaml")])


def test_options_of_beam(tmp_path: Path) -> None:
    a = _yaml(
        tmp_path / "a.yaml",
        "runner: FlinkRunner\nparallelism: 4\nexperiments: [x, y]\nstreaming: true\n"
        "environment_type: PROCESS\nenvironment_config: {command: /boot}\n",
    )
    assert _parse("--config", a).beam == [
        "--runner=FlinkRunner",
        "--parallelism=4",
        "--experiments=x",
        "--experiments=y",
        "--streaming",
        "--environment_type=PROCESS",
        '--environment_config={"command": "/boot"}',
    ]
    b = _yaml(tmp_path / "b.yaml", "experiments: z\nstreaming: false\n")
    options = _parse("--config", a, b, "--runner", "DirectRunner", "--parallelism=1")
    assert {"--experiments=z", "--runner=DirectRunner", "--parallelism=1"} < set(options.beam)
    assert not {"--experiments=x", "--streaming", "--runner=FlinkRunner", "--parallelism=4"} & set(
        options.beam
    )
    repeated = _parse("--config", a, "--experiments=p", "--experiments=q").beam
    assert [flag for flag in repeated if "experiments" in flag] == ["--experiments=p", "--experiments=q"]


def test_print_config_says_where_each_value_is_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing need be complete for it, and nothing is written."""
    from pipelines.predict import main

    a = _yaml(tmp_path / "a.yaml", "passes: 7\nrunner: DirectRunner\n")
    assert main(["--config", str(a), "--seed", "3", "--print_config"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert lines["passes"].split()[1:] == ["7", f"({a})"]
    assert lines["seed"].split()[1:] == ["3", "(command", "line)"]
    assert lines["batch_size"].split()[1:] == ["32", "(default)"]
    assert lines["runner"].endswith(f"({a})")
    assert {option.name for option in OPTIONS} < set(lines)
    assert list(tmp_path.iterdir()) == [a]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pases: 3", "no option --pases (did you mean '--passes'?)"),
        ("Passes: 3", "did you mean '--passes'?"),
        ("dry-run: true", "did you mean '--dry_run'?"),
        ("runner: DirektRunner", "no runner 'DirektRunner' (did you mean 'DirectRunner'?)"),
        ("direct_num_workers: many", "invalid int value: 'many'"),
        ("direct_num_workers: 2", "would only start threads"),
        ("direct_running_mode: multi_processing", "would listen on the network"),
        ("direct_running_mode: [in_memory, multi_threading]", "would listen on the network"),
        ("streaming: 3", "--streaming"),
        ("passes: '3'", "passes must be a whole number, not '3'"),
        ("passes: 1e3", "passes must be a whole number, not '1e3'"),
        ("passes: 2.5", "passes must be a whole number, not 2.5"),
        ("passes: .inf", "passes must be a whole number"),
        ("passes: true", "passes must be a whole number, not True"),
        ("passes: [3]", "passes must be a whole number"),
        ("passes: {a: 1}", "passes must be a whole number"),
        ("seed: -1", "seed must be at least 0"),
        ("max_failure_fraction: .nan", "max_failure_fraction must be a number"),
        ("max_failure_fraction: 5", "max_failure_fraction must be at most 1"),
        ("overwrite: 'yes'", "overwrite must be true or false, not 'yes'"),
        ("overwrite: 1", "overwrite must be true or false, not 1"),
        ("snippets: 1:30", "snippets must be text, not 90 (put it in quotes)"),
        ("carry: [ra, 5]", "carry must be text, not 5"),
        ("carry: no", "carry must be text, not False"),
        ("catalogue: [a.csv]", "catalogue must be text"),
        ("catalogue: ''", "must be text"),
        ("models: {a: b.yaml}", "models must be text"),
        ("precision: fp8", "cannot be 'fp8' (choose from fp32, tf32, bf16, fp16)"),
        ("config: other.yaml", "cannot name others"),
        ("predict:\n  passes: 3", "no option --predict"),
        ("", "must hold a mapping"),
        ("- passes", "must hold a mapping"),
        ("passes 3", "must hold a mapping"),
        ("1: 2", "must hold a mapping"),
        ("passes: [3", "not plain YAML"),
        ("\tpasses: 3", "not plain YAML"),
        ("passes: !!python/object/apply:os.system ['touch made']", "not plain YAML"),
        ("passes: !!python/name:os.system", "not plain YAML"),
        ("a: &a [*a]", "no option --a"),
    ],
)
def test_mistakes_name_their_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = _yaml(tmp_path / "run.yaml", text + "\n")
    refusal = _refusal("--config", path)
    assert words in refusal
    assert str(path) in refusal
    assert list(tmp_path.iterdir()) == [path]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    _yaml(tmp_path / "laptop.yaml", "passes: 3")
    assert "did you mean 'laptop.yaml'?" in _refusal("--config", tmp_path / "labtop.yaml")
    assert "Is a directory" in _refusal("--config", tmp_path)
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00passes")
    assert "not plain YAML" in _refusal("--config", tmp_path / "x.yaml")
    assert "expected at least one argument" in _refusal("--config")

"""What `pip install .` gives, and that it is our code which runs, whatever the current folder holds."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pandas as pd
import pytest
import yaml

import beam_zoo
from pipelines.__main__ import COMMANDS

REPO = Path(__file__).parents[1]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built of a copy of the repository."""
    copy, folder = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for name in listed:
        if (REPO / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((REPO / name).read_bytes())
    subprocess.run([*PIP, "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, "."], cwd=copy, check=True)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A folder with nothing but what the wheel installs."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([*PIP, "install", "--quiet", "--no-deps", "--target", folder, wheel], check=True)
    return folder


@pytest.fixture
def foreign(tmp_path, monkeypatch) -> Path:
    """The current folder has packages and modules of our packages' names."""
    for name in ("pipelines", "beam_zoo"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('the code of the current folder')")
    (tmp_path / "runners.py").write_text("raise SystemExit('the code of the current folder')")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def beam_zoo_command(installed: Path, *words: object) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    environment.pop("PYTHONSAFEPATH", None)
    program = [sys.executable, installed / "bin" / "beam-zoo", *map(str, words)]
    return subprocess.run(program, env=environment, capture_output=True, text=True)


def test_the_wheel_has_all_that_is_needed(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    conf = {f"beam_zoo/conf/{path.relative_to(REPO / 'conf')}" for path in (REPO / "conf").rglob("*.yaml")}
    members = {f"examples/members/{path.name}" for path in (REPO / "examples" / "members").iterdir()}
    java = {str(path.relative_to(REPO)) for path in (REPO / "runners/flink/java").rglob("*.class")}
    assert conf and members and java
    assert conf | members | java | {"beam_zoo/py.typed", "runners/flink/lock.json"} <= names
    for folder in ("beam_zoo", "pipelines", "runners", "examples"):
        sources = {str(path.relative_to(REPO)) for path in (REPO / folder).rglob("*.py")}
        sources -= {"runners/dataflow/template/main.py"}  # the launcher of Dataflow finds it in the image
        assert sources <= names, sources - names


def test_metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("dist-info/METADATA"))
        text = archive.read(name).decode()
    assert re.search(r"^License-Expression: GPL-3.0-or-later$", text, re.MULTILINE)
    assert re.search(rf"^Version: {re.escape(beam_zoo.__version__)}$", text, re.MULTILINE)
    assert {"gcp", "gpu", "test"} == set(re.findall(r"^Provides-Extra: (\S+)$", text, re.MULTILINE))
    assert "GPL-3.0-or-later" in (REPO / "LICENSE").read_text()
    assert "GPL-3.0-or-later" in (REPO / "README.md").read_text()


def test_the_version_has_one_place():
    citation = yaml.safe_load((REPO / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0" and citation["version"] == beam_zoo.__version__
    assert citation["license"] == "GPL-3.0-or-later"
    assert all(each["doi"] for each in citation["references"])
    assert f"## {beam_zoo.__version__}" in (REPO / "CHANGELOG.md").read_text()


def test_floors_are_not_above_the_versions_that_are_tested():
    import tomllib

    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    pins = dict(
        re.findall(
            r"^([\w.-]+)(?:\[\w+\])?==([\w.]+)$", (REPO / "requirements.txt").read_text(), re.MULTILINE
        )
    )
    pins = {name.lower(): version for name, version in pins.items()}
    wanted = [
        *project["dependencies"],
        *(w for extra in project["optional-dependencies"].values() for w in extra),
    ]
    for requirement in wanted:
        name, floor = re.fullmatch(r"([\w.-]+)(?:\[\w+\])?>=([\d.]+).*", requirement).groups()
        numbers = [
            tuple(map(int, re.findall(r"\d+", version)[:3])) for version in (floor, pins[name.lower()])
        ]
        assert numbers[0] <= numbers[1], requirement


def test_commands_are_found(installed, foreign):
    done = beam_zoo_command(installed, "--help")
    assert done.returncode == 0, done.stderr
    assert set(COMMANDS) <= {line.split()[0] for line in done.stdout.splitlines() if line}
    for name in COMMANDS:
        done = beam_zoo_command(installed, name, "--help")
        assert done.returncode == 0 and "--" in done.stdout + done.stderr, (name, done.stderr)
    conf = Path(beam_zoo_command(installed, "conf").stdout.strip())
    assert conf == installed / "beam_zoo" / "conf" and (conf / "models" / "effnet_desi.yaml").exists()
    done = beam_zoo_command(installed, "predicct")
    assert (done.returncode, done.stderr) == (
        2,
        "error: there is no command 'predicct' (did you mean 'predict'?)\n",
    )


def test_help_imports_neither_beam_nor_torch(installed):
    program = (
        "import sys; from pipelines.__main__ import main\n"
        "try: main(['predict', '--help'])\n"
        "finally: print(sorted({'apache_beam', 'torch', 'pandas', 'pyarrow', 'numpy'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr


@pytest.mark.slow
def test_the_current_folder_is_not_imported(installed, foreign, few):
    """All processes of a run are of our packages: those that decode, and those that build tables, too."""
    members = sorted((installed / "examples" / "members").glob("demo_*.yaml"))
    words = ["--catalogue", few, "--models", *members, "--output", "OUT", "--passes", 2]
    done = beam_zoo_command(installed, "predict", *words)
    assert done.returncode == 0, done.stderr
    assert len(pd.read_parquet("OUT/friendly")) == len(pd.read_csv(few))
    done = beam_zoo_command(installed, "audit", "OUT")
    assert done.returncode == 0, done.stdout + done.stderr


def test_python_is_started_without_the_current_folder():
    """Every Python program of ours that another process of ours starts."""
    for folder in ("beam_zoo", "pipelines", "runners"):
        for path in (REPO / folder).rglob("*.py"):
            for words in re.findall(r"\[sys\.executable, ([^\]]*)", path.read_text()):
                assert words.startswith(('"-P"', '"-m", "pip"')), (path, words)

"""What tests share: a catalogue, two members, and a way to run a command in this process."""

import dataclasses
import signal
from pathlib import Path

import pandas as pd
import pytest

from tests import checkpoints, galaxies

# If a shell starts the tests in the background, they, and the commands that they interrupt, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> str:
    """Which galaxies the tests see: real ones are better, and not everybody has them."""
    found = (galaxies.REAL / "catalogue.csv").exists()
    where = (
        f"real, from {galaxies.REAL}"
        if found
        else "simulated (set BEAM_ZOO_GALAXIES to a folder of real ones)"
    )
    return f"galaxies: {where}"


@pytest.fixture(scope="session")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Up to 128 real galaxies (or simulated ones, where there are none at hand)."""
    return galaxies.best(tmp_path_factory.mktemp("galaxies"), 128)


@pytest.fixture(scope="session")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """23 small simulated galaxies, with ra and dec."""
    folder = tmp_path_factory.mktemp("few")
    galaxies.simulated(folder, 23)
    return folder / "catalogue.csv"


@pytest.fixture
def own_catalogue(tmp_path: Path) -> Path:
    """12 small simulated galaxies of this test's own: it may change and remove them."""
    galaxies.simulated(tmp_path / "sky", 12)
    return tmp_path / "sky" / "catalogue.csv"


@pytest.fixture(scope="session")
def trees(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two ZoobotTree members with dropout at test time and the same deterministic view."""
    folder = tmp_path_factory.mktemp("trees")
    made = [checkpoints.tree(folder / f"{name}.ckpt", seed=seed) for seed, name in enumerate("ab")]
    return [checkpoints.member(folder / f"{p.stem}.yaml", p, schema=checkpoints.TREE_SCHEMA) for p in made]


@dataclasses.dataclass
class Result:
    """A command that ended."""

    code: int
    out: str
    err: str
    output: Path

    def table(self, name: str) -> pd.DataFrame:
        """One of the output's tables."""
        return pd.read_parquet(self.output / name)


@pytest.fixture
def predict(tmp_path, capfd):
    """Runs `python -m pipelines.predict` with these arguments, in this process, into a fresh output."""
    return _command("predict", tmp_path, capfd)


@pytest.fixture
def represent(tmp_path, capfd):
    """Runs `python -m pipelines.represent` likewise."""
    return _command("represent", tmp_path, capfd)


def _command(name, tmp_path, capfd):
    from pipelines import predict as predict_module
    from pipelines import represent as represent_module

    main = {"predict": predict_module, "represent": represent_module}[name].main
    runs = []

    def run(catalogue, models, *options, output=None) -> Result:
        runs.append(1)
        remote = isinstance(output, str) and output.startswith("gs:")
        folder = output if remote else Path(output) if output else tmp_path / f"output-{len(runs)}"
        models = [models] if isinstance(models, str | Path) else models
        argv = ["--catalogue", catalogue, "--models", *models, "--output", folder, *options]
        capfd.readouterr()
        code = main([str(word) for word in argv])
        captured = capfd.readouterr()
        return Result(code, captured.out, captured.err, folder)

    return run

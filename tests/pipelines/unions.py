"""For tests of aggregate and export: predicted runs, each made once, and the comparison with one run."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pandas as pd

from pipelines import aggregate as command
from pipelines.predict import main as predict

OPTIONS = ["--passes", 3, "--snippet_size", 5]


class Runs:
    """Predicted runs by their command line: each is made once and never changed.

    Args:
        folder: where the outputs go.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made: dict[tuple[str, ...], Path] = {}

    def __call__(self, catalogue: Path, models: list[Path] | Path, *options: Any, code: int = 0) -> Path:
        models = [models] if isinstance(models, Path) else models
        words = tuple(map(str, ["--catalogue", catalogue, "--models", *models, *options]))
        if words not in self._made:
            output = self.folder / f"run-{len(self._made)}"
            assert predict([*words, "--output", str(output)]) == code
            self._made[words] = output
        return self._made[words]


class Result:
    """An aggregate that ended."""

    def __init__(self, code: int, err: str, output: Path) -> None:
        self.code, self.err, self.output = code, err, output

    def table(self, name: str) -> pd.DataFrame:
        """One of its tables."""
        return pd.read_parquet(self.output / name)

    @property
    def manifest(self) -> dict[str, Any]:
        """Its manifest."""
        return json.loads((self.output / "manifest.json").read_text())


def aggregate(output: Path, *sources: Path, options: tuple[Any, ...] = ()) -> Result:
    """Runs `python -m pipelines.aggregate` in this process."""
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        code = command.main([str(w) for w in ("--samples", *sources, "--output", output, *options)])
    return Result(code, err.getvalue(), output)


def assert_same(result: Result, one: Path, *, drop: tuple[str, ...] = ()) -> None:
    """The tables of one run: order, columns, types and failures alike, numbers to 1e-6."""
    assert result.code == 0, result.err
    for name in ("friendly", "advanced", "failures"):
        expected = pd.read_parquet(one / name).drop(columns=[c for c in drop if name != "failures"])
        pd.testing.assert_frame_equal(result.table(name), expected, rtol=0, atol=1e-6)
    manifest = result.manifest
    assert manifest["rows_predicted"] == len(result.table("friendly"))
    assert manifest["rows_failed"] == len(result.table("failures"))
    assert sorted(p.name for p in result.output.iterdir()) == [
        "_aggregate.json",
        "advanced",
        "failures",
        "friendly",
        "manifest.json",
    ]


def assert_refused(result: Result, *said: str) -> None:
    """Exit code 2, one line with these words, and nothing published."""
    assert result.code == 2, result.err
    lines = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and lines[0] == result.err.splitlines()[-1]
    for words in said:
        assert words in lines[0], lines[0]
    assert not result.output.exists() or not list(result.output.iterdir())

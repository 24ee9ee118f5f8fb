"""The notebook runs, cell by cell, and ends in a picture."""

import json
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder in which what the notebook needs lies beside it; what it writes lies there alone."""
    folder = tmp_path / "examples"
    folder.mkdir()
    for path in EXAMPLES.iterdir():
        (folder / path.name).symlink_to(path)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


def test_quickstart(workplace, capsys):
    notebook = json.loads((EXAMPLES / "quickstart.ipynb").read_text())
    assert notebook["nbformat"] == 4
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells)
    names: dict = {"__name__": "__main__"}
    for cell in cells:
        exec(compile("".join(cell["source"]), "quickstart.ipynb", "exec"), names)
    output = names["output"]
    assert (output.rows, output.predicted, output.failed) == (40, 40, 0)
    friendly = pd.read_parquet(workplace / "quickstart" / "predictions" / "friendly")
    assert names["report"].is_sound and "40" in capsys.readouterr().out
    fractions = friendly["ring_yes_fraction"].dropna().sort_values(ascending=False)
    drawn = names["galaxies"]["value"].head(16).tolist()
    assert len(drawn) == 16 and drawn == fractions.head(16).tolist()
    with Image.open(workplace / "quickstart" / "rings.png") as picture:
        assert picture.size == names["picture"].size and len(set(picture.resize((64, 16)).getdata())) > 50


def test_lines_are_short():
    for cell in json.loads((EXAMPLES / "quickstart.ipynb").read_text())["cells"]:
        assert all(len(line.rstrip("\n")) <= 110 for line in cell["source"])

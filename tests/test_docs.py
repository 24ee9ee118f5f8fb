"""What the documentation names is there, and its commands run."""

import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests import checkpoints, galaxies

REPO = Path(__file__).parents[1]
PAGES = [REPO / "README.md", REPO / "CHANGELOG.md", *sorted((REPO / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_modules_are_there(page):
    """History may name files that are gone."""
    if page.name == "performance-history.md":
        return
    text = page.read_text()
    for path in re.findall(
        r"(?<![\w/])((?:beam_zoo|pipelines|runners|tests|examples|conf/(?:models|surveys|machines))"
        r"/[\w/.-]+\.\w+)",
        text,
    ):
        assert (REPO / path).exists(), path
    for module in re.findall(r"python -m ((?:pipelines|runners|benchmarks|examples)[\w.]*\w)", text):
        path = REPO / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_lines_are_short(page):
    """At most 100 characters, in code blocks and tables too."""
    lines = page.read_text().splitlines()
    assert not [number for number, line in enumerate(lines, 1) if len(line) > 100]


def test_every_page_is_listed():
    readme = (REPO / "README.md").read_text()
    for page in (REPO / "docs").glob("*.md"):
        if page.name != "performance-history.md":
            assert f"docs/{page.name}" in readme, page.name


BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUN, NOT_RUN = ("sh", "python"), ("sh not-run", "yaml", "text")


def blocks(page, *kinds):
    """(kind, content) of the page's blocks of these kinds, or of all."""
    return [(kind, text) for kind, text in BLOCK.findall(page.read_text()) if not kinds or kind in kinds]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_says_what_it_is(page):
    assert {kind for kind, _ in blocks(page)} <= {*RUN, *NOT_RUN}


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, *RUN)], ids=lambda page: page.name)
def test_the_commands_of_a_page_run(page, tmp_path, monkeypatch):
    """In order, in a folder with the catalogue that the quickstart shows, its images and two members."""
    [catalogue] = [text for _, text in blocks(REPO / "docs" / "quickstart.md", "text") if "id_str" in text]
    (tmp_path / "galaxies.csv").write_text(catalogue)
    rows = pd.read_csv(io.StringIO(catalogue))
    galaxies.simulated(tmp_path / "sky", len(rows))
    (tmp_path / "images").mkdir()
    for location, image in zip(rows["file_loc"], sorted((tmp_path / "sky").rglob("*.jpg")), strict=True):
        shutil.move(image, tmp_path / location)
    checkpoints.demo_members(tmp_path)
    monkeypatch.chdir(tmp_path)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for kind, text in blocks(page, *RUN):
        if kind == "sh":
            subprocess.run(
                ["bash", "-euo", "pipefail", "-c", text], check=True, env=os.environ | {"PATH": path}
            )
        else:
            exec(compile(text, str(page), "exec"), {"__name__": "__main__"})
    manifest = pd.read_json(tmp_path / "OUT" / "manifest.json", typ="series")
    assert manifest["rows_predicted"] == len(rows)

"""What the documentation names is there."""

import re
from pathlib import Path

import pytest

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

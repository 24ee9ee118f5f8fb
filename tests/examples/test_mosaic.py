"""The mosaic shows the galaxies that have a number, highest first."""

from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from examples.mosaic import CAPTION, MARGIN, THUMBNAIL, main, sorted_galaxies
from examples.simulate import write_survey


def test_galaxies_are_sorted_and_those_without_a_number_left_out() -> None:
    predictions = pd.DataFrame(
        {"id_str": ["a", "b", "c", "d"], "ring_yes_fraction": [0.2, float("nan"), 0.9, 0.2]}
    )
    catalogue = pd.DataFrame({"id_str": list("dcba"), "file_loc": [f"{x}.jpg" for x in "dcba"]})
    galaxies = sorted_galaxies(predictions, catalogue, "ring_yes_fraction")
    assert list(galaxies["id_str"]) == ["c", "a", "d"]
    assert list(galaxies["file_loc"]) == ["c.jpg", "a.jpg", "d.jpg"]
    with pytest.raises(SystemExit, match="ring_yes_fraction"):
        sorted_galaxies(predictions, catalogue, "bar_yes_fraction")


def test_command_line_draws_a_png(tmp_path: Path) -> None:
    write_survey(tmp_path, count=5, seed=1, size=64)
    parts = tmp_path / "friendly"
    parts.mkdir()
    ids = [f"sim-{index:06d}" for index in range(5)]
    values = pd.DataFrame({"id_str": ids, "ring_yes_fraction": [0.1, 0.7, float("nan"), 0.4, 0.3]})
    values[:2].to_parquet(parts / "part-00000-of-00002.parquet")
    values[2:].to_parquet(parts / "part-00001-of-00002.parquet")
    output = tmp_path / "pictures" / "mosaic.png"
    arguments = ["--predictions", str(parts), "--catalogue", str(tmp_path / "catalogue.csv")]
    arguments += ["--column", "ring_yes_fraction", "--output", str(output), "--columns", "3"]
    main(arguments)
    with Image.open(output) as mosaic:
        assert mosaic.format == "PNG"
        # Four galaxies have a number: a row of three and a row of one.
        width, height = THUMBNAIL + MARGIN, THUMBNAIL + CAPTION + MARGIN
        assert mosaic.size == (3 * width + MARGIN, 2 * height + MARGIN)

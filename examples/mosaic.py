"""Draws a mosaic of galaxies sorted by one predicted quantity.

`python -m examples.mosaic --predictions OUT/friendly --catalogue CAT.csv
--column ring_yes_fraction --output mosaic.png` puts the highest value first and writes it beneath
each galaxy.
"""

import argparse
from pathlib import Path

import pandas as pd
from PIL import Image, ImageDraw, ImageFont

THUMBNAIL = 150
"""Side of a galaxy's image, pixels."""
CAPTION = 22
"""Height of the strip with the number, pixels."""
MARGIN = 4
"""Space between galaxies, pixels."""
CROP = 1 / 1.2
"""Central share of each side that is shown: what the members see through the minimal view."""


def sorted_galaxies(predictions: pd.DataFrame, catalogue: pd.DataFrame, column: str) -> pd.DataFrame:
    """Galaxies with a number in `column`, highest first.

    Args:
        predictions: columns `id_str` and `column`; one row a galaxy.
        catalogue: columns `id_str` and `file_loc`.
        column: what to sort by.

    Returns:
        Columns `id_str`, `file_loc`, `value`. Galaxies without a number are left out: their image
        could not be read, or the question does not apply. Ties are sorted by `id_str`.
    """
    if column not in predictions.columns:
        numeric = sorted(predictions.select_dtypes("number").columns)
        raise SystemExit(f"predictions have no column {column!r}; they have {', '.join(numeric)}")
    values = predictions[["id_str", column]].rename(columns={column: "value"})
    values = values.dropna(subset=["value"]).astype({"id_str": str})
    files = catalogue[["id_str", "file_loc"]].astype(str)
    merged = values.merge(files, on="id_str", how="inner")
    return merged.sort_values(["value", "id_str"], ascending=[False, True], ignore_index=True)


def thumbnail(path: Path) -> Image.Image:
    """Centre of an image file as an RGB image, `THUMBNAIL` pixels a side."""
    with Image.open(path) as image:
        rgb = image.convert("RGB")
    side = CROP * min(rgb.size)
    left, top = (rgb.width - side) / 2, (rgb.height - side) / 2
    return rgb.resize(
        (THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side)
    )


def draw_mosaic(galaxies: pd.DataFrame, folder: Path, columns: int) -> Image.Image:
    """The mosaic, read row by row.

    Args:
        galaxies: columns `file_loc`, `value`, in the order to draw.
        folder: what `file_loc` is relative to.
        columns: galaxies a row.
    """
    if galaxies.empty:
        raise SystemExit("no galaxy has a number to sort by")
    columns = min(columns, len(galaxies))
    rows = -(-len(galaxies) // columns)
    width, height = THUMBNAIL + MARGIN, THUMBNAIL + CAPTION + MARGIN
    mosaic = Image.new("RGB", (columns * width + MARGIN, rows * height + MARGIN), (16, 16, 18))
    draw = ImageDraw.Draw(mosaic)
    font = ImageFont.load_default(size=14)
    for number, galaxy in enumerate(galaxies.itertuples(index=False)):
        left = MARGIN + number % columns * width
        top = MARGIN + number // columns * height
        mosaic.paste(thumbnail(folder / str(galaxy.file_loc)), (left, top))
        draw.text(
            (left + THUMBNAIL / 2, top + THUMBNAIL + CAPTION / 2),
            f"{galaxy.value:.2f}",
            fill=(225, 225, 225),
            font=font,
            anchor="mm",
        )
    return mosaic


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.mosaic",
        description="Draw galaxies sorted by a predicted quantity, highest first.",
    )
    parser.add_argument(
        "--predictions", type=Path, required=True, help="folder of Parquet parts, or one file"
    )
    parser.add_argument("--catalogue", type=Path, required=True, help="CSV with id_str and file_loc")
    parser.add_argument("--column", required=True, help="what to sort by, e.g. ring_yes_fraction")
    parser.add_argument("--output", type=Path, required=True, help="PNG to write")
    parser.add_argument("--columns", type=int, default=10, help="galaxies a row (default 10)")
    parser.add_argument("--limit", type=int, help="draw only this many, the highest")
    arguments = parser.parse_args(argv)
    catalogue = pd.read_csv(arguments.catalogue, dtype={"id_str": str})
    galaxies = sorted_galaxies(pd.read_parquet(arguments.predictions), catalogue, arguments.column).head(
        arguments.limit if arguments.limit is not None else len(catalogue)
    )
    mosaic = draw_mosaic(galaxies, arguments.catalogue.parent, max(1, arguments.columns))
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    mosaic.save(arguments.output)


if __name__ == "__main__":
    main()

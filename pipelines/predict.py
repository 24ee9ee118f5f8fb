"""Predict vote fractions of galaxies with an ensemble of Zoobot checkpoints.

    python -m pipelines.predict --catalogue galaxies.csv --models conf/models/a.yaml conf/models/b.yaml --output OUT

writes OUT/friendly, OUT/advanced, OUT/samples, OUT/failures (Parquet) and OUT/manifest.json.
"""

import sys

from pipelines import command

DESCRIPTION = "Predict vote fractions of galaxies with an ensemble of Zoobot checkpoints."


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return command.main("predict", DESCRIPTION, argv)


if __name__ == "__main__":
    sys.exit(main())

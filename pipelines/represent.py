"""Write the features that Zoobot encoders give to galaxies.

    python -m pipelines.represent --catalogue galaxies.csv --models conf/models/a.yaml conf/models/b.yaml --output OUT

writes OUT/representations/{member} and OUT/failures (Parquet) and OUT/manifest.json.
"""

import sys

from pipelines import command

DESCRIPTION = "Write the features that Zoobot encoders give to galaxies."


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return command.main("represent", DESCRIPTION, argv)


if __name__ == "__main__":
    sys.exit(main())

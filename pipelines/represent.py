"""Write the features that Zoobot encoders give to galaxies.

    python -m pipelines.represent --catalogue galaxies.csv --models a.yaml b.yaml --output OUT

writes OUT/representations/{member} and OUT/failures (Parquet) and OUT/manifest.json. The dataflow is that of
`predict`, with features instead of answers.
"""

import sys

from pipelines import command
from pipelines.predict import execute

DESCRIPTION = "Write the features that Zoobot encoders give to galaxies."


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return command.run("represent", DESCRIPTION, argv, execute)


if __name__ == "__main__":
    sys.exit(main())

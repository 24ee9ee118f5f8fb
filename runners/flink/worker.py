"""Beam's Python worker, as `boot` starts it."""

import logging
import sys

from runners.forgiving import forgive


def main() -> None:
    """Run Beam's worker to its end."""
    forgive()  # before logging takes hold of the streams
    logging.basicConfig()  # to this worker's own file, besides what Beam sends to Flink
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main(sys.argv)


if __name__ == "__main__":
    main()

"""The job after an array: it builds the tables, or says how the array's tasks ended if samples are missing.

    python -m runners.slurm.tables OUT

The batch script of `python -m runners.slurm submit` runs it, with the options of `python -m
pipelines.finish`.
"""

import os
import sys

from pipelines import command, finish
from runners.slurm import records, states


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code of `pipelines.finish`."""
    words = list(sys.argv[1:] if argv is None else argv)
    return command.guarded(lambda: _main(words))


def _main(words: list[str]) -> int:
    code = finish.work(words)
    if code == finish.NOT_COMPLETE:
        record = records.record(words[0], os.environ["SLURM_JOB_ID"])
        print(f"array {record.job}: {states.summary(record)}; the same submission does what is missing")
    return code


if __name__ == "__main__":
    sys.exit(main())

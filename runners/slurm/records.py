"""The files of a job in the folder of its output: its script, its record and its logs."""

import dataclasses
import json
import os
from pathlib import Path

from beam_zoo.errors import UserError
from beam_zoo.storage import private_folder
from beam_zoo.storage.files import write_json
from beam_zoo.storage.layout import SLURM_JOBS
from runners.flink import keys


def folder(output: str) -> Path:
    """The folder of all jobs of an output."""
    return Path(os.path.abspath(os.path.expanduser(output)), SLURM_JOBS)


def own_folder(output: str, job: str) -> Path:
    """The folder of a job's logs and key, made if absent, with mode 700.

    Raises:
        UserError: it has another owner or mode.
    """
    path = folder(output) / job
    path.parent.mkdir(parents=True, exist_ok=True)
    if private_folder.fault(str(path)):
        raise UserError(f"{path} is not a folder of yours alone (mode 700): remove it, and submit again")
    return path


def private(output: str, job: str) -> Path:
    """The folder of a job's key."""
    return folder(output) / job / keys.FOLDER


@dataclasses.dataclass(frozen=True)
class Record:
    """A job that was submitted.

    Attributes:
        job: its id.
        engine: `flink` or `array`.
        output: folder of the output.
        log: of the job; of an array `%a` stands for the task's number.
        script: the batch script.
        submitted: when, in seconds since 1970.
        finish: id of the job that builds the tables of an array, or None.
        finish_log: its log.
    """

    job: str
    engine: str
    output: str
    log: str
    script: str
    submitted: float
    finish: str | None = None
    finish_log: str | None = None

    @property
    def ids(self) -> list[str]:
        """Ids of the job, and of the one that builds the tables."""
        return [self.job] if self.finish is None else [self.job, self.finish]

    @property
    def path(self) -> Path:
        """The record's file, beside the script."""
        return folder(self.output) / f"{self.job}.json"

    def write(self) -> None:
        """Write the record's file."""
        write_json(str(self.path), dataclasses.asdict(self))


def records(output: str) -> list[Record]:
    """Records of all jobs of an output."""
    return [_read(path) for path in sorted(folder(output).glob("*.json"))]


def record(output: str, job: str) -> Record:
    """The record of an output's job, by its id or by that of the job that builds an array's tables.

    Raises:
        UserError: there is no such record.
    """
    for found in records(output):
        if job in found.ids:
            return found
    raise UserError(f"job {job} was not submitted by python -m runners.slurm for {output}")


def _read(path: Path) -> Record:
    return Record(**json.loads(path.read_text()))

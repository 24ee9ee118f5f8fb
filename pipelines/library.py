"""The commands as functions, for programs and notebooks: `beam_zoo.predict` and the others.

Each takes the command's options as keywords, raises an error of `beam_zoo.errors` where the command would
print its line, and leaves the process as it found it.
"""

import dataclasses
import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from beam_zoo.errors import UserError, did_you_mean
from beam_zoo.results import Output, open_output
from beam_zoo.runtime.tuning import callers_process
from beam_zoo.storage.files import absolute, is_remote
from pipelines import command
from pipelines.options import BY_NAME, OPTIONS, Options, member_list

if TYPE_CHECKING:
    from beam_zoo.members.member import MemberSpec

NOT_HERE = ("snippets", "dry_run", "print_config")
"""Options of the command that give no complete output."""
Path = str | os.PathLike[str]


def _documented(function: Callable[..., Output]) -> Callable[..., Output]:
    """Add all options of the command to a function's signature and docstring."""
    signature = inspect.signature(function)
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    others = [option for option in OPTIONS if option.name not in {*signature.parameters, *NOT_HERE}]
    kind = inspect.Parameter.KEYWORD_ONLY
    added = [inspect.Parameter(option.name, kind, default=option.default) for option in others]
    function.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
    lines = "\n".join(
        f"        {option.name}: {option.help}; by default {option.default!r}." for option in others
    )
    function.__doc__ = str(function.__doc__).replace("        **options: of the command.", lines)
    return function


@_documented
def predict(
    catalogue: Path,
    models: "Sequence[Path | MemberSpec]",
    output: Path,
    *,
    beam_options: Sequence[str] = (),
    **options: Any,
) -> Output:
    """Predict vote fractions of a catalogue's galaxies; goes on where an earlier call stopped.

    Args:
        catalogue: Parquet or CSV with `id_str` and `file_loc`: a file, a folder or a glob.
        models: the members of the ensemble: YAML files, or what `read_member` made of them.
        output: folder of the output.
        beam_options: of Apache Beam, such as `["--runner=FlinkRunner"]`.
        **options: of the command.

    Raises:
        UserError: something is wrong that the caller can put right.
        TooManyFailures: more galaxies failed than `max_failure_fraction` allows; the output is complete.
        RunFailed: a runner failed; the same call goes on.
        StorageFull: the output's disk is full.

    >>> models = ["a.yaml", "b.yaml"]
    >>> output = beam_zoo.predict(catalogue="galaxies.csv", models=models, output="NEW", passes=3)
    >>> output.predicted, output.friendly().shape
    (8, (8, 7))
    """
    return _run("predict", catalogue, models, output, beam_options, options)


@_documented
def represent(
    catalogue: Path,
    models: "Sequence[Path | MemberSpec]",
    output: Path,
    *,
    beam_options: Sequence[str] = (),
    **options: Any,
) -> Output:
    """Compute the encoders' features of a catalogue's galaxies; goes on where an earlier call stopped.

    Args:
        catalogue: Parquet or CSV with `id_str` and `file_loc`: a file, a folder or a glob.
        models: the members: YAML files, or what `read_member` made of them.
        output: folder of the output.
        beam_options: of Apache Beam, such as `["--runner=FlinkRunner"]`.
        **options: of the command.

    Raises:
        UserError, TooManyFailures, RunFailed, StorageFull: as `predict`.

    >>> output = beam_zoo.represent(catalogue="galaxies.csv", models=["a.yaml"], output="NEW", passes=1)
    >>> output.representations("demo_a")["feature"][0].shape
    (96,)
    """
    return _run("represent", catalogue, models, output, beam_options, options)


def _run(
    name: str,
    catalogue: Path,
    models: "Sequence[Path | MemberSpec]",
    output: Path,
    beam_options: Sequence[str],
    given: Mapping[str, Any],
) -> Output:
    valid = [option.name for option in OPTIONS if option.name not in NOT_HERE]
    for each in given:
        if each not in valid:
            raise UserError(f"{name} has no option {each!r}{did_you_mean(each, valid)}")
    values = {each: BY_NAME[each].convert(value) for each, value in given.items() if value is not None}
    paths = {"catalogue": os.fspath(catalogue), "output": os.fspath(output)}
    values |= {**paths, "models": member_list(models)}
    with _as_a_library(beam_options):
        from pipelines.predict import execute
        from runners import cluster

        cluster.check([*beam_options])
        options = command.for_dataflow(name, Options.of(values, beam_options))
        execute(name, options)
    return open_output(output)


def finish(output: Path, *, max_failure_fraction: float = 0.05, beam_options: Sequence[str] = ()) -> Output:
    """Build the tables of an output whose samples are all stored, for example by several jobs.

    Args:
        output: folder of the output.
        max_failure_fraction: of the rows.
        beam_options: of Apache Beam.

    Raises:
        UserError: the folder is not an output.
        RunFailed: samples are missing, or a process failed.
        TooManyFailures, StorageFull: as `predict`.

    >>> beam_zoo.finish("OUT").predicted
    8
    """
    with _as_a_library(beam_options):
        from pipelines.finish import finish as build

        fraction = BY_NAME["max_failure_fraction"].convert(max_failure_fraction)
        build(absolute(os.fspath(output)), fraction, [*beam_options])
    return open_output(output)


def aggregate(
    samples: Sequence[Path],
    output: Path,
    *,
    carry: Sequence[str] | None = None,
    incomplete: str = "refuse",
    interval: str = "median",
    max_failure_fraction: float = 0.05,
    overwrite: bool = False,
    beam_options: Sequence[str] = (),
) -> Output:
    """Build one set of tables from the samples of several outputs, joined by galaxy id.

    Args:
        samples: outputs of `predict`; their order is the tables'.
        output: folder of the new tables.
        carry: columns that the tables carry along; None for all that an output carries.
        incomplete: `refuse`, `drop` or `keep` galaxies that lack the samples of a member or pass.
        interval: `median` or `mixture`.
        max_failure_fraction: of the rows.
        overwrite: build the tables of an earlier aggregate anew.
        beam_options: of Apache Beam.

    Raises:
        UserError: the outputs do not go together, or contradict each other.
        TooManyFailures, RunFailed, StorageFull: as `predict`.

    >>> more = beam_zoo.predict("galaxies.csv", ["a.yaml", "b.yaml"], "MORE", passes=2, first_pass=2)
    >>> beam_zoo.aggregate(["OUT", "MORE"], "BOTH").predicted
    8
    """
    values = {
        "samples": [os.fspath(each) for each in samples],
        "output": os.fspath(output),
        "carry": None if carry is None else [*carry],
        "incomplete": incomplete,
        "interval": interval,
        "max_failure_fraction": max_failure_fraction,
        "overwrite": overwrite,
    }
    with _as_a_library(beam_options):
        from pipelines.aggregate import AggregateOptions, execute

        execute(AggregateOptions.of(values), [*beam_options])
    return open_output(output)


@dataclasses.dataclass(frozen=True)
class AuditReport:
    """What an audit has found.

    Attributes:
        path: folder of the output.
        problems: a line for each thing that is wrong.
        summary: one line, with counts, if nothing is wrong; else empty.
    """

    path: str
    problems: list[str]
    summary: str

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def audit(output: Path, *, report: str | None = None, beam_options: Sequence[str] = ()) -> AuditReport:
    """Read an output again, compute its tables again, and say what is wrong.

    Args:
        output: its folder.
        report: folder for what the workers of another runner than the local one find.
        beam_options: of Apache Beam.

    Raises:
        UserError: the folder is no complete output.

    >>> beam_zoo.audit("OUT").is_sound
    True
    """
    folder = absolute(os.fspath(output))
    with _as_a_library(beam_options):
        from pipelines.audit import audit as check

        problems, healthy = check(folder, report, [*beam_options])
    return AuditReport(folder, problems, "" if problems else healthy)


@dataclasses.dataclass(frozen=True)
class Exported:
    """An HDF5 file of samples.

    Attributes:
        path: of the file.
        galaxies: how many it has.
    """

    path: str
    galaxies: int


def export(output: Path, hdf5: Path, *, overwrite: bool = False) -> Exported:
    """Write an output's samples as the HDF5 file that `zoobot.shared.load_predictions.load_hdf5s` reads.

    Args:
        output: folder of an output of `predict` or `aggregate`.
        hdf5: the file.
        overwrite: replace the file if it is there.

    Raises:
        UserError: the output or the file cannot be used.
        StorageFull: the disk is full.

    >>> beam_zoo.export("OUT", "samples.hdf5").galaxies
    8
    """
    path = os.fspath(hdf5)
    if is_remote(path):
        raise UserError(f"{path}: the file is written to a local disk; copy it from there")
    with _as_a_library(()):
        from pipelines.hdf5 import write

        count = write(absolute(os.fspath(output)), absolute(path), overwrite=overwrite)
    return Exported(absolute(path), count)


@contextmanager
def _as_a_library(beam_options: Sequence[str]) -> Iterator[None]:
    """Checks Beam's options; leaves the process as it was; raises our errors in the place of a runner's.

    Modules are imported inside: libraries change the filters of warnings when they are imported.
    """
    with callers_process(), command.known_errors():
        command.check_beam([*beam_options], [*BY_NAME])
        yield

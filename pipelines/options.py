"""The options of `predict` and `represent`: each is declared once, as a field of a record.

The command line, YAML files, `--help`, and the keywords of the library are made from these records.
"""

import dataclasses
import functools
import glob
import os
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from beam_zoo.errors import UserError, near_path
from beam_zoo.storage.files import exists, is_remote
from pipelines.option import Option
from runners import secrets

if TYPE_CHECKING:
    from beam_zoo.members.member import MemberSpec

COMMAND_LINE, DEFAULT = "command line", "default"


def option(
    default: Any,
    help_text: str,
    *,
    path: bool = False,
    choices: tuple[str, ...] = (),
    least: float | None = None,
    most: float | None = None,
) -> Any:
    """The field of an option.

    Args:
        default: its value where nothing is given.
        help_text: what it does.
        path: whether it is a path, which is relative to the YAML file that it stands in.
        choices: all valid values, if they are few.
        least, most: the smallest and the largest valid number.
    """
    details = {"help": help_text, "path": path, "choices": choices, "least": least, "most": most}
    return dataclasses.field(default=default, metadata=details)


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What is predicted, and by which models."""

    catalogue: str | None = option(
        None, "Parquet or CSV with id_str and file_loc: a file, a folder or a glob", path=True
    )
    models: "tuple[str | MemberSpec, ...]" = option(
        (), "the members of the ensemble, a YAML file each", path=True
    )
    image_root: str | None = option(
        None, "where relative image paths start (default: the catalogue's folder)", path=True
    )
    limit: int | None = option(None, "predict the first N rows of the catalogue only", least=1)
    carry: tuple[str, ...] = option((), "columns of the catalogue that the tables carry along")
    allow_outside: bool = option(False, "allow image paths that leave the image root")


@dataclasses.dataclass(frozen=True)
class Sampling:
    """What the samples of a galaxy depend on."""

    passes: int = option(5, "forward passes of each member", least=1, most=10_000)
    first_pass: int = option(0, "number of the first pass", least=0, most=1_000_000_000)
    seed: int = option(0, "of all random draws", least=0)
    precision: str = option("fp32", "of the encoder", choices=("fp32", "tf32", "bf16", "fp16"))
    compile: bool = option(False, "compile the encoders, which takes a minute and a C++ compiler")
    fast_images: bool = option(
        False,
        "decode large JPEGs at a half, a quarter or an eighth of their size, where the views need no more",
    )
    fast_views: bool = option(
        False, "make views many at a time, within a grey level: for GPUs, on a CPU it takes longer"
    )
    gpu_decoder: bool = option(
        False, "with --fast_views, decode JPEGs by the GPU's own decoder, within a grey level"
    )


@dataclasses.dataclass(frozen=True)
class Tables:
    """What the tables hold."""

    interval: str = option(
        "median",
        "90% interval: the medians of the samples' bounds, as zoobot has it, or that of their mixture",
        choices=("median", "mixture"),
    )
    max_failure_fraction: float = option(0.05, "exit with code 3 if more of the rows fail", least=0, most=1)


@dataclasses.dataclass(frozen=True)
class Work:
    """Where the output is, and how the work is done; of these only `snippet_size` is part of an output."""

    output: str | None = option(
        None, "folder of the output; the same command goes on where a run stopped", path=True
    )
    snippet_size: int = option(1000, "galaxies of a snippet, the unit of resume", least=1, most=10_000_000)
    snippets: str | None = option(None, "predict only snippets A:B (half-open), and build no tables")
    batch_size: int = option(32, "galaxies that go through the members together", least=1)
    device: str = option("auto", "where the members run", choices=("auto", "cpu", "cuda"))
    overwrite: bool = option(False, "remove what an earlier run wrote to the output, and start afresh")


@dataclasses.dataclass(frozen=True)
class Dataflow:
    """The workers of Dataflow."""

    dataflow_preset: str | None = option(
        None,
        "settings of Dataflow's workers; options of Beam override each",
        choices=("l4", "t4", "a100", "cpu"),
    )
    dataflow_right_fitting: bool = option(False, "GPUs for the steps that use them, not for all workers")


@dataclasses.dataclass(frozen=True)
class Show:
    """What is printed instead of a run."""

    dry_run: bool = option(False, "do all checks, print the plan and write nothing")
    print_config: bool = option(False, "print every option and where it came from, and exit")


RECORDS: dict[str, type] = {
    "inputs": Inputs,
    "sampling": Sampling,
    "tables": Tables,
    "work": Work,
    "dataflow": Dataflow,
    "show": Show,
}
"""The records of `Options`, by their attributes."""


def _declared(record: str, field: "dataclasses.Field[Any]") -> Option:
    hint = field.type
    many = not isinstance(hint, type) and (isinstance(hint, str) or typing.get_origin(hint) is tuple)
    found = [kind for kind in typing.get_args(hint) if kind is not types.NoneType] or [hint]
    kind = str if many else found[0]
    return Option(field.name, record, kind, many, field.default, **field.metadata)


OPTIONS = [_declared(name, field) for name, record in RECORDS.items() for field in dataclasses.fields(record)]
BY_NAME = {option.name: option for option in OPTIONS}


@dataclasses.dataclass(frozen=True)
class Options:
    """All options of a command.

    Attributes:
        beam: Beam's own options, as command line flags.
        origins: name, or flag -> `command line`, `default`, or the YAML file.
    """

    inputs: Inputs = Inputs()
    sampling: Sampling = Sampling()
    tables: Tables = Tables()
    work: Work = Work()
    dataflow: Dataflow = Dataflow()
    show: Show = Show()
    beam: list[str] = dataclasses.field(default_factory=list)
    origins: dict[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(
        cls, values: Mapping[str, Any], beam: Iterable[str] = (), origins: Mapping[str, str] | None = None
    ) -> "Options":
        """Options with some values, which are converted already, and the defaults of the others.

        Args:
            values: name -> value.
            beam: Beam's own options.
            origins: of the values that are no defaults, and of Beam's options.
        """
        records = {
            name: record(**{f.name: values[f.name] for f in dataclasses.fields(record) if f.name in values})
            for name, record in RECORDS.items()
        }
        return cls(**records, beam=[*beam], origins={**dict.fromkeys(BY_NAME, DEFAULT), **(origins or {})})

    def replaced(self, **values: Any) -> "Options":
        """These options with other values, which are those of the command line."""
        origins = {**self.origins, **dict.fromkeys(values, COMMAND_LINE)}
        return Options.of({**self.values, **values}, self.beam, origins)

    @functools.cached_property
    def values(self) -> dict[str, Any]:
        """Name -> value."""
        return {option.name: getattr(getattr(self, option.record), option.name) for option in OPTIONS}

    def plain_values(self) -> dict[str, Any]:
        """Name -> value, as JSON holds it; a member that is no file stands by its name."""
        models = [model if isinstance(model, str) else model.source for model in self.inputs.models]
        return {**self.values, "models": models}

    def describe(self) -> str:
        """Every option, its value and its origin, a line each."""
        rows = [(name, value, self.origins[name]) for name, value in self.values.items()]
        rows += [(flag_name(flag), secrets.shown(flag), self.origins[flag]) for flag in self.beam]
        width = max(len(name) for name, _, _ in rows)
        return "\n".join(f"{name:{width}}  {_shown(value)}  ({origin})" for name, value, origin in rows)


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return " ".join(map(str, value)) or "-" if isinstance(value, tuple) else str(value)


def flag_name(flag: str) -> str:
    """`runner` of `--runner=FlinkRunner`."""
    return flag[2:].partition("=")[0]


def member_list(
    models: "str | os.PathLike[str] | MemberSpec | Iterable[str | os.PathLike[str] | MemberSpec]",
) -> "tuple[str | MemberSpec, ...]":
    """The `models` of the library, one alone or several, as the option has them."""
    from beam_zoo.members.member import MemberSpec

    given = [models] if isinstance(models, str | os.PathLike | MemberSpec) else models
    return tuple(os.fspath(each) if isinstance(each, os.PathLike) else each for each in given)


def models_of(patterns: Sequence[str]) -> list[str]:
    """The members' files; a glob in a YAML config is expanded, as the shell expands it on the command line.

    Raises:
        UserError: a file is not there, or nothing matches a glob.
    """
    found: list[str] = []
    for pattern in map(os.path.expanduser, patterns):
        if exists(pattern):
            found.append(pattern)
        elif is_remote(pattern):
            note = ": name each, a glob is only expanded locally" if glob.has_magic(pattern) else ""
            raise UserError(f"there is no --models {pattern}{note}")
        elif glob.has_magic(pattern):
            matches = sorted(glob.glob(pattern))
            if not matches:
                raise UserError(f"no file matches --models {pattern}")
            found += matches
        else:
            raise UserError(f"there is no --models {pattern}{near_path(pattern)}")
    return found

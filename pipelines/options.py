"""The options of `predict` and `represent`: from the command line and from YAML files, checked, with their origin."""

import argparse
import dataclasses
import glob
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from beam_zoo.errors import UserError, near_path
from beam_zoo.storage.files import beside, exists, is_remote
from runners import secrets

BEAM_NOTE = "Any other option is one of Apache Beam, for example --runner."
COMMAND_LINE, DEFAULT = "command line", "default"


@dataclasses.dataclass(frozen=True)
class Option:
    """One option.

    Attributes:
        name: without the dashes; the same in a YAML file.
        kind: `text`, `path`, `integer`, `number` or `flag`.
        default: its value where nothing is given.
        many: whether it takes one or more values.
        choices: all valid values, if they are few.
        least, most: the smallest and the largest valid number.
        help: what it does.
    """

    name: str
    kind: str
    default: Any
    help: str
    many: bool = False
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None


OPTIONS = [
    Option("catalogue", "path", None, "Parquet or CSV with id_str and file_loc: a file, a folder or a glob"),
    Option("models", "path", None, "the members of the ensemble, a YAML file each", many=True),
    Option("output", "path", None, "folder of the output; the same command goes on where a run stopped"),
    Option("image_root", "path", None, "where relative image paths start (default: the catalogue's folder)"),
    Option("passes", "integer", 5, "forward passes of each member", least=1, most=10_000),
    Option("first_pass", "integer", 0, "number of the first pass", least=0, most=1_000_000_000),
    Option("batch_size", "integer", 32, "galaxies that go through the members together", least=1),
    Option(
        "snippet_size", "integer", 1000, "galaxies of a snippet, the unit of resume", least=1, most=10_000_000
    ),
    Option("snippets", "text", None, "predict only snippets A:B (half-open), and build no tables"),
    Option("carry", "text", (), "columns of the catalogue that the tables carry along", many=True),
    Option(
        "interval",
        "text",
        "median",
        "90% interval: the medians of the samples' bounds, as zoobot has it, or that of their mixture",
        choices=("median", "mixture"),
    ),
    Option("precision", "text", "fp32", "of the encoder", choices=("fp32", "tf32", "bf16", "fp16")),
    Option("compile", "flag", False, "compile the encoders, which takes a minute and a C++ compiler"),
    Option(
        "fast_images",
        "flag",
        False,
        "decode large JPEGs at a half, a quarter or an eighth of their size, where the views need no more; "
        "and others, with --fast_views, by a GPU's own decoder",
    ),
    Option(
        "fast_views",
        "flag",
        False,
        "make views on the GPU, many at a time, within a grey level; on a CPU they stay exact",
    ),
    Option("device", "text", "auto", "where the members run", choices=("auto", "cpu", "cuda")),
    Option("seed", "integer", 0, "of all random draws", least=0),
    Option("limit", "integer", None, "predict the first N rows of the catalogue only", least=1),
    Option(
        "max_failure_fraction", "number", 0.05, "exit with code 3 if more of the rows fail", least=0, most=1
    ),
    Option(
        "dataflow_preset",
        "text",
        None,
        "settings of Dataflow's workers; options of Beam override each",
        choices=("l4", "t4", "a100", "cpu"),
    ),
    Option("dataflow_right_fitting", "flag", False, "GPUs for the steps that use them, not for all workers"),
    Option("overwrite", "flag", False, "remove what an earlier run wrote to the output, and start afresh"),
    Option("allow_outside", "flag", False, "allow image paths that leave the image root"),
    Option("dry_run", "flag", False, "do all checks, print the plan and write nothing"),
    Option("print_config", "flag", False, "print every option and where it came from, and exit"),
]
BY_NAME = {option.name: option for option in OPTIONS}


@dataclasses.dataclass(frozen=True)
class Options:
    """All options of a command.

    Attributes:
        values: name -> value.
        origins: name -> `command line`, `default`, or the YAML file.
        beam: Beam's own options, as command line flags.
    """

    values: dict[str, Any]
    origins: dict[str, str]
    beam: list[str]

    def __getattr__(self, name: str) -> Any:
        try:
            return self.values[name]
        except KeyError:
            raise AttributeError(name) from None

    def describe(self) -> str:
        """Every option, its value and its origin, a line each."""
        rows = [(name, self.values[name], self.origins[name]) for name in self.values]
        rows += [(_flag_name(flag), secrets.shown(flag), self.origins[flag]) for flag in self.beam]
        width = max(len(name) for name, _, _ in rows)
        return "\n".join(f"{name:{width}}  {_shown(value)}  ({origin})" for name, value, origin in rows)


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return " ".join(map(str, value)) or "-" if isinstance(value, tuple) else str(value)


class Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are one line, and that takes no abbreviations."""

    def __init__(self, **settings: Any) -> None:
        settings.setdefault("epilog", BEAM_NOTE)
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (--help lists the options)")


def make_parser(command: str, description: str) -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = Parser(prog=f"python -m pipelines.{command}", description=description)
    parser.add_argument(
        "--config",
        nargs="+",
        action="extend",
        default=[],
        metavar="RUN.yaml",
        help="YAML files that hold any of these options; later files win, the command line over all",
    )
    for option in OPTIONS:
        note = f" (default {option.default})" if option.default not in (None, (), False) else ""
        kwargs: dict[str, Any] = {
            "help": (option.help + note).replace("%", "%%"),
            "default": argparse.SUPPRESS,
        }
        if option.kind == "flag":
            kwargs |= {"action": argparse.BooleanOptionalAction}
        else:
            kwargs |= {"nargs": "+", "action": "extend"} if option.many else {}
            kwargs["metavar"] = "|".join(option.choices) or option.name.upper()
        parser.add_argument(f"--{option.name}", **kwargs)
    return parser


def parse(
    command: str,
    description: str,
    argv: Sequence[str] | None = None,
    check: Callable[[list[str]], None] | None = None,
) -> Options:
    """Read the command line and the YAML files that it names.

    Args:
        command: `predict` or `represent`.
        description: for --help.
        argv: the arguments, by default those of this process.
        check: called with Beam's flags, to refuse unknown ones.

    Raises:
        UserError: an unknown option or a wrong value.
    """
    parser = make_parser(command, description)
    given, theirs, stray = split_command_line(parser, argv)
    files = given.pop("config")
    values = {option.name: option.default for option in OPTIONS}
    origins = dict.fromkeys(values, DEFAULT)
    beam: dict[str, list[str]] = {}
    origin: dict[str, str] = {}
    for path in map(os.path.expanduser, files):
        for name, value in _read_config(path).items():
            if name in BY_NAME:
                values[name], origins[name] = _from_file(path, BY_NAME[name], value), path
                continue
            # Options of Beam may be given more than once: the flags of a later file replace all of an earlier.
            beam[name], origin[name] = _beam_flags(name, value), path
            _check_flags(check, beam[name], f"{path}: ")
    for name, value in given.items():
        values[name], origins[name] = _from_command_line(BY_NAME[name], value), COMMAND_LINE
    _check_flags(check, theirs, "")
    refuse_stray(stray)
    for name in {_flag_name(flag): None for flag in theirs}:
        beam[name], origin[name] = [flag for flag in theirs if _flag_name(flag) == name], COMMAND_LINE
    flags = [flag for found in beam.values() for flag in found]
    _check_flags(check, flags, "")
    origins |= {flag: origin[_flag_name(flag)] for flag in flags}
    return Options(values, origins, flags)


def split_command_line(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None
) -> tuple[dict[str, Any], list[str], list[str]]:
    """The options that a parser knows, Beam's flags as `--name=value`, and words that belong to no option.

    Args:
        parser: of the command's own options.
        argv: the arguments, by default those of this process.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if "--" in words:  # argparse would take all options after it for values
        raise UserError("'--' belongs to no option (--help lists the options)")
    known, rest = parser.parse_known_args(words)
    return vars(known), *_joined(rest)


def refuse_stray(stray: list[str]) -> None:
    """Refuse words that belong to no option; after the flags, whose misspelling may be the cause, are checked."""
    if stray:
        raise UserError(f"{stray[0]!r} belongs to no option (--help lists the options)")


def _check_flags(check: Callable[[list[str]], None] | None, flags: list[str], where: str) -> None:
    if check is None or not flags:
        return
    try:
        check(flags)
    except UserError as error:
        raise UserError(f"{where}{error}") from None


def _read_config(path: str) -> dict[str, Any]:
    from beam_zoo.storage.yaml_files import load_yaml

    if not exists(path):
        raise UserError(f"there is no --config {path}{near_path(path)}")
    content = load_yaml(path)
    if "config" in content:
        raise UserError(f"{path}: a config cannot name others: give them all after --config")
    return content


def _from_file(path: str, option: Option, value: Any) -> Any:
    if value is None:
        return option.default
    if option.many:
        items = value if isinstance(value, list) else [value]
        return tuple(_convert(option, _beside(path, option, item), path) for item in items)
    return _convert(option, _beside(path, option, value), path)


def _beside(path: str, option: Option, value: Any) -> Any:
    """A relative path of a YAML file is relative to that file."""
    if option.kind != "path" or not isinstance(value, str) or not value:
        return value
    return beside(path, value)


def _from_command_line(option: Option, value: Any) -> Any:
    if option.many:
        return tuple(_convert(option, item, None) for item in value)
    return _convert(option, value, None)


def _convert(option: Option, value: Any, file: str | None) -> Any:
    """A value of the option's kind; numbers are text on the command line and must be numbers in a file."""
    where = f"{file}: {option.name}" if file else f"--{option.name}"
    if option.kind == "flag":
        if not isinstance(value, bool):
            raise UserError(f"{where} must be true or false, not {value!r}")
        return value
    if option.kind in ("integer", "number"):
        kind = int if option.kind == "integer" else float
        try:
            # YAML takes 1e-1 for text.
            plain = isinstance(value, int | float) or not file or (kind is float and isinstance(value, str))
            if isinstance(value, bool) or "_" in str(value) or not plain:
                raise ValueError
            number = kind(value)
            if (
                number != (value if isinstance(value, float) else number) or number != number
            ):  # 2.5 passes; nan
                raise ValueError
        except (ValueError, OverflowError):
            whole = "a whole number" if option.kind == "integer" else "a number"
            raise UserError(f"{where} must be {whole}, not {value!r}") from None
        if option.least is not None and not number >= option.least:
            raise UserError(f"{where} must be at least {option.least:g}, not {value}")
        if option.most is not None and not number <= option.most:
            raise UserError(f"{where} must be at most {option.most:,g}, not {value}")
        return number
    if not isinstance(value, str) or not value:
        # YAML reads no, 12 and 1:30 as a truth value and numbers.
        hint = "" if isinstance(value, str | list | dict) else " (put it in quotes)"
        raise UserError(f"{where} must be text, not {value!r}{hint}")
    if option.choices and value not in option.choices:
        # All of them: the nearest in spelling to `gpu` would be `cpu`.
        raise UserError(f"{where} cannot be {value!r} (choose from {', '.join(option.choices)})")
    return value


def _beam_flags(name: str, value: Any) -> list[str]:
    """Beam flags of a YAML entry: `true` is the bare flag, a list the flag once per item."""
    if value is None or value is False:
        return []
    if value is True:
        return [f"--{name}"]
    items = value if isinstance(value, list) else [value]
    # A mapping is JSON for Beam, as in --environment_config.
    return [f"--{name}={json.dumps(item) if isinstance(item, dict) else item}" for item in items]


def _joined(rest: list[str]) -> tuple[list[str], list[str]]:
    """Flags with their values in one word each (`--runner X` becomes `--runner=X`), and words that fit nowhere."""
    flags: list[str] = []
    stray: list[str] = []
    for word in rest:
        if word.startswith("--") and len(word) > 2:
            flags.append(word)
        elif flags and "=" not in flags[-1]:
            flags[-1] = f"{flags[-1]}={word}"
        else:
            stray.append(word)
    return flags, stray


def _flag_name(flag: str) -> str:
    return flag[2:].partition("=")[0]


def models_of(patterns: Sequence[str]) -> list[str]:
    """The members' files; a glob in a YAML config is expanded, as the shell expands it on the command line."""
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

"""Options from the command line and from YAML files, with their origin."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from beam_zoo.errors import UserError, near_path
from beam_zoo.storage.files import beside, exists
from pipelines.options import BY_NAME, COMMAND_LINE, OPTIONS, RECORDS, Option, Options, flag_name

BEAM_NOTE = "Any other option is one of Apache Beam, for example --runner."


class Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are one line, and that takes no abbreviations."""

    def __init__(self, **settings: Any) -> None:
        settings.setdefault("epilog", BEAM_NOTE)
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (--help lists the options)")


def make_parser(command: str, description: str) -> Parser:
    """The parser of the command line of `predict` or `represent`."""
    parser = Parser(prog=f"python -m pipelines.{command}", description=description)
    parser.add_argument(
        "--config",
        nargs="+",
        action="extend",
        default=[],
        metavar="RUN.yaml",
        help="YAML files that hold any of these options; later files win, the command line over all",
    )
    for name, record in RECORDS.items():
        group = parser.add_argument_group(name, record.__doc__)
        for option in OPTIONS:
            if option.record == name:
                add_option(group, option)
    return parser


def add_option(
    parser: "argparse._ActionsContainer", option: Option, default: Any = argparse.SUPPRESS
) -> None:
    """Add an option as its record declares it; its value is converted afterwards, by `Option.convert`."""
    note = f" (default {option.default})" if option.default not in (None, (), False) else ""
    settings: dict[str, Any] = {"help": (option.help + note).replace("%", "%%"), "default": default}
    if option.type is bool:
        settings |= {"action": argparse.BooleanOptionalAction}
    else:
        settings |= {"nargs": "+", "action": "extend"} if option.many else {}
        settings["metavar"] = "|".join(option.choices) or option.name.upper()
    parser.add_argument(f"--{option.name}", **settings)


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
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    beam: dict[str, list[str]] = {}
    origin: dict[str, str] = {}
    for path in map(os.path.expanduser, files):
        for name, value in _read_config(path).items():
            if name in BY_NAME:
                values[name], origins[name] = _from_file(path, BY_NAME[name], value), path
                continue
            # Options of Beam may be given more than once: a later file replaces all flags of an earlier.
            beam[name], origin[name] = _beam_flags(name, value), path
            _check_flags(check, beam[name], f"{path}: ")
    for name, value in given.items():
        values[name], origins[name] = BY_NAME[name].convert(value), COMMAND_LINE
    _check_flags(check, theirs, "")
    refuse_stray(stray)
    for name in {flag_name(flag): None for flag in theirs}:
        beam[name], origin[name] = [flag for flag in theirs if flag_name(flag) == name], COMMAND_LINE
    flags = [flag for found in beam.values() for flag in found]
    _check_flags(check, flags, "")
    return Options.of(values, flags, origins | {flag: origin[flag_name(flag)] for flag in flags})


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
    """Refuse words that belong to no option, after the flags: a misspelt flag may be the cause."""
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
    """A value of a YAML file, whose relative paths start at its folder; null stands for the default."""
    if value is None:
        return option.default
    if option.path:
        items = [beside(path, v) if isinstance(v, str) and v else v for v in _listed(value)]
        value = items if isinstance(value, list) else items[0]
    return option.convert(value, path)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _beam_flags(name: str, value: Any) -> list[str]:
    """Beam flags of a YAML entry: `true` is the bare flag, a list the flag once per item."""
    if value is None or value is False:
        return []
    if value is True:
        return [f"--{name}"]
    # A mapping is JSON for Beam, as in --environment_config.
    return [f"--{name}={json.dumps(item) if isinstance(item, dict) else item}" for item in _listed(value)]


def _joined(rest: list[str]) -> tuple[list[str], list[str]]:
    """Flags with their values (`--runner X` becomes `--runner=X`), and words that belong to no option."""
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

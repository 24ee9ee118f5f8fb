"""An option as its record declares it, and the check of its values."""

import dataclasses
from typing import Any

from beam_zoo.errors import UserError


@dataclasses.dataclass(frozen=True)
class Option:
    """An option, as its record declares it.

    Attributes:
        name: without the dashes; the same in a YAML file.
        record: attribute of `Options` that holds it.
        type: `str`, `int`, `float` or `bool`, of one value.
        many: whether it takes one or more values.
        default, help, path, choices, least, most: as of `option`.
    """

    name: str
    record: str
    type: type
    many: bool
    default: Any
    help: str
    path: bool
    choices: tuple[str, ...]
    least: float | None
    most: float | None

    def convert(self, value: Any, file: str | None = None) -> Any:
        """A value, or values, checked and of the option's type.

        Args:
            value: as it was given: text on the command line, a plain value in a file or a keyword.
            file: the YAML file that it stands in.

        Raises:
            UserError: it is of another type, or out of range.
        """
        if not self.many:
            return _convert(self, value, file)
        items = value if isinstance(value, list | tuple) else [value]
        return tuple(_convert(self, item, file) for item in items)


def _convert(option: Option, value: Any, file: str | None) -> Any:
    """One value; numbers are text on the command line and must be numbers in a file."""
    where = f"{file}: {option.name}" if file else f"--{option.name}"
    if option.type is bool:
        if not isinstance(value, bool):
            raise UserError(f"{where} must be true or false, not {value!r}")
        return value
    if option.type in (int, float):
        return _number(option, value, file, where)
    if not isinstance(value, str) or not value:
        # YAML reads no, 12 and 1:30 as a truth value and numbers.
        hint = "" if isinstance(value, str | list | dict) else " (put it in quotes)"
        raise UserError(f"{where} must be text, not {value!r}{hint}")
    if option.choices and value not in option.choices:
        # All of them: the nearest in spelling to `gpu` would be `cpu`.
        raise UserError(f"{where} cannot be {value!r} (choose from {', '.join(option.choices)})")
    return value


def _number(option: Option, value: Any, file: str | None, where: str) -> int | float:
    try:
        # YAML takes 1e-1 for text.
        is_text = isinstance(value, str) and (not file or option.type is float)
        if isinstance(value, bool) or not (is_text or isinstance(value, int | float)) or "_" in str(value):
            raise ValueError
        number = option.type(value)
        # 2.5 passes, and nan, which is not even itself
        if number != number or (isinstance(value, float) and number != value):
            raise ValueError
    except (ValueError, OverflowError):
        whole = "a whole number" if option.type is int else "a number"
        raise UserError(f"{where} must be {whole}, not {value!r}") from None
    if option.least is not None and not number >= option.least:
        raise UserError(f"{where} must be at least {option.least:g}, not {value}")
    if option.most is not None and not number <= option.most:
        raise UserError(f"{where} must be at most {option.most:,g}, not {value}")
    return number

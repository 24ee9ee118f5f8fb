"""The commands as functions, for programs and notebooks: `beam_zoo.predict` and the others.

Each takes the command's options as keywords, raises the documented errors of `beam_zoo.errors` where the command would print
a line, and leaves the process as it found it.
"""

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from beam_zoo.errors import UserError, did_you_mean
from beam_zoo.results import Output, open_output
from beam_zoo.storage.files import absolute
from pipelines import command
from pipelines.options import BY_NAME, OPTIONS, Options

if TYPE_CHECKING:
    from beam_zoo.members.member import MemberSpec

NOT_FOR_PROGRAMS = ("dry_run", "print_config")


def _with_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a function that takes `**options` the signature and the documentation of all options of the command."""
    signature = inspect.signature(function)
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    others = [
        option for option in OPTIONS if option.name not in {*signature.parameters, *NOT_FOR_PROGRAMS}
    ]
    added = [
        inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=option.default)
        for option in others
    ]
    function.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
    lines = [f"        {option.name}: {option.help} (default {option.default!r})." for option in others]
    function.__doc__ = str(function.__doc__).replace("        OPTIONS\n", "\n".join([*lines, ""]))
    return function

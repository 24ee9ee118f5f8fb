"""The commands as functions, for programs and notebooks: `beam_zoo.predict` and the others.

Each takes the command's options as keywords, raises the documented errors of `beam_zoo.errors` where the command would print
a line, and leaves the process as it found it.
"""

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pipelines.options import OPTIONS

if TYPE_CHECKING:
    pass

NOT_FOR_PROGRAMS = ("dry_run", "print_config")


def _with_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a function that takes `**options` the signature and the documentation of all options of the command."""
    signature = inspect.signature(function)
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    others = [option for option in OPTIONS if option.name not in {*signature.parameters, *NOT_FOR_PROGRAMS}]
    added = [
        inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=option.default)
        for option in others
    ]
    function.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
    lines = [f"        {option.name}: {option.help} (default {option.default!r})." for option in others]
    function.__doc__ = str(function.__doc__).replace("        OPTIONS\n", "\n".join([*lines, ""]))
    return function

"""Functions of numbers, compiled for this processor when their module is imported."""

import pickle
import threading
from collections.abc import Callable
from typing import Any

import numba

from beam_zoo.runtime import code_cache as kept_code

_CONFIG: Any = numba.config
_SETTINGS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
_CACHE_ERRORS = (OSError, EOFError, RuntimeError, pickle.UnpicklingError)
"""What numba raises where there is no cache folder, no space in it, or a damaged file; no error of the compiler is one of these."""
_COMPILING = threading.Lock()  # numba has one cache folder for all


def cache_folder() -> str:
    """Where compiled code is kept, for these settings only: numba itself just looks at the file of what it compiles."""
    return kept_code.for_this_processor("numba", _SETTINGS, kept_code.NUMBA)


def compiled(returns: Any, *takes: Any, **more: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile now, to run without the interpreter's lock; the result is kept on disk where that is possible.

    Args:
        returns: numba's type of what the function returns.
        takes: numba's types of its arguments.
        more: settings of numba's.

    Raises:
        UserError: others could put code where it is kept.
    """

    def compile_now(function: Callable[..., Any]) -> Any:
        settings = {**_SETTINGS, **more}
        with _COMPILING:
            before = _CONFIG.CACHE_DIR
            try:
                _CONFIG.CACHE_DIR = cache_folder()
                return numba.njit(returns(*takes), cache=True, **settings)(function)
            except _CACHE_ERRORS:  # nothing can be kept: this takes three seconds in each process
                return numba.njit(returns(*takes), **settings)(function)
            finally:
                _CONFIG.CACHE_DIR = before

    return compile_now

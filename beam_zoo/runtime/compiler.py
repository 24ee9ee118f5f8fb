"""Compile numerical functions with numba when their module is imported."""

import pickle
import threading
from collections.abc import Callable
from typing import Any

import numba

from beam_zoo.runtime import code_cache

_CONFIG: Any = numba.config
_SETTINGS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
_CACHE_ERRORS = (OSError, EOFError, RuntimeError, pickle.UnpicklingError)
"""Errors of numba if the cache folder is missing, full or damaged; errors of the compiler are others."""
_COMPILING = threading.Lock()  # numba's cache folder is a global setting


def cache_folder() -> str:
    """The cache folder for these settings; numba's cache itself only depends on the source file."""
    return code_cache.for_this_processor("numba", _SETTINGS, code_cache.NUMBA)


def compiled(returns: Any, *takes: Any, **more: Any) -> Callable[[Callable[..., Any]], Any]:
    """A decorator that compiles now, to run without the interpreter's lock; cached on disk if possible.

    Args:
        returns: numba's type of the return value.
        takes: numba's types of the arguments.
        more: settings of `numba.njit`.

    Raises:
        UserError: other users can write to the cache folder.
    """

    def compile_now(function: Callable[..., Any]) -> Any:
        settings = {**_SETTINGS, **more}
        with _COMPILING:
            before = _CONFIG.CACHE_DIR
            try:
                _CONFIG.CACHE_DIR = cache_folder()
                return numba.njit(returns(*takes), cache=True, **settings)(function)
            except _CACHE_ERRORS:  # without a cache each process needs three seconds
                return numba.njit(returns(*takes), **settings)(function)
            finally:
                _CONFIG.CACHE_DIR = before

    return compile_now

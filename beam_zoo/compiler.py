"""Functions of numbers, compiled for this processor when their module is imported."""

import hashlib
import os
import threading
from collections.abc import Callable
from typing import Any

import llvmlite.binding
import numba

_CONFIG: Any = numba.config
_SETTINGS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
_COMPILING = threading.Lock()  # numba has one cache folder for all


def cache_folder() -> str:
    """Where compiled code is kept, for this kind of processor only: machines that share a home may be of several kinds."""
    # And for these settings: numba itself only looks at the file of what it compiles.
    kind = f"{llvmlite.binding.get_host_cpu_name()} {llvmlite.binding.get_host_cpu_features().flatten()} {_SETTINGS}"
    base = _CONFIG.CACHE_DIR or os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if base.startswith("~"):
        raise RuntimeError("a user without a home")
    return os.path.join(base, "beam_zoo", hashlib.sha256(kind.encode()).hexdigest()[:16])


def compiled(returns: Any, *takes: Any, **more: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile now, to run without the interpreter's lock; the result is kept on disk where that is possible.

    Args:
        returns: numba's type of what the function returns.
        takes: numba's types of its arguments.
        more: settings of numba's.
    """

    def compile_now(function: Callable[..., Any]) -> Any:
        settings = {**_SETTINGS, **more}
        with _COMPILING:
            before = _CONFIG.CACHE_DIR
            try:
                _CONFIG.CACHE_DIR = cache_folder()
                return numba.njit(returns(*takes), cache=True, **settings)(function)
            except Exception:  # no folder, no space there, a damaged file: three seconds in each process
                return numba.njit(returns(*takes), **settings)(function)
            finally:
                _CONFIG.CACHE_DIR = before

    return compile_now

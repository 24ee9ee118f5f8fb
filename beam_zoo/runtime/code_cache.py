"""Folders for caches of compiled code. Later processes run that code, so only the user may write there."""

import atexit
import hashlib
import os
import shutil
import tempfile

from beam_zoo.errors import UserError
from beam_zoo.storage.private_folder import ANYTHING, WRITE, fault_on_the_way, others_may_write_by_default

NUMBA, TORCH, TRITON = "NUMBA_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"
"""Environment variables of the compilers' cache folders."""
_XDG = "XDG_CACHE_HOME"


def folder(*variables: str) -> str:
    """The folder for caches: below that of the first variable that is set, else in the user's cache folder.

    Args:
        variables: names of environment variables, such as `NUMBA_CACHE_DIR`.

    Raises:
        UserError: other users can write there.
        OSError, RuntimeError: there is no such folder.
    """
    base = next((os.environ[name] for name in (*variables, _XDG) if os.environ.get(name)), None)
    base = base or os.path.expanduser("~/.cache")
    if base.startswith("~"):
        raise RuntimeError("a user without a home")
    return _safe(os.path.join(os.path.abspath(base), "beam_zoo"), WRITE, variables[0] if variables else _XDG)


def for_this_processor(name: str, settings: object, *variables: str) -> str:
    """A cache folder for this kind of processor: machines with different processors may share a home.

    Args:
        name: of the compiler.
        settings: of the compiler, where the compiler itself does not distinguish them.
        variables: see `folder`.

    Raises:
        UserError, OSError, RuntimeError: see `folder`.
    """
    from llvmlite import binding

    kind = f"{binding.get_host_cpu_name()} {binding.get_host_cpu_features().flatten()} {settings}"
    found = os.path.join(folder(*variables), f"{name}-{hashlib.sha256(kind.encode()).hexdigest()[:16]}")
    return _safe(found, ANYTHING, variables[0] if variables else _XDG)


def keep_torch_code() -> None:
    """Set torch's cache folders, before it compiles. The default is in /tmp, with a name that can be guessed.

    Raises:
        UserError: other users can write there.
    """
    from torch._inductor import codecache
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    given = os.environ.get(TORCH)
    if given and given != default_cache_dir():  # torch sets the variable to its own choice
        # Folders that torch makes there get the permissions of the umask.
        _safe(os.path.abspath(given), ANYTHING if others_may_write_by_default() else WRITE, TORCH)
    else:
        given = os.environ[TORCH] = _torch_folder()
    if triton := os.environ.get(TRITON):
        _safe(os.path.abspath(triton), ANYTHING if others_may_write_by_default() else WRITE, TRITON)
    else:
        os.environ[TRITON] = os.path.join(given, "triton")
    # torch has set these at its import, from its default.
    codecache._HEADER_DIR = os.path.join(given, "precompiled_headers")
    codecache._HEADER_LOCK_DIR = os.path.join(codecache._HEADER_DIR, "locks")


def _torch_folder() -> str:
    """A cache folder for torch; if there is none, or the disk is full, a temporary one of this process."""
    import torch

    try:
        found = for_this_processor("torch", torch.__version__)
        with tempfile.TemporaryFile(dir=found) as file:
            file.write(bytes(1 << 16))
        return found
    except (OSError, RuntimeError):
        found = tempfile.mkdtemp(prefix="beam-zoo-compiled-")
        atexit.register(shutil.rmtree, found, ignore_errors=True)
        return found


def _safe(path: str, forbidden: int, variable: str) -> str:
    if wrong := fault_on_the_way(path, forbidden):
        raise UserError(
            f"compiled code cannot be kept in {path}, where others could put theirs: {wrong}; "
            f"mend that, or set {variable} to a folder that is yours alone"
        )
    return path

"""Where compiled code is kept, which every later process loads: below a folder that is the user's alone."""

import atexit
import hashlib
import os
import shutil
import tempfile

from beam_zoo.errors import UserError
from beam_zoo.storage.private_folder import ANYTHING, WRITE, fault_on_the_way, others_may_write_by_default

NUMBA, TORCH, TRITON = "NUMBA_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"
"""Environment variables of those who keep code."""
_XDG = "XDG_CACHE_HOME"


def folder(*variables: str) -> str:
    """The folder below which code is kept: of the first variable that is set, else of the user.

    Args:
        variables: such as `NUMBA_CACHE_DIR`.

    Raises:
        UserError: others could put code there.
        OSError, RuntimeError: there is no place for it.
    """
    base = next((os.environ[name] for name in (*variables, _XDG) if os.environ.get(name)), None)
    base = base or os.path.expanduser("~/.cache")
    if base.startswith("~"):
        raise RuntimeError("a user without a home")
    return _safe(os.path.join(os.path.abspath(base), "beam_zoo"), WRITE, variables[0] if variables else _XDG)


def for_this_processor(name: str, settings: object, *variables: str) -> str:
    """A folder for code of this kind of processor: machines that share a home may be of several kinds.

    Args:
        name: of the compiler.
        settings: that the code depends on, and its file does not say.
        variables: as of `folder`.

    Raises:
        UserError, OSError, RuntimeError: as `folder`.
    """
    import llvmlite.binding

    kind = f"{llvmlite.binding.get_host_cpu_name()} {llvmlite.binding.get_host_cpu_features().flatten()} {settings}"
    found = os.path.join(folder(*variables), f"{name}-{hashlib.sha256(kind.encode()).hexdigest()[:16]}")
    return _safe(found, ANYTHING, variables[0] if variables else _XDG)


def keep_torch_code() -> None:
    """Before torch compiles: what it keeps goes to such a folder, and not to one in /tmp whose name anybody can know.

    Raises:
        UserError: others could put code there.
    """
    from torch._inductor import codecache
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    given = os.environ.get(TORCH)
    if given and given != default_cache_dir():  # torch sets the variable to its own choice
        # What torch makes below it is as open as the umask says.
        _safe(os.path.abspath(given), ANYTHING if others_may_write_by_default() else WRITE, TORCH)
    else:
        given = os.environ[TORCH] = _kept_or_not()
    if triton := os.environ.get(TRITON):
        _safe(os.path.abspath(triton), ANYTHING if others_may_write_by_default() else WRITE, TRITON)
    else:
        os.environ[TRITON] = os.path.join(given, "triton")
    # torch itself keeps these in its own choice, whatever the variable says.
    codecache._HEADER_DIR = os.path.join(given, "precompiled_headers")
    codecache._HEADER_LOCK_DIR = os.path.join(codecache._HEADER_DIR, "locks")


def _kept_or_not() -> str:
    """A folder for torch's code: where nothing can be kept, one of this process."""
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
            f"compiled code cannot be kept in {path}, where others could put theirs: {wrong}; mend that, or set "
            f"{variable} to a folder that is yours alone"
        )
    return path

"""Read and decode a galaxy's image file: the result is a PIL image of mode RGB, or an `ImageError`."""

import contextlib
import errno
import io
import os
import stat
import threading
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from beam_zoo.errors import RunFailed, UserError, one_line
from beam_zoo.storage import gcs
from beam_zoo.storage.files import is_object, is_remote

MAX_PIXELS = 64_000_000
"""Larger images are refused before they are decoded (an 8,000 x 8,000 px image takes 192 MB)."""

MAX_ASPECT = 256
"""Largest ratio of the sides: a view that resizes the short side would make a longer strip huge."""

LARGE_PIXELS = 4_000_000
"""Larger images are decoded one at a time: decoding 64 million pixels takes up to 1.3 GB."""

ONE_LARGE_IMAGE: contextlib.AbstractContextManager[Any] = threading.Lock()
"""Held while a large image is decoded; decoding processes replace it by a lock that they share."""
_STRIP_ROWS = 256

MAX_FILE_BYTES = 1 << 30
_TOO_LARGE = "{} is larger than 1 GiB"


class ImageError(Exception):
    """A galaxy without a usable image.

    Attributes:
        may_pass: whether a retry may succeed: the file is missing or unreadable, not broken.
    """

    def __init__(self, reason: str, *, may_pass: bool) -> None:
        super().__init__(reason)
        self.may_pass = may_pass


def image_path(file_loc: str, image_root: str) -> str:
    """The path of an image: `file_loc` itself where it is absolute or remote, else below `image_root`."""
    if is_remote(file_loc):
        return file_loc
    path = os.path.join(image_root, file_loc)
    if is_remote(path) and not {".", ".."}.isdisjoint(file_loc.split("/")):
        # An object store takes "." and ".." as names, not as folders.
        scheme, separator, inside = path.partition("://")
        return f"{scheme}{separator}{os.path.normpath(inside)}"
    return path


def is_outside(location: str, image_root: str) -> bool:
    """Whether an image's `file_loc` is outside the image root."""
    path = os.path.normpath(image_path(location, image_root))
    return not f"{path}/".startswith(os.path.normpath(image_root).rstrip("/") + "/")


def load_image(path: str, least_side: int | None = None) -> Image.Image:
    """Read and decode one JPEG or PNG file.

    Greyscale, 16-bit, CMYK and palette images are converted to 8-bit RGB; transparent pixels are composited
    over black. EXIF orientation is ignored, as galaxy_datasets does.

    Args:
        path: a local path, or a remote one that Beam's filesystems read.
        least_side: see `decode`.

    Returns:
        A PIL image of mode RGB, any size up to `MAX_PIXELS`.

    Raises:
        ImageError: the file cannot be read or decoded.
    """
    return decode(read_bytes(path), least_side)


def read_bytes(path: str) -> bytes:
    """The content of a regular file.

    Raises:
        ImageError: it is missing, unreadable, not a regular file, empty or too large.
    """
    if is_remote(path):
        return _read_remote(path)
    name = _short(path)
    try:
        # O_NONBLOCK: otherwise opening a named pipe would wait for a writer.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise ImageError(f"{name} is {_kind(status.st_mode)}, not a file", may_pass=False)
            if status.st_size > MAX_FILE_BYTES:
                raise ImageError(_TOO_LARGE.format(name), may_pass=False)
            # read(MAX_FILE_BYTES) would be slower: Python first allocates a buffer of that size.
            with open(handle, "rb", closefd=False) as file:
                data = file.read()
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise ImageError(f"{name} is a socket or a device, not a file", may_pass=False) from None
        raise ImageError(f"cannot read {name}: {error.strerror}", may_pass=True) from None
    except ValueError as error:  # a name that no file can have
        raise ImageError(f"cannot read {name!r}: {error}", may_pass=False) from None
    return _checked(data, name)


def _checked(data: bytes, name: str) -> bytes:
    if not data:
        raise ImageError(f"{name} is empty", may_pass=False)
    if len(data) > MAX_FILE_BYTES:
        raise ImageError(_TOO_LARGE.format(name), may_pass=False)
    return data


def _short(path: str) -> str:
    """The path; of a long one its end, so that an error message stays readable."""
    return path if len(path) <= 300 else f"...{path[-300:]}"


def _read_remote(path: str) -> bytes:
    from apache_beam.io.filesystems import FileSystems

    name = _short(path)
    try:
        if is_object(path):
            data = gcs.read(path, MAX_FILE_BYTES)
        else:
            with FileSystems.open(path) as file:
                data = file.read(MAX_FILE_BYTES + 1)
    except UserError:  # no credentials: every image would fail
        raise
    except RunFailed as error:
        raise ImageError(one_line(error), may_pass=True) from None
    except OSError as error:
        may_pass = error.errno not in (errno.EISDIR, errno.EINVAL)  # a name that no object can have
        reason = error.strerror or one_line(error)
        raise ImageError(f"cannot read {name}: {reason}", may_pass=may_pass) from None
    except Exception as error:
        raise ImageError(f"cannot read {name}: {one_line(error)}", may_pass=True) from None
    return _checked(data, name)


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a directory"
    return "a named pipe" if stat.S_ISFIFO(mode) else "a device"


def decode(data: bytes, least_side: int | None = None) -> Image.Image:
    """Decode the bytes of a JPEG or PNG file to 8-bit RGB; see `load_image`.

    Args:
        data: content of the file.
        least_side: pixels that the shorter side of a JPEG must keep when it is decoded to a half, a quarter
            or an eighth of its size; None to decode it in full.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise ImageError(
                f"{width} x {height} px is more than the limit of {MAX_PIXELS:,} pixels",
                may_pass=False,
            )
        if max(width, height) > MAX_ASPECT * min(width, height):
            raise ImageError(f"{width} x {height} px is a strip, not an image of a galaxy", may_pass=False)
        if least_side is not None:
            image.draft(None, (least_side, least_side))
        with ONE_LARGE_IMAGE if width * height > LARGE_PIXELS else contextlib.nullcontext():
            image.load()
            return to_rgb(image)
    except UnidentifiedImageError:
        raise ImageError("neither a JPEG nor a PNG image", may_pass=False) from None
    except Image.DecompressionBombError:  # Pillow's own limit is larger, and it says no size.
        raise ImageError(f"more than the limit of {MAX_PIXELS:,} pixels", may_pass=False) from None
    except ImageError:
        raise
    except MemoryError:
        raise ImageError("not enough memory to decode it", may_pass=True) from None
    except Exception as error:  # Pillow raises OSError, SyntaxError, struct.error, ... on broken files.
        raise ImageError(f"broken image: {one_line(error)}", may_pass=False) from None


def to_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode that JPEG and PNG have, as 8-bit RGB."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        return _from_16_bit(image)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        colour = image.convert("RGBA")
        black = Image.new("RGBA", colour.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, colour).convert("RGB")
    return image.convert("RGB")


def _from_16_bit(image: Image.Image) -> Image.Image:
    # Pillow's own conversion clips at 255 instead of scaling 65535 to 255.
    counts = np.asarray(image)
    if counts.min() < 0 or counts.max() > 65535:
        raise ImageError("more than 16 bits a pixel", may_pass=False)
    transparent = image.info.get("transparency")
    grey = np.empty(counts.shape, np.uint8)
    for start in range(0, len(counts), _STRIP_ROWS):  # the sum needs uint32: a few rows at a time save memory
        some = counts[start : start + _STRIP_ROWS].astype(np.uint32)
        if transparent is not None:
            some[some == transparent] = 0
        grey[start : start + _STRIP_ROWS] = (some + 128) // 257
    return Image.fromarray(grey).convert("RGB")

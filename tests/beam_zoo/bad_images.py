"""Image files as they lie about on real disks: what each must become, or why it is refused."""

import dataclasses
import io
import os
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

RANDOM = np.random.default_rng(0)
SMOOTH = np.linspace(0, 255, 64 * 48).reshape(48, 64).astype(np.uint8)
COLOUR = np.stack([SMOOTH, SMOOTH[::-1], SMOOTH[:, ::-1]], axis=-1)
NOISE = RANDOM.integers(0, 256, (48, 64, 3), np.uint8)


@dataclasses.dataclass(frozen=True)
class Bad:
    """A file without a usable image.

    Attributes:
        make: makes it under a path.
        reason: words of the reason.
        may_pass: whether a later try may succeed.
    """

    make: Callable[[Path], object]
    reason: str
    may_pass: bool = False


@dataclasses.dataclass(frozen=True)
class Odd:
    """A file that is converted.

    Attributes:
        make: makes it under a path.
        pixels: what it must become, RGB.
        tolerance: in grey levels: 1 for rounding, more where JPEG loses some.
    """

    make: Callable[[Path], object]
    pixels: np.ndarray
    tolerance: int = 0


def png(width: int, height: int, depth: int, colour: int, data: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG file put together here, because Pillow writes only some of what others write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", data), (b"IEND", b"")]
    framed = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def png16(counts: np.ndarray, colour: int) -> bytes:
    """A 16-bit PNG; `counts` has shape (height, width, channel)."""
    height, width, _ = counts.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in counts)
    return png(width, height, 16, colour, zlib.compress(rows))


def grey(values: np.ndarray) -> np.ndarray:
    """RGB of a grey image."""
    return np.repeat(values[..., None], 3, axis=2).astype(np.uint8)


def over_black(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Colours weighted by their opacity."""
    return np.rint(pixels * (alpha[..., None] / 255.0)).astype(np.uint8)


def _save(image: Image.Image, **settings: object) -> Callable[[Path], object]:
    def make(path: Path) -> None:
        data = io.BytesIO()
        image.save(
            data, settings.get("format", "PNG"), **{k: v for k, v in settings.items() if k != "format"}
        )
        path.write_bytes(data.getvalue())

    return make


def _bytes(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


def encoded(kind: str) -> bytes:
    """A good colour image as a JPEG or PNG file."""
    data = io.BytesIO()
    Image.fromarray(COLOUR).save(data, kind)
    return data.getvalue()


def _socket(path: Path) -> None:
    # A socket's path must be short: made from within its folder.
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def _animation(path: Path) -> None:
    frames = [Image.fromarray(NOISE).convert("P"), Image.fromarray(COLOUR).convert("P")]
    data = io.BytesIO()
    frames[0].save(data, "GIF", save_all=True, append_images=frames[1:])
    path.write_bytes(data.getvalue())


def _palette(path: Path) -> None:
    image = Image.new("P", (4, 1))
    image.putpalette([200, 100, 50, 0, 255, 0, 10, 20, 30, 255, 255, 255])
    image.putdata([0, 1, 2, 3])
    image.save(path, "PNG", transparency=bytes([255, 0, 128, 255]))


COUNTS = RANDOM.integers(0, 65536, (5, 7, 4), np.uint16)
ALPHA = RANDOM.integers(0, 256, (48, 64), np.uint8)
BITS = RANDOM.integers(0, 2, (48, 64), np.uint8) * np.uint8(255)
TRANSPARENT = np.where(SMOOTH == 100, 0, SMOOTH)
PALETTE = np.array([[[200, 100, 50], [0, 0, 0], [5, 10, 15], [255, 255, 255]]], np.uint8)
HALF = (COUNTS / 257).round()

TURNED = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"


def _link(path: Path) -> None:
    Image.fromarray(NOISE).save(path.with_name("target.png"))
    path.symlink_to("target.png")


ODD = {
    "colour.jpg": Odd(_save(Image.fromarray(COLOUR), format="JPEG", quality=95), COLOUR, 12),
    "colour.JPG": Odd(_save(Image.fromarray(COLOUR), format="JPEG", quality=95), COLOUR, 12),
    "progressive.JPEG": Odd(
        _save(Image.fromarray(COLOUR), format="JPEG", quality=95, progressive=True), COLOUR, 12
    ),
    "png named.jpg": Odd(_save(Image.fromarray(NOISE)), NOISE),
    "colour.PNG": Odd(_save(Image.fromarray(NOISE)), NOISE),
    "grey.jpg": Odd(_save(Image.fromarray(SMOOTH), format="JPEG", quality=95), grey(SMOOTH), 6),
    "grey.png": Odd(_save(Image.fromarray(SMOOTH)), grey(SMOOTH)),
    "cmyk.jpg": Odd(_save(Image.fromarray(COLOUR).convert("CMYK"), format="JPEG", quality=95), COLOUR, 12),
    "16-bit grey.png": Odd(_bytes(png16(COUNTS[..., :1], 0)), grey(HALF[..., 0])),
    "16-bit grey and alpha.png": Odd(
        _bytes(png16(COUNTS[..., :2], 4)), over_black(grey(HALF[..., 0]), HALF[..., 1]), 2
    ),
    "48-bit colour.png": Odd(_bytes(png16(COUNTS[..., :3], 2)), HALF[..., :3].astype(np.uint8), 1),
    "64-bit colour and alpha.png": Odd(
        _bytes(png16(COUNTS, 6)), over_black(HALF[..., :3], HALF[..., 3]), 2
    ),
    "16-bit with a transparent value.png": Odd(
        _bytes(png(2, 1, 16, 0, zlib.compress(b"\0\x80\x80\x12\x34"), (b"tRNS", b"\x12\x34"))),
        np.array([[[128] * 3, [0] * 3]], np.uint8),
    ),
    "palette with alpha.png": Odd(_palette, PALETTE, 1),
    "palette.png": Odd(_save(Image.fromarray(BITS).convert("P")), grey(BITS)),
    "rgba.png": Odd(_save(Image.fromarray(np.dstack([COLOUR, ALPHA]))), over_black(COLOUR, ALPHA), 1),
    "la.png": Odd(_save(Image.fromarray(np.dstack([SMOOTH, ALPHA]))), over_black(grey(SMOOTH), ALPHA), 1),
    "transparent value.png": Odd(_save(Image.fromarray(SMOOTH), transparency=100), grey(TRANSPARENT)),
    "1-bit.png": Odd(_save(Image.fromarray(BITS).convert("1")), grey(BITS)),
    "2-bit.png": Odd(_bytes(png(4, 1, 2, 0, zlib.compress(b"\0\x1b"))), grey(np.array([[0, 85, 170, 255]]))),
    "1 x 1.png": Odd(_save(Image.new("RGB", (1, 1), (1, 2, 3))), np.array([[[1, 2, 3]]], np.uint8)),
    "1 x 1.jpg": Odd(_save(Image.new("L", (1, 1), 77), format="JPEG"), grey(np.array([[77]])), 2),
    # galaxy_datasets does not turn images either.
    "turned.jpg": Odd(_save(Image.fromarray(COLOUR), format="JPEG", quality=95, exif=TURNED), COLOUR, 12),
    "link.jpg": Odd(_link, NOISE),
    "with\nnewline, comma.png": Odd(_save(Image.fromarray(NOISE)), NOISE),
}  # fmt: skip

BAD = {
    "missing.jpg": Bad(lambda path: None, "No such file", True),
    "in a missing folder/x.jpg": Bad(lambda path: None, "No such file", True),
    "below a file.jpg": Bad(lambda path: path.write_bytes(b"x"), "neither a JPEG nor a PNG"),
    "truncated.jpg": Bad(_bytes(encoded("JPEG")[:-200]), "broken image"),
    "header only.jpg": Bad(_bytes(encoded("JPEG")[:20]), "neither a JPEG nor a PNG"),
    "truncated.png": Bad(_bytes(encoded("PNG")[:-200]), "broken image"),
    "wrong checksum.png": Bad(_bytes(encoded("PNG").replace(b"IDAT", b"IDAT\xff", 1)), "broken image"),
    "no data.png": Bad(_bytes(png(4, 4, 8, 2, b"")), "broken image"),
    "too little data.png": Bad(_bytes(png(400, 400, 8, 2, zlib.compress(b"\0" * 1000))), "broken image"),
    "empty.jpg": Bad(_bytes(b""), "is empty"),
    "text.jpg": Bad(_bytes(b"<html>404 Not Found</html>"), "neither a JPEG nor a PNG"),
    "noise.jpg": Bad(_bytes(RANDOM.bytes(5000)), "neither a JPEG nor a PNG"),
    "zeros.jpg": Bad(_bytes(bytes(5000)), "neither a JPEG nor a PNG"),
    "animation.jpg": Bad(_animation, "neither a JPEG nor a PNG"),
    "bitmap.jpg": Bad(_save(Image.fromarray(COLOUR), format="BMP"), "neither a JPEG nor a PNG"),
    "fits.jpg": Bad(_bytes(b"SIMPLE  =                    T".ljust(2880)), "neither a JPEG nor a PNG"),
    "20000 x 20000.png": Bad(
        _bytes(png(20_000, 20_000, 1, 0, b"")), "more than the limit of 64,000,000 pixels"
    ),
    "9000 x 9000.png": Bad(_bytes(png(9_000, 9_000, 8, 2, b"")), "9000 x 9000 px is more than the limit"),
    "strip.png": Bad(_bytes(png(1, 60_000, 8, 0, b"")), "strip"),
    "no pixels.png": Bad(_bytes(png(0, 0, 8, 2, b"")), ""),
    "directory.jpg": Bad(lambda path: path.mkdir(), "is a directory"),
    "pipe.jpg": Bad(os.mkfifo, "is a named pipe"),
    "socket.jpg": Bad(_socket, "is a socket or a device"),
    "device.jpg": Bad(lambda path: path.symlink_to("/dev/zero"), "is a device"),
    "loop.jpg": Bad(lambda path: path.symlink_to(path.name), "symbolic links", True),
    "dangling.jpg": Bad(lambda path: path.symlink_to("nowhere.jpg"), "No such file", True),
    "n" * 300 + ".jpg": Bad(lambda path: None, "name too long", True),
    "../" * 2000 + "x.jpg": Bad(lambda path: None, "name too long", True),
}  # fmt: skip

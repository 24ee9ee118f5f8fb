"""Each kind of image file, one by one."""

import contextlib
import os
from pathlib import Path

import numpy as np
import pytest

from beam_zoo.images import decode as images
from beam_zoo.images.decode import ImageError, image_path, load_image
from tests.beam_zoo.bad_images import BAD, ODD, RANDOM, encoded


def _made(folder: Path, name: str, make) -> str:
    make(folder / name)
    return image_path(name, str(folder))


@pytest.mark.parametrize("name", ODD)
def test_converted(tmp_path: Path, name: str) -> None:
    odd = ODD[name]
    image = load_image(_made(tmp_path, name, odd.make))
    assert image.mode == "RGB"
    pixels = np.asarray(image).astype(int)
    assert pixels.shape == odd.pixels.shape
    assert np.abs(pixels - odd.pixels).max() <= odd.tolerance


@pytest.mark.parametrize("name", BAD, ids=lambda name: name[:30])
def test_refused(tmp_path: Path, name: str) -> None:
    bad = BAD[name]
    with pytest.raises(ImageError) as caught:
        load_image(_made(tmp_path, name, bad.make))
    reason = str(caught.value)
    assert bad.reason in reason
    assert len(reason) < 500, "so long that a table would cut off the reason"
    assert caught.value.may_pass is bad.may_pass


@pytest.mark.parametrize(
    ("path", "may_pass"),
    [("a\0b.jpg", False), ("/proc/self/mem", True), ("nowhere://bucket/x.jpg", True), ("/dev/null", False)],
)
def test_paths_that_are_no_file(path: str, may_pass: bool) -> None:
    with pytest.raises(ImageError) as caught:
        load_image(path)
    assert caught.value.may_pass is may_pass


def test_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read everything, so the system's answer is played."""

    def refuse(*_args: object) -> int:
        raise PermissionError(13, "Permission denied")

    path = _made(tmp_path, "x.png", ODD["colour.PNG"].make)
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ImageError, match=r"x\.png: Permission denied") as caught:
        load_image(path)
    assert caught.value.may_pass


def test_an_error_while_reading_may_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network disk that goes away between opening and reading."""
    path = _made(tmp_path, "x.png", ODD["colour.PNG"].make)

    def broken(_handle: int) -> os.stat_result:
        raise OSError(116, "Stale file handle")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", broken)
        with pytest.raises(ImageError) as caught:
            load_image(path)
    assert "Stale file handle" in str(caught.value)
    assert caught.value.may_pass


def test_a_file_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _made(tmp_path, "x.png", ODD["colour.PNG"].make)
    monkeypatch.setattr(images, "MAX_FILE_BYTES", os.path.getsize(path) - 1)
    with pytest.raises(ImageError, match="larger than"):
        load_image(path)


def test_nothing_stays_open(tmp_path: Path) -> None:
    """A run meets millions of files: one left open each would end it."""
    paths = [_made(tmp_path, name, BAD[name].make) for name in BAD if len(name) < 100]
    paths += [_made(tmp_path, name, ODD[name].make) for name in ODD]
    before = len(os.listdir("/proc/self/fd"))
    for path in paths:
        with contextlib.suppress(ImageError):
            load_image(path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_broken_bytes_are_one_reason_never_another_error() -> None:
    """Files with a few bytes changed anywhere, and cut anywhere."""
    for data in (encoded("JPEG"), encoded("PNG")):
        for _ in range(150):
            broken = bytearray(data)
            for position in RANDOM.integers(0, len(data), 3):
                broken[position] = RANDOM.integers(0, 256)
            try:
                assert images.decode(bytes(broken[: RANDOM.integers(1, len(data) + 1)])).mode == "RGB"
            except ImageError as error:
                assert str(error) and "\n" not in str(error)


def test_where_images_are() -> None:
    assert image_path("a/b.jpg", "/sky") == "/sky/a/b.jpg"
    assert image_path("/a/b.jpg", "/sky") == "/a/b.jpg"
    assert image_path("gs://x/b.jpg", "/sky") == "gs://x/b.jpg"
    assert image_path("a/b.jpg", "gs://x/images/") == "gs://x/images/a/b.jpg"

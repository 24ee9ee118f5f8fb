"""The GPU's decoder, with libjpeg-turbo in the place of its engines: what it takes is what Pillow decodes."""

import io

import numpy as np
import pytest
from PIL import Image

from beam_zoo.images import decode as images
from beam_zoo.images.fast_views import FastView
from beam_zoo.images.gpu.card_decoder import CardDecoder
from beam_zoo.images.views import view_settings
from tests import oracle
from tests.beam_zoo.bad_images import BAD, COLOUR, ODD


@pytest.fixture(scope="module")
def card() -> CardDecoder:
    return CardDecoder("cpu")


def jpeg(mode: str = "RGB", **settings) -> bytes:
    file = io.BytesIO()
    Image.fromarray(COLOUR).convert(mode).save(file, "JPEG", **settings)
    return file.getvalue()


GOOD = {
    "4:4:4": jpeg(subsampling=0),
    "4:2:2": jpeg(subsampling=1),
    "4:2:0": jpeg(subsampling=2),
    "with restarts": jpeg(restart_marker_blocks=2),
    "turned": jpeg(exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"),
}
LEFT = {
    "colours without a transform": jpeg(keep_rgb=True),
    "cut off": jpeg()[:-100],
    "cut off in its header": jpeg()[:300] + b"\xff\xd9",
    "more behind its end": jpeg() + b"\0",
    "no data": jpeg()[: jpeg().index(b"\xff\xda") + 14] + b"\xff\xd9",
    "no data, its end in its header": jpeg()[: jpeg().index(b"\xff\xda") + 12] + b"\xff\xd9",
    "two in one file": jpeg() + jpeg(),
    "cut off, and another behind it": jpeg()[:-100] + jpeg(),
    "a marker in its data": jpeg()[:-100] + b"\xff\xc4" + jpeg()[-98:],
    "progressive": jpeg(progressive=True),
    "grey": jpeg(mode="L"),
    "CMYK": jpeg(mode="CMYK"),
    "no JFIF": jpeg()[:2] + jpeg()[20:],
    "too short a JFIF": jpeg()[:4] + b"\0\x08JFIF\0\1" + jpeg()[20:],
    "sampled otherwise": jpeg().replace(b"\1\x22\0\2\x11", b"\1\x12\0\2\x11", 1),
    "numbered otherwise": jpeg().replace(b"\1\x22\0\2\x11", b"R\x22\0\2\x11", 1),
    "12 bits": jpeg().replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c", 1),
    "arithmetic coding": jpeg().replace(b"\xff\xc0\0\x11", b"\xff\xc9\0\x11", 1),
    "no size": jpeg().replace(b"\x08\0\x30\0\x40", b"\x08\0\0\0\x40", 1),
    "nothing": b"",
    "no file": None,
}


def test_what_it_takes(card):
    """Together with what it leaves: each its own."""
    files = [data for pair in zip(GOOD.values(), LEFT.values(), strict=False) for data in pair]
    for data, found in zip(files, card.decode(files, None), strict=True):
        if data in list(GOOD.values()):
            np.testing.assert_array_equal(found, images.decode(data))
        else:
            assert found is None


@pytest.mark.parametrize("name", LEFT)
def test_what_it_leaves(card, name):
    assert LEFT[name] not in GOOD.values()  # what was replaced was there
    assert card.decode([LEFT[name]], None) == [None]


def test_damaged_files(card, catalogue):
    """Nothing is taken that Pillow refuses, and what both take they decode alike."""
    random = np.random.default_rng(0)
    whole = oracle.paths_of(catalogue)[0].read_bytes()
    seen = set()
    for number in range(300):
        data = bytearray(whole)
        length = int(random.choice([1, 4, 64, 512]))
        start = int(random.integers(0, len(data) - length))
        data[start : start + length] = random.bytes(length)
        if number % 10 == 0:
            data = data[:start] + data[start + length :]
        found = card.decode([bytes(data)], None)[0]
        try:
            expected = images.decode(bytes(data))
        except images.ImageError:
            expected = None
        seen.add((found is None, expected is None))
        if found is not None:
            np.testing.assert_array_equal(found, expected)
    assert seen == {(True, True), (True, False), (False, False)}


def test_files_that_it_fails_at(caplog):
    """It is said once, and the others are decoded."""
    card = CardDecoder("cpu")
    broken = GOOD["4:2:0"].replace(b"\xff\xc4\0\x1f\0\0\1\5", b"\xff\xc4\0\x1f\0\xff\xff\xff", 1)
    assert broken not in GOOD.values()
    for _ in range(2):
        found = card.decode([broken, GOOD["4:4:4"]], None)
        assert found[0] is None and found[1] is not None
    assert [record.message for record in caplog.records] == [
        "the GPU's decoder failed (it gave no pixels): processor cores decode some images"
    ]


def test_its_end():
    CardDecoder("cpu", 3).close()


@pytest.mark.parametrize("name", [*ODD, *BAD])
def test_files_as_they_lie_about(card, name, tmp_path):
    """It takes nothing that is refused, and nothing becomes something else."""
    path = tmp_path / name[:100].replace("/", "_")
    {**ODD, **BAD}[name].make(path)
    if path.is_file() and not path.is_symlink():
        found = card.decode([path.read_bytes()], None)[0]
        if found is not None:
            np.testing.assert_array_equal(found, images.decode(path.read_bytes()))


def test_what_is_decoded_to_fewer_pixels(card):
    """By Pillow, so that an output's numbers do not depend on who decoded: COLOUR has 48 rows."""
    assert card.decode([GOOD["4:2:0"]], 24) == [None]
    found = card.decode([GOOD["4:2:0"]], 25)[0]
    np.testing.assert_array_equal(found, images.decode(GOOD["4:2:0"], 25))


@pytest.mark.parametrize("greyscale", [False, True])
def test_views_of_what_it_takes(card, greyscale):
    """Of images on the device and of others, together."""
    import torch

    view = FastView(view_settings({"base": "minimal", "output_size": 32}, greyscale))
    image = images.decode(GOOD["4:2:0"])
    decoded = card.decode([GOOD["4:2:0"]], None)[0]
    assert decoded is not None
    draw = [view.draw(image.height, image.width)]
    out = torch.zeros((2, 1, *view.shape), dtype=torch.uint8)
    view.batch([torch.from_numpy(view.raw(image)), decoded], [draw, draw], out)
    np.testing.assert_array_equal(out[0], out[1])
    exact = view.pixels(image).astype(int)
    assert exact.any() and np.abs(out[1, 0].numpy() - exact).max() <= 1

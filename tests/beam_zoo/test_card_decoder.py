"""The GPU's decoder, with libjpeg-turbo in the place of its engines: what it takes is what Pillow decodes."""

import io

import numpy as np
import pytest
from PIL import Image

from beam_zoo import images
from beam_zoo.card_decoder import CardDecoder
from beam_zoo.fast_views import FastView
from beam_zoo.views import view_settings
from tests.beam_zoo.bad_images import BAD, COLOUR, ODD


@pytest.fixture(scope="module")
def card() -> CardDecoder:
    return CardDecoder("cpu")


def jpeg(**settings) -> bytes:
    file = io.BytesIO()
    Image.fromarray(COLOUR).save(file, "JPEG", **settings)
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
    "nothing": b"",
    "no file": None,
}


def test_what_it_takes(card):
    """Together with what it leaves: each its own."""
    files = [data for pair in zip(GOOD.values(), LEFT.values(), strict=False) for data in pair]
    for data, found in zip(files, card.decode(files, None), strict=True):
        if data in GOOD.values():
            np.testing.assert_array_equal(found, images.decode(data))
        else:
            assert found is None


@pytest.mark.parametrize("name", LEFT)
def test_what_it_leaves(card, name):
    assert card.decode([LEFT[name]], None) == [None]


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
    np.testing.assert_array_equal(out[1, 0], view.pixels(image))

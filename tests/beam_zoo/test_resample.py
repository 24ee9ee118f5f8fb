"""The compiled affine transform and resize against Pillow's own, bit by bit."""

import os
import resource
import subprocess
import sys
import textwrap

import numba
import numpy as np
import pytest
from PIL import Image

from beam_zoo.images import views
from beam_zoo.images.kernels import compiled_image, resample
from beam_zoo.images.kernels.compiled_image import CompiledImage
from beam_zoo.runtime import compiler

AFFINE, BILINEAR = Image.Transform.AFFINE, Image.Resampling.BILINEAR
SIZES = [(1, 1), (1, 9), (7, 1), (2, 3), (60, 41), (300, 201)]
MATRICES = {
    "the image itself": (1, 0, 0, 0, 1, 0),
    "enlarged": (0.8333333002196431, 0.0, 5.3, -0.0, 0.8333333002196431, 3.1),
    "halves": (0.5, 0, 10, 0, 0.25, 3),
    "smaller": (2.7, 0, -20.5, 0, 1.9, -11),
    "mirrored": (-1, 0, 41, 0, 1, 0.5),
    "turned": (0.8, 0.31, -20, -0.4, 0.93, 33),
    "turned by a right angle": (0, 1, 0, -1, 0, 41),
    "sheared along one axis": (1, 0.3, -5, 0, 1, 0),
    "all from outside": (1, 0, 5000, 0, 1, 0),
    "turned, all from outside": (1, 0.1, 5000, 0.1, 1, 0),
}


@pytest.fixture(params=["RGB", "L"])
def images(request) -> list[Image.Image]:
    """Noise, and smooth images, whose pixels lie on whole numbers more often."""
    rng = np.random.default_rng(3)
    found = []
    for width, height in SIZES:
        noise = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        small = noise.resize((max(1, width // 20), max(1, height // 20)))
        found += [noise.convert(request.param), small.resize((width, height)).convert(request.param)]
    return found


def assert_same(found: Image.Image, expected: Image.Image) -> None:
    assert (found.mode, found.size) == (expected.mode, expected.size)
    a, b = np.asarray(found), np.asarray(expected)
    np.testing.assert_array_equal(a.reshape(b.shape), b)


@pytest.mark.parametrize("name", MATRICES)
def test_affine(images, name):
    matrix = MATRICES[name]
    for image in images:
        for size in (image.size, (50, 33)):
            for colour in (None, 0, 90, 300, -5):
                fill = (colour,) * 3 if image.mode == "RGB" and colour else colour
                given = (size, AFFINE, matrix, BILINEAR)
                found = CompiledImage(image).transform(*given, fillcolor=fill)
                assert isinstance(found, CompiledImage)
                assert_same(found, image.transform(*given, fillcolor=0 if fill is None else fill))


def test_affine_of_many_matrices():
    rng = np.random.default_rng(5)
    image = Image.fromarray(rng.integers(0, 256, (90, 70, 3), dtype=np.uint8))
    for _ in range(200):
        matrix = tuple(rng.normal([1, 0, 0, 0, 1, 0], [0.4, 0.4, 9, 0.4, 0.4, 9]))
        given = (image.size, AFFINE, matrix, BILINEAR)
        assert_same(CompiledImage(image).transform(*given), image.transform(*given, fillcolor=0))


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (224, 224), (31, 77), (301, 300), (900, 3)])
def test_resize(images, size):
    for image in images:
        found = CompiledImage(image).resize(size, BILINEAR)
        assert isinstance(found, CompiledImage)
        assert_same(found, image.resize(size, BILINEAR))


def test_many_sizes():
    rng = np.random.default_rng(6)
    for before, after in rng.integers(1, 400, (150, 2)):
        image = Image.fromarray(rng.integers(0, 256, (before, 5, 3), dtype=np.uint8))
        assert_same(CompiledImage(image).resize((5, after), BILINEAR), image.resize((5, after), BILINEAR))
        turned = image.transpose(Image.Transpose.ROTATE_90)
        assert_same(CompiledImage(turned).resize((after, 4), BILINEAR), turned.resize((after, 4), BILINEAR))


def test_strips():
    """Pillow makes the columns of a long strip before its rows."""
    rng = np.random.default_rng(7)
    for width, height in ((3, 400), (400, 3)):
        image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for size in ((10, 200), (2, 900), (200, 10)):
            assert_same(CompiledImage(image).resize(size, BILINEAR), image.resize(size, BILINEAR))


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_large_image(mode):
    """Over 16 MB Pillow has an image in pieces."""
    rng = np.random.default_rng(8)
    image = Image.fromarray(rng.integers(0, 256, (4300, 4200, 3), dtype=np.uint8)).convert(mode)
    found = CompiledImage(image)
    assert_same(found.crop((7, 8, 300, 310)), image.crop((7, 8, 300, 310)))
    assert_same(found.resize((300, 301), BILINEAR), image.resize((300, 301), BILINEAR))
    turned = ((300, 301), AFFINE, MATRICES["turned"], BILINEAR)
    assert_same(found.transform(*turned), image.transform(*turned, fillcolor=0))


def test_memory_that_pillow_borrows():
    grey = np.arange(900, dtype=np.uint8).reshape(30, 30)
    image = Image.fromarray(grey)
    assert_same(CompiledImage(image).resize((9, 9), BILINEAR), image.resize((9, 9), BILINEAR))


def test_memory_outlives_its_image():
    rng = np.random.default_rng(9)
    pixels = rng.integers(0, 256, (424, 424, 3), dtype=np.uint8)
    expected = Image.fromarray(pixels).resize((50, 50), BILINEAR)
    kept = [CompiledImage(Image.fromarray(pixels)) for _ in range(5)]
    for image in kept:
        assert image._pixels.shape == (424, 424, 4)  # Pillow's own
        image._given = None  # type: ignore[assignment]
    others = [Image.new("RGB", (424, 424), "white") for _ in range(9)]
    for image in kept:
        assert_same(image.resize((50, 50), BILINEAR), expected)
    assert len(others) == 9


def run_in_a_process(program: str, **settings) -> None:
    environment = {**os.environ, **settings.pop("env", {})}
    words = [sys.executable, "-B", "-c", textwrap.dedent(program)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, **settings)
    assert done.returncode == 0, done.stderr


def test_aligned_rows():
    """As Pillow can be told to have them."""
    program = """
        import numpy as np
        from PIL import Image
        from beam_zoo.images.kernels.compiled_image import CompiledImage
        assert Image.core.get_alignment() == 64
        image = Image.fromarray(np.arange(41 * 30 * 3, dtype=np.uint8).reshape(30, 41, 3))
        method = Image.Resampling.BILINEAR
        found = CompiledImage(image).resize((9, 9), method)
        assert np.array_equal(found, image.resize((9, 9), method))
    """
    run_in_a_process(program, env={"PILLOW_ALIGNMENT": "64"})


@pytest.fixture
def checked_anew():
    compiled_image.is_pillows.cache_clear()
    yield
    compiled_image.is_pillows.cache_clear()


def test_other_arithmetic(checked_anew, monkeypatch, caplog):
    """Where the bits are not Pillow's, Pillow makes the views, and that is said once."""
    turn = resample._turn

    def off_by_one(image, matrix, out):
        turn(image, matrix, out)
        out[40, 40, 0] ^= 1

    image = Image.new("RGB", (30, 20))
    assert isinstance(views.faster(image), CompiledImage) and not caplog.records
    compiled_image.is_pillows.cache_clear()
    monkeypatch.setattr(resample, "_turn", off_by_one)
    assert [views.faster(image) for _ in range(3)] == [image] * 3
    assert [type(views.faster(image)) for _ in range(3)] == [Image.Image] * 3
    assert [record.getMessage()[:20] for record in caplog.records] == ["Pillow's arithmetic "]


def test_all_else_is_pillows(images):
    for image in images:
        made = CompiledImage(np.asarray(image).reshape(image.height, image.width, -1))
        assert_same(made, image)
        assert_same(made.copy(), image)
        assert_same(made.convert("L"), image.convert("L"))
        assert_same(made.convert("RGB"), image.convert("RGB"))
        assert_same(made.convert("HSV"), image.convert("RGB").convert("HSV"))
        for box in (None, (0, 0, 1, 1), (-2, -3, 4, 5), (0, 0, *image.size)):
            assert_same(made.crop(box), image.crop(box))
        for method in Image.Transpose:
            assert_same(made.transpose(method), image.transpose(method))
        assert_same(made.rotate(30, BILINEAR, expand=True), image.rotate(30, BILINEAR, expand=True))
        bicubic = Image.Resampling.BICUBIC
        assert_same(made.resize((9, 8), bicubic), image.resize((9, 8), bicubic))
        for more in ({"box": (0, 0, 1, 1)}, {"reducing_gap": 1.0}):
            assert_same(made.resize((9, 8), BILINEAR, **more), image.resize((9, 8), BILINEAR, **more))
        affine = ((8, 9), AFFINE, (1, 0.2, 0, 0, 1, 0), bicubic)
        assert_same(made.transform(*affine), image.transform(*affine))
        quad = ((8, 9), Image.Transform.QUAD, (0, 0, 0, 9, 9, 8, 7, 0), BILINEAR)
        assert_same(made.transform(*quad), image.transform(*quad))


def test_planning_does_without():
    run_in_a_process("""
        import sys
        from beam_zoo.images.views import view_settings
        from pipelines import execution, prepare, probe
        view_settings({"base": "minimal", "output_size": 64}, False)
        assert "numba" not in sys.modules
    """)


def test_a_user_without_a_home(monkeypatch):
    """Nothing is kept in a folder that is named with a tilde."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(compiler._CONFIG, "CACHE_DIR", "")
    monkeypatch.setattr(os.path, "expanduser", str)
    with pytest.raises(RuntimeError, match="without a home"):
        compiler.cache_folder()
    doubled = compiler.compiled(numba.float64, numba.float64)(lambda x: 2 * x)
    assert doubled(4.0) == 8


PROGRAM = """
    import numpy as np
    from beam_zoo.images.kernels.resample import resize
    out = np.empty((3, 3, 1), np.uint8)
    resize(np.full((6, 6, 1), 7, np.uint8), out)
    assert (out == 7).all()
"""


@pytest.mark.slow
@pytest.mark.parametrize("wrong", ["no folder", "no space", "damaged"])
def test_what_is_compiled_cannot_be_kept(wrong, tmp_path):
    """Each process compiles for itself then."""
    env = {"NUMBA_CACHE_DIR": "/dev/null" if wrong == "no folder" else str(tmp_path)}
    if wrong == "damaged":
        run_in_a_process(PROGRAM, env=env)
        kept = list(tmp_path.rglob("*.nbi"))
        assert len(kept) > 5
        for file in kept:
            file.write_bytes(b"")

    def no_space() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    run_in_a_process(PROGRAM, env=env, preexec_fn=no_space if wrong == "no space" else None)


@pytest.mark.slow
def test_what_is_compiled_is_kept_for_one_kind_of_processor(tmp_path):
    other = """
    import llvmlite.binding
    llvmlite.binding.get_host_cpu_name = lambda: "nehalem"
"""
    for program in (PROGRAM, other + PROGRAM):
        run_in_a_process(program, env={"NUMBA_CACHE_DIR": str(tmp_path)})
    assert len(list((tmp_path / "beam_zoo").iterdir())) == 2


def test_an_error_of_the_compiler_is_raised_at_once(monkeypatch):
    tried = []
    real = numba.njit
    monkeypatch.setattr(compiler.numba, "njit", lambda *a, **k: tried.append(k) or real(*a, **k))
    with pytest.raises(numba.core.errors.TypingError):
        compiler.compiled(numba.float64, numba.float64)(lambda x: x.no_such_attribute)
    assert len(tried) == 1

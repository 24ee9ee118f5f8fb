"""Pillow's bilinear affine transform and resize, compiled for this processor: the same bits in less time.

Both do Pillow's arithmetic in an order that allows vector instructions. The affine transform works in double
precision and truncates at its end. The resize works in fixed point, with weights of 22 fractional bits.
"""

import functools
import math
from collections.abc import Sequence

import numpy as np
from numba import float64, int32, int64, types, uint8

from beam_zoo.runtime.compiler import compiled

_WEIGHT_BITS = 22
_HALF = np.int32(1 << (_WEIGHT_BITS - 1))
_ONE, _TWO = np.uint64(1), np.uint64(2)

_LINE, _IMAGE = (types.Array(uint8, dimensions, "C") for dimensions in (1, 3))
_GIVEN_LINE, _GIVEN_IMAGE = (types.Array(uint8, dimensions, "C", readonly=True) for dimensions in (1, 3))
_NUMBERS, _PLACES, _TOTALS = (types.Array(kind, 1, "C") for kind in (float64, int64, int32))
_FIRST, _WEIGHTS = types.Array(int64, 1, "C", readonly=True), types.Array(int32, 2, "C", readonly=True)


# Small functions with one loop each, because the compiler vectorises these. For unsigned indices it generates
# no code that handles negative ones.


@compiled(types.UniTuple(int64, 2), float64, float64, float64, int64, int64)
def _inside(step, begin, offset, size, count):
    """The range (first, end) of `count` output pixels that come from inside an axis of `size` pixels."""
    first, end = 0, count
    while first < count and not 0.0 <= step * (first + 0.5) + begin + offset < size:
        first += 1
    while end > first and not 0.0 <= step * (end - 0.5) + begin + offset < size:
        end -= 1
    return first, end


@compiled(types.void, float64, float64, float64, _PLACES, _NUMBERS)
def _places(step, begin, offset, low, share):
    """For each output pixel, along one axis: the lower source pixel, and the weight of the next one."""
    for i in range(low.size):
        place = step * (i + 0.5) + begin + offset - 0.5
        low[i] = math.floor(place)
        share[i] = place - low[i]


@compiled(types.void, _GIVEN_LINE, _NUMBERS)
def _widen(line, wide):
    for i in range(line.size):
        wide[i] = line[i]


@compiled(types.void, _NUMBERS, _PLACES, _NUMBERS, int64, int64, int64, _NUMBERS)
def _blend_colours(wide, low, share, first, end, step, mixed):
    """One row of three channels, along x."""
    last = wide.size // step - 1
    for x in range(first, end):
        left, right = np.uint64(max(low[x], 0) * step), np.uint64(min(low[x] + 1, last) * step)
        here = np.uint64(x * 3)
        red, green, blue = wide[left], wide[left + _ONE], wide[left + _TWO]
        next_red, next_green, next_blue = wide[right], wide[right + _ONE], wide[right + _TWO]
        mixed[here] = red + (next_red - red) * share[x]
        mixed[here + _ONE] = green + (next_green - green) * share[x]
        mixed[here + _TWO] = blue + (next_blue - blue) * share[x]


@compiled(types.void, _NUMBERS, _PLACES, _NUMBERS, int64, int64, _NUMBERS)
def _blend_greys(wide, low, share, first, end, mixed):
    """One row of one channel, along x."""
    for x in range(first, end):
        grey, next_grey = wide[max(low[x], 0)], wide[min(low[x] + 1, wide.size - 1)]
        mixed[x] = grey + (next_grey - grey) * share[x]


@compiled(types.void, _NUMBERS, _NUMBERS, float64, _LINE)
def _blend_rows(upper, lower, share, out):
    for i in range(out.size):
        out[i] = np.uint8(np.int32(upper[i] + (lower[i] - upper[i]) * share))


@compiled(types.void, _GIVEN_IMAGE, float64, float64, float64, float64, _IMAGE)
def _scale(image, x_step, x_offset, y_step, y_offset, out):
    """The affine transform without rotation or shear: each row of the image is blended along x once."""
    height, width, step = image.shape
    rows, columns, channels = out.shape
    first_x, end_x = _inside(x_step, 0.0, x_offset, width, columns)
    first_y, end_y = _inside(y_step, 0.0, y_offset, height, rows)
    low_x, share_x = np.empty(columns, np.int64), np.empty(columns)
    low_y, share_y = np.empty(rows, np.int64), np.empty(rows)
    _places(x_step, 0.0, x_offset, low_x, share_x)
    _places(y_step, 0.0, y_offset, low_y, share_y)
    lines, made = image.reshape(height, width * step), out.reshape(rows, columns * channels)
    wide, mixed = np.empty(width * step), np.empty((2, columns * channels))
    held = np.full(2, -1)
    chosen = slice(first_x * channels, end_x * channels)
    for y in range(first_y, end_y):
        upper, lower = max(low_y[y], 0), min(low_y[y] + 1, height - 1)
        for line in (upper, lower):
            if held[line % 2] != line:
                held[line % 2] = line
                _widen(lines[line], wide)
                if channels == 3:
                    _blend_colours(wide, low_x, share_x, first_x, end_x, step, mixed[line % 2])
                else:
                    _blend_greys(wide, low_x, share_x, first_x, end_x, mixed[line % 2])
        _blend_rows(mixed[upper % 2, chosen], mixed[lower % 2, chosen], share_y[y], made[y, chosen])


@compiled(types.void, _GIVEN_IMAGE, _PLACES, _PLACES, _NUMBERS, _NUMBERS, int64, int64, int64, _LINE)
def _blend_points(image, low_x, low_y, share_x, share_y, first, end, channels, out):
    height, width, step = image.shape
    lines = image.reshape(height, width * step)
    for x in range(first, end):
        left = np.uint64(max(low_x[x], 0) * step)
        right = np.uint64(min(low_x[x] + 1, width - 1) * step)
        upper, lower = np.uint64(max(low_y[x], 0)), np.uint64(min(low_y[x] + 1, height - 1))
        here = np.uint64(x * channels)
        for c in range(channels):
            k = np.uint64(c)
            p, q = float64(lines[upper, left + k]), float64(lines[upper, right + k])
            above = p + (q - p) * share_x[x]
            p, q = float64(lines[lower, left + k]), float64(lines[lower, right + k])
            below = p + (q - p) * share_x[x]
            out[here + k] = np.uint8(np.int32(above + (below - above) * share_y[x]))


@compiled(types.void, _GIVEN_IMAGE, _NUMBERS, _IMAGE)
def _turn(image, matrix, out):
    """The affine transform of any matrix."""
    height, width = image.shape[0], image.shape[1]
    rows, columns, channels = out.shape
    made = out.reshape(rows, columns * channels)
    low_x, share_x = np.empty(columns, np.int64), np.empty(columns)
    low_y, share_y = np.empty(columns, np.int64), np.empty(columns)
    a, b, c, d, e, f = matrix[0], matrix[1], matrix[2], matrix[3], matrix[4], matrix[5]
    for y in range(rows):
        first_x, end_x = _inside(a, b * (y + 0.5), c, width, columns)
        first_y, end_y = _inside(d, e * (y + 0.5), f, height, columns)
        _places(a, b * (y + 0.5), c, low_x, share_x)
        _places(d, e * (y + 0.5), f, low_y, share_y)
        first, end = max(first_x, first_y), min(end_x, end_y)
        _blend_points(image, low_x, low_y, share_x, share_y, first, end, channels, made[y])


@compiled(types.void, _GIVEN_LINE, _FIRST, _WEIGHTS, int64, _LINE)
def _mean_colours(line, first, weights, step, out):
    """The resize of one row of three channels."""
    for x in range(first.size):
        k, here = np.uint64(first[x] * step), np.uint64(x * 3)
        red, green, blue = _HALF, _HALF, _HALF
        for tap in range(weights.shape[1]):
            red += np.int32(line[k]) * weights[x, tap]
            green += np.int32(line[k + _ONE]) * weights[x, tap]
            blue += np.int32(line[k + _TWO]) * weights[x, tap]
            k += np.uint64(step)
        out[here] = red >> _WEIGHT_BITS
        out[here + _ONE] = green >> _WEIGHT_BITS
        out[here + _TWO] = blue >> _WEIGHT_BITS


@compiled(types.void, _GIVEN_LINE, _FIRST, _WEIGHTS, _LINE)
def _mean_greys(line, first, weights, out):
    """The resize of one row of one channel."""
    for x in range(first.size):
        grey = _HALF
        for tap in range(weights.shape[1]):
            grey += np.int32(line[np.uint64(first[x] + tap)]) * weights[x, tap]
        out[x] = grey >> _WEIGHT_BITS


@compiled(types.void, _TOTALS, _LINE, int32)
def _add(totals, line, weight):
    for i in range(totals.size):
        totals[i] += np.int32(line[i]) * weight


@compiled(types.void, _TOTALS, _LINE)
def _narrow(totals, out):
    for i in range(totals.size):
        out[i] = np.uint8(totals[i] >> np.int32(_WEIGHT_BITS))


@compiled(types.void, _GIVEN_IMAGE, _FIRST, _WEIGHTS, _FIRST, _WEIGHTS, _IMAGE)
def _resize(image, first_x, weights_x, first_y, weights_y, out):
    height, width, step = image.shape
    rows, columns, channels = out.shape
    values = columns * channels
    lines, made = image.reshape(height, width * step), out.reshape(rows, values)
    narrow, totals = np.empty((height, values), np.uint8), np.empty(values, np.int32)
    for y in range(height):
        if channels == 3:
            _mean_colours(lines[y], first_x, weights_x, step, narrow[y])
        else:
            _mean_greys(lines[y], first_x, weights_x, narrow[y])
    for y in range(rows):
        totals[:] = _HALF
        for tap in range(weights_y.shape[1]):
            _add(totals, narrow[first_y[y] + tap], weights_y[y, tap])
        _narrow(totals, made[y])


def affine(pixels: np.ndarray, matrix: Sequence[float], out: np.ndarray) -> None:
    """Pillow's affine transform, bilinear.

    Args:
        pixels: uint8, shape (height, width, channel); a fourth channel is left out.
        matrix: a, b, c, d, e, f: output pixel (x, y) comes from input pixel (a x + b y + c, d x + e y + f).
        out: the result, uint8, shape (height, width, channel), of any size, with one channel or three; pixels
            from outside the image are not written.
    """
    a, b, c, d, e, f = map(float, matrix)
    if b == 0 and d == 0:
        _scale(pixels, a, c, e, f, out)
    else:
        _turn(pixels, np.array([a, b, c, d, e, f]), out)


def resize(pixels: np.ndarray, out: np.ndarray) -> None:
    """Pillow's resize, bilinear: a pixel of a smaller image is a weighted mean of all pixels that it covers.

    Args:
        pixels: uint8, shape (height, width, channel); a fourth channel is left out.
        out: the result, uint8, shape (height, width, channel), of any size, with one channel or three.
    """
    _resize(pixels, *_weights(pixels.shape[1], out.shape[1]), *_weights(pixels.shape[0], out.shape[0]), out)


@functools.lru_cache(maxsize=1000)
def _weights(size: int, new_size: int) -> tuple[np.ndarray, np.ndarray]:
    """The source pixels and weights of each pixel of a resized axis.

    Args:
        size: of the source axis.
        new_size: of the resized axis.

    Returns:
        First source pixels, int64, shape (new_size,); weights from there on, int32, shape (new_size, tap).
    """
    scale = size / new_size
    reach = max(scale, 1.0)
    centre = (np.arange(new_size) + 0.5) * scale
    begin = np.maximum((centre - reach + 0.5).astype(np.int64), 0)
    end = np.minimum((centre + reach + 0.5).astype(np.int64), size)
    taps = int((end - begin).max())
    first = np.minimum(begin, size - taps)  # so that every weight, even a zero, has a source pixel
    pixel = first[:, None] + np.arange(taps)
    share = np.maximum(1 - np.abs((pixel - centre[:, None] + 0.5) * (1 / reach)), 0)
    share[(pixel < begin[:, None]) | (pixel >= end[:, None])] = 0
    total = functools.reduce(np.add, share.T)  # in Pillow's order; np.sum has another
    weights = (share / total[:, None] * (1 << _WEIGHT_BITS) + 0.5).astype(np.int32)
    first.flags.writeable = weights.flags.writeable = False
    return first, weights

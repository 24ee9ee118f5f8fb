"""Draws one simulated galaxy as a colour image, the way a survey's cutout server would."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.special import expit

from examples.galaxy import DISK, FIELD_OF_VIEW, REFERENCE_SIZE, Galaxy

Map = NDArray[np.float32]

# Relative flux in the red, green and blue channel of stars of three ages.
OLD = np.array([1.22, 1.00, 0.74], dtype=np.float32)
MIXED = np.array([1.03, 1.00, 0.92], dtype=np.float32)
YOUNG = np.array([0.84, 0.98, 1.24], dtype=np.float32)
HII = np.array([1.25, 0.85, 1.15], dtype=np.float32)

# The arcsinh stretch is linear below SOFTENING and reaches white at WHITE (units of sky noise).
SOFTENING = 4.0
WHITE = 220.0

FWHM_TO_SIGMA = 1.0 / 2.3548


def render(galaxy: Galaxy, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Colour image of one galaxy among its neighbours.

    Args:
        galaxy: what to draw.
        size: side of the image, pixels.
        rng: source of the noise, the neighbours and the clumps in the arms.

    Returns:
        RGB image, uint8, shape (size, size, 3).
    """
    pixel = FIELD_OF_VIEW / size
    flux = np.zeros((3, size, size), dtype=np.float32)
    if galaxy.morphology == DISK:
        _add_disk_galaxy(flux, galaxy, pixel, rng)
    else:
        x, y = _rotated_grid(size, size, pixel, galaxy.position_angle)
        radius = np.hypot(x, y / np.float32(galaxy.axis_ratio))
        light = _sersic(radius, galaxy.effective_radius, galaxy.sersic_index, pixel)
        flux += (galaxy.signal_to_noise * _colour(galaxy.colour))[:, None, None] * light
    _add_neighbours(flux, galaxy, pixel, rng)
    sigma = galaxy.seeing * FWHM_TO_SIGMA / pixel
    for axis in (1, 2):
        gaussian_filter1d(flux, sigma, axis=axis, output=flux, truncate=3.0)
    # A smaller pixel collects less sky, so noise per unit area stays the same at any size.
    noise = rng.standard_normal(flux.shape, dtype=np.float32)
    noise *= np.float32(size / REFERENCE_SIZE)
    noise *= np.array([1.1, 0.9, 1.2], dtype=np.float32)[:, None, None]
    flux += noise
    return _stretch(flux, galaxy.sky_level)


def _colour(red: float) -> NDArray[np.float32]:
    """Channel fluxes between mixed-age stars (0) and old stars (1), float32, shape (3,)."""
    return (MIXED + np.float32(red) * (OLD - MIXED)).astype(np.float32)


def _rotated_grid(side: int, size: int, pixel: float, position_angle: float) -> tuple[Map, Map]:
    """Offsets from the image's centre along the major and the minor axis.

    Args:
        side: side of the central box to cover, pixels, of the same parity as `size`.
        size: side of the image, pixels.
        pixel: side of a pixel, arcsec.
        position_angle: orientation of the major axis, degrees.

    Returns:
        Two float32 maps of shape (side, side), arcsec.
    """
    start = (size - side) // 2
    offset = ((np.arange(start, start + side) - (size - 1) / 2) * pixel).astype(np.float32)
    angle = np.radians(position_angle)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    along = cos * offset[None, :] + sin * offset[:, None]
    across = -sin * offset[None, :] + cos * offset[:, None]
    return along, across


def _sersic(radius: Map, effective_radius: float, index: float, pixel: float) -> Map:
    """Sersic surface brightness, 1 at the effective radius; float32, shape of `radius`."""
    b = 2.0 * index - 1.0 / 3.0 + 0.009876 / index
    # The cusp of a high index is softened by a third of a pixel, which a pixel would average.
    scaled = np.hypot(radius, np.float32(pixel / 3)) / np.float32(effective_radius)
    return np.exp(np.float32(-b) * (scaled ** np.float32(1.0 / index) - np.float32(1.0)))


def _add_disk_galaxy(flux: Map, galaxy: Galaxy, pixel: float, rng: np.random.Generator) -> None:
    """Adds bulge, exponential disk, spiral arms, ring and clumps to `flux` (3, size, size)."""
    size = flux.shape[1]
    # Beyond 7 scale lengths the disk is far below the noise, so only the box within is drawn.
    side = min(size, 2 * int(7 * galaxy.scale_length / pixel) + size % 2)
    box = slice((size - side) // 2, (size - side) // 2 + side)
    x, y = _rotated_grid(side, size, pixel, galaxy.position_angle)
    h = np.float32(galaxy.scale_length)
    u, v = x / h, y / (h * np.float32(galaxy.axis_ratio))  # face-on plane, in scale lengths
    r = np.hypot(u, v) + np.float32(1e-3)
    disk = np.exp(np.float32(1.678) - r)  # 1 at the effective radius
    azimuth = np.arctan2(v, u)

    # Logarithmic spiral: the arm's azimuth grows with the logarithm of the radius.
    winds = np.log(r) * np.float32(galaxy.winding / np.tan(np.radians(galaxy.pitch_angle)))
    wobble = np.float32(0.35) * np.cos(
        np.float32(rng.integers(1, 4)) * azimuth + np.float32(2.5) * r + np.float32(rng.uniform(0, 6))
    )
    phase = azimuth - np.float32(np.radians(galaxy.arm_phase))
    crest = np.cos(np.float32(galaxy.arm_number) * (phase - winds) + wobble)
    # Arms start outside the bulge and fade at the edge of the disk.
    extent = expit((r - np.float32(0.8)) * np.float32(6.0))
    extent *= expit((np.float32(4.0) - r) * np.float32(2.5))
    contrast = np.float32(galaxy.arm_contrast) * extent
    arms = contrast * np.exp(np.float32(2.2) * (crest - np.float32(1.0))) * disk

    ring_offset = (r - np.float32(galaxy.ring_radius)) / np.float32(galaxy.ring_width)
    ring_profile = np.exp(np.float32(-0.5) * ring_offset * ring_offset)
    ring = np.float32(1.6 * galaxy.ring_strength) * ring_profile * disk
    # A ring sweeps up the gas inside it and leaves a gap there.
    gap_offset = (r - np.float32(0.62 * galaxy.ring_radius)) / np.float32(0.35)
    gap = np.exp(np.float32(-0.5) * gap_offset * gap_offset)
    between = disk * (1.0 - np.float32(0.6) * contrast)
    between *= 1.0 - np.float32(0.5 * galaxy.ring_strength) * gap

    # The bulge is rounder than the tilted disk; its flux follows from the bulge fraction.
    bulge_radius = galaxy.effective_radius * (0.12 + 0.3 * galaxy.bulge_fraction)
    bulge_axis_ratio = max(galaxy.axis_ratio, 0.65)
    bulge = _sersic(np.hypot(x, y / np.float32(bulge_axis_ratio)), bulge_radius, galaxy.sersic_index, pixel)
    bulge *= np.float32(disk.sum() / bulge.sum() * galaxy.bulge_fraction / (1.0 - galaxy.bulge_fraction))

    young = np.float32(2.2) * arms + ring
    if galaxy.inclination > 78.0:
        # Dust in the midplane of an edge-on disk shows as a dark lane.
        lane = y / np.float32(0.06 * galaxy.effective_radius)
        young *= 0.3
        between *= 1.0 - np.float32(0.45) * np.exp(np.float32(-0.5) * lane * lane)

    snr = np.float32(galaxy.signal_to_noise)
    old_colour, disk_colour = _colour(1.0), _colour(galaxy.colour)
    young_colour = YOUNG + np.float32(0.5 * galaxy.colour) * (MIXED - YOUNG)
    for channel in range(3):
        flux[channel, box, box] += snr * (
            old_colour[channel] * bulge + disk_colour[channel] * between + young_colour[channel] * young
        )
    _add_clumps(flux, box.start, young, snr, rng)


def _add_clumps(flux: Map, start: int, young: Map, snr: np.float32, rng: np.random.Generator) -> None:
    """Adds star-forming clumps to `flux` (3, size, size) where young stars are, `young` (n, n)."""
    size, side = flux.shape[1], young.shape[0]
    tries = rng.integers(0, side, size=(60, 2))
    chance = rng.random(60)
    scale = size / REFERENCE_SIZE
    for (row, column), luck in zip(tries, chance, strict=True):
        strength = young[row, column]
        if luck < strength:
            colour = (YOUNG if luck < 0.6 * strength else HII) * snr * np.float32(strength)
            _add_blob(flux, start + row, start + column, 2.2 * scale, 0.9 * colour)


def _add_blob(
    flux: Map,
    row: float,
    column: float,
    sigma: float,
    peak: NDArray[np.float32],
    axis_ratio: float = 1.0,
    angle: float = 0.0,
) -> None:
    """Adds an elliptical Gaussian with a faint exponential halo, in place.

    Args:
        flux: image, float32, shape (3, size, size).
        row, column: centre, pixels.
        sigma: width along the major axis, pixels.
        peak: peak flux per channel, shape (3,).
        axis_ratio: minor over major axis.
        angle: orientation, radians.
    """
    size, reach = flux.shape[1], int(np.ceil(6 * sigma))
    rows = np.arange(max(0, int(row) - reach), min(size, int(row) + reach + 1))
    columns = np.arange(max(0, int(column) - reach), min(size, int(column) + reach + 1))
    if not len(rows) or not len(columns):
        return
    dy, dx = (rows - row)[:, None] / sigma, (columns - column)[None, :] / sigma
    along = np.cos(angle) * dx + np.sin(angle) * dy
    across = (np.cos(angle) * dy - np.sin(angle) * dx) / axis_ratio
    squared = along**2 + across**2
    blob = np.exp(-0.5 * squared) + 0.03 * np.exp(-np.sqrt(squared))
    view = flux[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    view += peak[:, None, None] * blob.astype(np.float32)


def _add_neighbours(flux: Map, galaxy: Galaxy, pixel: float, rng: np.random.Generator) -> None:
    """Adds faint background galaxies and foreground stars to `flux` (3, size, size), in place."""
    size = flux.shape[1]
    scale = size / REFERENCE_SIZE
    for _ in range(int(rng.poisson(16))):
        row, column = rng.uniform(0, size, size=2)
        is_star = rng.random() < 0.35
        # Counts rise steeply towards faint fluxes.
        peak = min(3.0 * float(rng.pareto(0.8)) + 3.0, 900.0 if is_star else 40.0)
        warmth = float(rng.uniform(-1.8, 2.4))
        sigma = rng.uniform(1.2, 3.5) * scale
        axis_ratio, angle = rng.uniform(0.4, 1.0), rng.uniform(0, np.pi)
        # Nothing bright falls onto the galaxy itself, which would be a merger.
        if np.hypot(row - size / 2, column - size / 2) < 0.16 * size:
            peak = min(peak, 6.0)
        colour = np.clip(_colour(warmth), 0.4, 1.6).astype(np.float32)
        if is_star:
            sigma, axis_ratio = 0.5 * galaxy.seeing * FWHM_TO_SIGMA / pixel, 1.0
            peak *= 3.0
        _add_blob(flux, row, column, sigma, np.float32(peak) * colour, axis_ratio, angle)


def _stretch(flux: Map, sky_level: float) -> NDArray[np.uint8]:
    """Arcsinh stretch that keeps colours (Lupton et al. 2004).

    Args:
        flux: image in units of sky noise, float32, shape (3, size, size).
        sky_level: brightness of the empty sky, 0 to 1.

    Returns:
        RGB image, uint8, shape (size, size, 3).
    """
    intensity = flux.mean(axis=0) / np.float32(SOFTENING)
    # arcsinh(x)/x tends to 1, so the offset only avoids 0/0.
    intensity += np.float32(1e-6)
    gain = np.arcsinh(intensity) / intensity
    gain *= np.float32(1.0 / (SOFTENING * np.arcsinh(WHITE / SOFTENING)))
    image = flux * gain + np.float32(sky_level)
    # A pixel brighter than white keeps its hue: all its channels are dimmed together.
    image /= np.maximum(image.max(axis=0), np.float32(1.0))
    np.clip(image, 0.0, 1.0, out=image)
    return np.ascontiguousarray((image * np.float32(255.0)).astype(np.uint8).transpose(1, 2, 0))

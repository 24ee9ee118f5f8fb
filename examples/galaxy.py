"""The parameters that describe one simulated galaxy, and the population they are drawn from.

Angles are in degrees, lengths in arcsec on the sky. A cutout spans `FIELD_OF_VIEW` arcsec whatever
its number of pixels; at 424 pixels that is 0.262 arcsec a pixel, the scale of the DECaLS survey.
"""

from dataclasses import dataclass

import numpy as np

FIELD_OF_VIEW = 111.1
"""Side of a cutout, arcsec."""

REFERENCE_SIZE = 424
"""Side of a Galaxy Zoo cutout, pixels; noise is quoted per pixel of this size."""

OFFSET_SCATTER = 0.3
"""Standard deviation of the volunteers' leaning from galaxy to galaxy, in logits."""

ELLIPTICAL = "elliptical"
DISK = "disk"


@dataclass(frozen=True)
class Galaxy:
    """Shape, colour and observing conditions of one simulated galaxy.

    Fields that only a disk has (`inclination` to `ring_width`) are 0 for an elliptical.
    """

    morphology: str
    """`elliptical` or `disk`: the true class."""
    ra: float
    """Right ascension, degrees, 0 to 360."""
    dec: float
    """Declination, degrees."""
    position_angle: float
    """Orientation of the major axis, degrees, 0 to 180."""
    axis_ratio: float
    """Apparent minor over major axis, 0 to 1."""
    effective_radius: float
    """Half-light radius of the elliptical or of the exponential disk, arcsec."""
    sersic_index: float
    """Sersic index of the elliptical, or of the disk's bulge."""
    bulge_fraction: float
    """Bulge-to-total light; 1 for an elliptical."""
    inclination: float
    """Disk's tilt, degrees: 0 is face-on, 90 edge-on."""
    arm_contrast: float
    """Strength of the spiral arms against the disk between them, 0 to 1."""
    arm_number: int
    """Number of spiral arms."""
    pitch_angle: float
    """Angle between an arm and the circle through it, degrees."""
    winding: int
    """Sense of rotation of the arms, +1 or -1."""
    arm_phase: float
    """Azimuth of the first arm at one scale length, degrees."""
    ring_strength: float
    """Strength of the ring against the disk beneath it, 0 to 1."""
    ring_radius: float
    """Radius of the ring, in disk scale lengths."""
    ring_width: float
    """Gaussian width of the ring, in disk scale lengths."""
    colour: float
    """0 for a blue (star-forming) galaxy, 1 for a red one."""
    signal_to_noise: float
    """Mean signal over sky noise, per pixel of a 424-pixel cutout, at the effective radius."""
    seeing: float
    """Full width at half maximum of the point spread function, arcsec."""
    sky_level: float
    """Brightness of the empty sky in the colour image, 0 to 1."""
    featured_offset: float
    """Logit by which this galaxy's volunteers lean to featured, whatever its shape."""
    arms_offset: float
    """The same for spiral arms."""
    ring_offset: float
    """The same for a ring."""

    @property
    def scale_length(self) -> float:
        """Exponential scale length of the disk, arcsec (half the light lies within 1.678 of it)."""
        return self.effective_radius / 1.678


def draw_galaxy(rng: np.random.Generator) -> Galaxy:
    """One galaxy of the population: 45% ellipticals, 55% disks seen from random directions."""
    is_disk = rng.random() < 0.55
    # Uniform on the sphere, within the declinations that DECaLS covers.
    ra = rng.uniform(0.0, 360.0)
    dec = np.degrees(np.arcsin(rng.uniform(np.sin(np.radians(-18.0)), np.sin(np.radians(32.0)))))
    position_angle = rng.uniform(0.0, 180.0)
    signal_to_noise = np.exp(rng.uniform(np.log(2.2), np.log(18.0)))
    seeing = float(np.clip(rng.lognormal(np.log(1.3), 0.15), 0.9, 2.0))
    sky_level = rng.uniform(0.015, 0.09)

    # An ordinary disk keeps a little of each feature, so that the truth has no gap at 0.
    arm_contrast = rng.uniform(0.25, 1.0) if rng.random() < 0.7 else rng.uniform(0.0, 0.15)
    ring_strength = rng.uniform(0.25, 1.0) if rng.random() < 0.45 else rng.uniform(0.0, 0.08)
    cos_inclination = rng.uniform(0.0, 1.0)
    thickness = rng.uniform(0.12, 0.22)
    disk_radius = rng.uniform(7.5, 15.0)
    disk_colour = float(np.clip(rng.normal(0.35, 0.2), 0.0, 1.0))
    bulge_fraction = float(np.clip(rng.beta(1.5, 5.0), 0.02, 0.6))
    bulge_index = rng.uniform(1.5, 4.0)
    arm_number = int(rng.choice([2, 3, 4], p=[0.65, 0.2, 0.15]))
    pitch_angle = rng.uniform(12.0, 28.0)
    winding = int(rng.choice([-1, 1]))
    arm_phase = rng.uniform(0.0, 360.0)
    ring_radius = rng.uniform(1.5, 2.6)
    ring_width = rng.uniform(0.15, 0.28)

    elliptical_radius = rng.uniform(4.0, 10.0)
    elliptical_index = float(np.clip(rng.normal(4.0, 0.8), 2.2, 6.0))
    elliptical_axis_ratio = 1.0 - 0.6 * rng.beta(1.4, 2.2)
    elliptical_colour = float(np.clip(rng.normal(0.85, 0.15), 0.3, 1.0))

    # No image shows these offsets: they are what even a perfect model cannot predict.
    featured_offset, arms_offset, ring_offset = rng.normal(0.0, OFFSET_SCATTER, size=3).tolist()

    # Every number above is drawn for either class, so that the class does not shift the stream.
    return Galaxy(
        morphology=DISK if is_disk else ELLIPTICAL,
        ra=ra,
        dec=float(dec),
        position_angle=position_angle,
        axis_ratio=(
            float(np.hypot(cos_inclination, thickness * np.sqrt(1.0 - cos_inclination**2)))
            if is_disk
            else elliptical_axis_ratio
        ),
        effective_radius=disk_radius if is_disk else elliptical_radius,
        sersic_index=bulge_index if is_disk else elliptical_index,
        bulge_fraction=bulge_fraction if is_disk else 1.0,
        inclination=float(np.degrees(np.arccos(cos_inclination))) if is_disk else 0.0,
        arm_contrast=arm_contrast if is_disk else 0.0,
        arm_number=arm_number if is_disk else 0,
        pitch_angle=pitch_angle if is_disk else 0.0,
        winding=winding if is_disk else 0,
        arm_phase=arm_phase if is_disk else 0.0,
        ring_strength=ring_strength if is_disk else 0.0,
        ring_radius=ring_radius if is_disk else 0.0,
        ring_width=ring_width if is_disk else 0.0,
        colour=disk_colour if is_disk else elliptical_colour,
        signal_to_noise=float(signal_to_noise),
        seeing=seeing,
        sky_level=sky_level,
        featured_offset=featured_offset,
        arms_offset=arms_offset,
        ring_offset=ring_offset,
    )

"""Random numbers as a function of (seed, galaxy, member, pass), independent of the order of the work.

Every draw starts from a 64-bit key. Keys are mixed by the finaliser of SplitMix64 (Steele, Lea and Flood,
OOPSLA 2014), in NumPy for the keys and in torch for the dropout masks, which are the same on every device.
"""

import hashlib

import numpy as np
import torch

_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB


def text_key(text: str) -> int:
    """A 64-bit key of a text (a galaxy's id, a member's name with its purpose)."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def galaxy_keys(ids: list[str]) -> np.ndarray:
    """Keys of galaxy ids: uint64, shape (galaxy,)."""
    return np.array([text_key(galaxy) for galaxy in ids], np.uint64)


def draw_keys(galaxies: np.ndarray, *, seed: int, member: str, purpose: str, passes: range) -> np.ndarray:
    """One key for every galaxy and pass.

    Args:
        galaxies: keys of the galaxies, uint64, shape (galaxy,).
        seed: the run's seed.
        member: the member's name.
        purpose: `dropout` or `view`, which so get different numbers.
        passes: numbers of the passes.

    Returns:
        uint64, shape (galaxy, pass).
    """
    base = np.uint64(text_key(f"{seed}\0{member}\0{purpose}"))
    numbers = np.array(passes, np.uint64) + np.uint64(1)
    with np.errstate(over="ignore"):
        return _mix(_mix(galaxies ^ base)[:, None] + numbers[None, :] * np.uint64(_GOLDEN))


def _mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(_MIX_1)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(_MIX_2)
    return x ^ (x >> np.uint64(31))


def keep_masks(keys: np.ndarray, features: int, rate: float, device: torch.device) -> torch.Tensor:
    """Dropout masks, scaled as in torch: 0 with probability `rate`, else 1 / (1 - rate).

    Args:
        keys: uint64, shape (galaxy, pass).
        features: number of features.
        rate: probability of a zero.
        device: where the masks are made.

    Returns:
        float32, shape (galaxy, pass, feature).
    """
    if rate >= 1:
        return torch.zeros(*keys.shape, features, device=device)
    starts = torch.from_numpy(keys.view(np.int64))
    if torch.device(device).type == "cuda":  # pinned memory is copied without waiting for the device
        starts = starts.pin_memory().to(device, non_blocking=True)
    steps = torch.arange(1, features + 1, device=device, dtype=torch.int64) * _signed(_GOLDEN)
    x = _torch_mix(starts[..., None] + steps)
    # The top 24 bits are a uniform number in [0, 1) that float32 holds exactly.
    uniform = _shift(x, 40).to(torch.float32) * 2.0**-24
    return (uniform >= rate).to(torch.float32) / (1 - rate)


def _torch_mix(x: torch.Tensor) -> torch.Tensor:
    # torch has no shifts of uint64. int64 overflows in the same way, and `_shift` clears the sign bits.
    x = (x ^ _shift(x, 30)) * _signed(_MIX_1)
    x = (x ^ _shift(x, 27)) * _signed(_MIX_2)
    return x ^ _shift(x, 31)


def _shift(x: torch.Tensor, bits: int) -> torch.Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(x: int) -> int:
    return x - (1 << 64) if x >= 1 << 63 else x

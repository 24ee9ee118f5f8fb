"""Draws are reproducible, independent of each other, and of the distribution that they should have."""

import numpy as np
import pytest
import scipy.stats
import torch

from beam_zoo.inference import randomness


def keys(ids, **changes):
    settings = {"seed": 0, "member": "m", "purpose": "dropout", "passes": range(5)} | changes
    return randomness.draw_keys(randomness.galaxy_keys(ids), **settings)


def test_keys_are_a_function_of_galaxy_seed_member_purpose_and_pass():
    ids = [f"galaxy {n}" for n in range(200)]
    whole = keys(ids)
    np.testing.assert_array_equal(keys(ids[::-1])[::-1], whole)
    np.testing.assert_array_equal(keys(ids[7:8])[0], whole[7])
    np.testing.assert_array_equal(keys(ids, passes=range(2, 4)), whole[:, 2:4])
    others = [keys(ids, **c) for c in ({"seed": 1}, {"member": "n"}, {"purpose": "view"})]
    everything = np.concatenate([whole, *others]).ravel()
    assert len(np.unique(everything)) == everything.size


def test_splitmix64_by_its_published_values():
    """The first outputs of SplitMix64 seeded with 1234567, as its reference implementation prints them."""
    state, out = np.array([1234567], np.uint64), []
    with np.errstate(over="ignore"):
        for step in range(1, 6):
            out.append(int(randomness._mix(state + np.uint64(step) * np.uint64(randomness._GOLDEN))[0]))
    assert out == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    starts = torch.from_numpy(state.view(np.int64))
    steps = torch.arange(1, 6) * randomness._signed(randomness._GOLDEN)
    assert randomness._torch_mix(starts + steps).numpy().view(np.uint64).tolist() == out


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.2, 0.5, 0.9, 1.0])
def test_masks_are_those_of_dropout(rate):
    """Zeros at the given rate, independent between galaxies, passes and features; scaled as in torch."""
    masks = randomness.keep_masks(keys([str(n) for n in range(400)]), 256, rate, torch.device("cpu"))
    assert masks.shape == (400, 5, 256) and masks.dtype == torch.float32
    kept = (masks > 0).numpy()
    assert set(masks[masks > 0].unique().tolist()) <= {np.float32(1 / (1 - rate)) if rate < 1 else 0.0}
    count = kept.size
    assert scipy.stats.binomtest(int((~kept).sum()), count, rate).pvalue > 1e-4
    if 0 < rate < 1:
        flat = kept.reshape(2000, 256).astype(float)
        rows, columns = np.corrcoef(flat[:200]), np.corrcoef(flat.T)
        for matrix, length in ((rows, 256), (columns, 2000)):
            off = matrix[~np.eye(len(matrix), dtype=bool)]
            assert abs(off.mean()) < 0.01
            assert off.std() == pytest.approx(1 / np.sqrt(length), rel=0.1)


def test_a_mask_does_not_depend_on_what_else_is_drawn():
    many = keys([str(n) for n in range(10)])
    together = randomness.keep_masks(many, 96, 0.3, torch.device("cpu"))
    alone = randomness.keep_masks(many[4:5, 2:3], 96, 0.3, torch.device("cpu"))
    assert torch.equal(alone[0, 0], together[4, 2])

"""A latent space as arrays: straight lines and great circles, one variable at a time, what each dimension carries."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from tests import toys
from vaeflow.evaluation import elbo, latent_paths, latent_space
from vaeflow.evaluation.latent_space import Space

T = np.linspace(0, 1, 7)
KEY = jax.random.key(0)


def fabricated(z: np.ndarray, **changes: Any) -> Space:
    """The space of draws z [M, D] whose prior is the same."""
    size = z.shape[1]
    fields = dict(z=z, prior=z, normal=None, variance=z.var(0), kl=1.0, kl_per_dim=None, kl_per_level=None, sizes=(size,), width=0)
    return Space(**(fields | dict(shape=(size,)) | changes))


def one_hots(m: int, variables: int, categories: int) -> np.ndarray:
    return np.eye(categories)[np.random.default_rng(0).integers(categories, size=(m, variables))].reshape(m, -1)


def test_slerp_is_the_great_circle():
    """In the plane of a and b, at the angle t w from a, with the norm between theirs; from a to b."""
    a, b = np.random.default_rng(1).normal(size=(2, 5))
    first = a / np.linalg.norm(a)
    second = b - first * (first @ b)
    second /= np.linalg.norm(second)
    angle = T * np.arctan2(second @ b, first @ b)
    norm = np.linalg.norm(a) + T * (np.linalg.norm(b) - np.linalg.norm(a))
    expected = norm[:, None] * (np.cos(angle)[:, None] * first + np.sin(angle)[:, None] * second)
    np.testing.assert_allclose(latent_paths.slerp(a, b, T), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(latent_paths.slerp(a, b, T)[[0, -1]], [a, b], rtol=1e-12)
    np.testing.assert_allclose(latent_paths.lerp(a, b, T)[[0, 3, -1]], [a, (a + b) / 2, b], rtol=1e-12)
    assert (np.linalg.norm(latent_paths.lerp(a, b, T), axis=1)[1:-1] < norm[1:-1]).all()


@pytest.mark.parametrize("b", [2.0, -2.0, 0.0, 1 + 1e-9])
def test_slerp_between_parallel_vectors_is_the_straight_line(b):
    a = np.random.default_rng(2).normal(size=4)
    np.testing.assert_array_equal(latent_paths.slerp(a, b * a, T), latent_paths.lerp(a, b * a, T))


def test_slerp_of_a_small_angle_is_exact():
    """1e-4: the arc cosine of the vectors' product in float32 would give 0 or 3.5e-4."""
    middle = latent_paths.slerp(np.float32([1, 0]), np.float32([1, 1e-4]), np.array([0.5]))[0]
    assert middle[1] / middle[0] == pytest.approx(0.5e-4, rel=1e-6)


def test_a_sweep_holds_the_other_coordinates():
    space = fabricated(np.random.default_rng(0).normal(2, 3, size=(500, 4)))
    z, deviations = space.z[7], np.linspace(-3, 3, 13)
    found = latent_paths.sweep(space, z, np.array([2, 0]), deviations)
    for row, d in enumerate((2, 0)):
        np.testing.assert_array_equal(np.delete(found.z[row], d, -1), np.broadcast_to(np.delete(z, d), (13, 3)))
        np.testing.assert_allclose(found.z[row, :, d], space.z[:, d].mean() + deviations * space.z[:, d].std())
        assert found.own[row] == np.abs(found.z[row, :, d] - z[d]).argmin()
    assert found.names[:2] == ["-3", "-2.5"]
    exact = space._replace(normal=(np.ones(4), np.full(4, 2.0)))
    np.testing.assert_allclose(latent_paths.sweep(exact, z, np.array([1]), deviations).z[0, [0, -1], 1], [-5, 7])


@pytest.mark.parametrize("kind", ["bits", "one-hots", "codes"])
def test_a_discrete_variable_is_set_to_each_category(kind):
    random = np.random.default_rng(0)
    bits, codes = random.integers(2, size=(300, 6)).astype(float), random.geometric(0.2, (300, 5))
    z, width, count = {"bits": (bits, 1, 2), "one-hots": (one_hots(300, 4, 3), 3, 3), "codes": (codes, 1, 13)}[kind]
    assert latent_space._width(z) == width
    space = fabricated(z, width=width)
    found = latent_paths.sweep(space, z[0], np.array([1, 3]), np.zeros(13))
    same = found.z.reshape(2, len(found.names), -1, width)
    for row, v in enumerate((1, 3)):
        held = np.delete(z[0].reshape(-1, width), v, 0)
        np.testing.assert_array_equal(np.delete(same[row], v, 1), np.broadcast_to(held, (len(found.names), *held.shape)))
        flipped = latent_space.categories(space, found.z[row])[:, v]
        assert list(map(str, flipped)) == found.names
        assert found.own[row] == (list(flipped).index(c) if (c := latent_space.categories(space, z[:1])[0, v]) in flipped else -1)
    assert len(found.names) == count and found.z.dtype == z.dtype


def test_the_space_of_a_linear_gaussian_vae():
    """KL and variance by their formulas; the second unit carries nothing; the prior is N(0, I)."""
    model, split = toys.linear_gaussian(), toys.split(40)
    space = latent_space.space(model, {}, split, KEY, batch=16)
    q = model.latent.posterior({}, split.x)
    mean, std = np.asarray(q.mean()), np.asarray(q.stddev())
    np.testing.assert_allclose(space.kl_per_dim, (0.5 * (mean**2 + std**2 - 1) - np.log(std)).mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(space.variance, mean.var(0, ddof=1), rtol=1e-5, atol=1e-12)
    assert space.z.shape == space.prior.shape == (40 * 125, 2) and space.width == 0 and space.sizes == space.shape == (2,)
    np.testing.assert_array_equal(space.normal, [[0, 0], [1, 1]])
    np.testing.assert_allclose(space.z.var(0), mean.var(0) + (std**2).mean(0), rtol=0.1)
    assert latent_space.most_active(space, 5).tolist() == [0, 1] and space.variance[1] < elbo.ACTIVE < space.variance[0]
    gap = latent_space.mismatch(space.prior, space.z)
    assert gap[1] < 0.06 < gap[0]
    np.testing.assert_allclose(latent_space.mismatch(space.z, space.z + [0.5, -2]), [0.5, 2], rtol=1e-5)
    one, other = (
        np.array([[0, 0], [0, 5], [1, 5], [1, 5]]),
        np.array([[0, 5], [7, 5], [7, 5], [7, 0]]),
    )
    np.testing.assert_allclose(latent_space.mismatch(one, other, discrete=True), [0.75, 0])


def test_levels_have_names_and_rows_of_their_own():
    z = np.random.default_rng(0).normal(size=(200, 5)) * [1, 3, 1, 5, 2]
    space = fabricated(z, sizes=(2, 3))
    assert latent_space.most_active(space, 4).tolist() == [1, 0, 3, 4]
    assert latent_space.names(space, np.array([1, 3])) == ["$z_{1,2}$", "$z_{2,2}$"]
    assert latent_space.names(space._replace(sizes=(5,)), np.array([1, 3])) == ["$z_{2}$", "$z_{4}$"]
    codes = fabricated(np.stack([np.zeros(8), np.arange(8)], 1).astype(int), variance=None, width=1)
    np.testing.assert_allclose(latent_space.activity(codes)[0], [0, np.log(8)])

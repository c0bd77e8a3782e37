"""Distances between samples and data: closed forms, float64 references, standard errors against repetition, and what each one detects."""

from __future__ import annotations

import math

import jax
import numpy as np
import pytest

from vaeflow.errors import UserError
from vaeflow.evaluation import kernel_statistics, neighbours, two_sample
from vaeflow.evaluation.kernel_statistics import energy_distance, mmd2
from vaeflow.evaluation.neighbours import memorisation, precision_recall
from vaeflow.evaluation.two_sample import compare, frechet_extrapolated, sliced_wasserstein

KEY = jax.random.key(0)
STATISTICS = {
    "energy": energy_distance,
    "mmd2": lambda a, b: mmd2(a, b, 2.0),
    "sliced": lambda a, b: sliced_wasserstein(KEY, a, b, 16)[:2],
}


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def energy_of_normals(mean: float, std: float) -> float:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'| of X ~ N(0, 1), Y ~ N(mean, std^2)."""
    s = math.sqrt(1 + std**2)
    cross = s * math.sqrt(2 / math.pi) * math.exp(-((mean / s) ** 2) / 2) + mean * math.erf(mean / s / math.sqrt(2))
    return 2 * cross - 2 * (1 + std) / math.sqrt(math.pi)


def plain_energy(a: np.ndarray, b: np.ndarray) -> float:
    """The definition, from differences in float64."""

    def total(u, v):
        return sum(np.sqrt(((x - v) ** 2).sum(1)).sum() for x in u)

    n, m = len(a), len(b)
    return 2 * total(a, b) / (n * m) - total(a, a) / (n * (n - 1)) - total(b, b) / (m * (m - 1))


def repeat(statistic: str, shift: float, dim: int, n: int, m: int, times: int, seed: int = 0) -> np.ndarray:
    """(value, standard error) [2, times] of normal samples; one coordinate of the first set is shifted."""
    rng, of = np.random.default_rng(seed), STATISTICS[statistic]
    return np.transpose([of(rng.normal(size=(n, dim)) + shift * np.eye(dim)[0], rng.normal(size=(m, dim))) for _ in range(times)])


def test_the_energy_distance_of_normals(rng):
    mean, std = 0.7, 1.5
    value, se = energy_distance(rng.normal(size=(3000, 1)), mean + std * rng.normal(size=(2000, 1)))
    truth = energy_of_normals(mean, std)
    assert abs(value - truth) < 3 * se < 0.3 * truth


@pytest.mark.parametrize(("dim", "offset"), [(2, 0.0), (2, 1e5), (40, 0.0), (40, 1e5)])
def test_float32_distances_keep_their_digits(rng, dim, offset):
    """Also far from the origin, and with exact duplicates within and between the sets."""
    a, b = offset + rng.normal(size=(90, dim)), offset + 0.1 + rng.normal(size=(70, dim))
    a[:20], b[:20] = a[20:40], a[20:40]
    assert energy_distance(a, b).value == pytest.approx(plain_energy(a, b), rel=1e-5, abs=1e-6)
    x, y = neighbours.centred(a, b)
    square = np.asarray(neighbours.squared_distances(x, y))
    assert (square[20:40].diagonal() == 0).all()
    np.testing.assert_allclose(square, ((a[:, None] - b) ** 2).sum(-1), rtol=1e-5, atol=1e-9)


def test_close_pairs_in_many_dimensions(rng):
    """A matrix product resolves no squared distance below its rounding error; the nearest distances are exact."""
    b = 3 + rng.normal(size=(50, 100))
    a = b + 1e-4 * rng.normal(size=b.shape)
    x, y = neighbours.centred(a, b)
    distance, index = neighbours._nearest(x, y, 16)
    assert (np.asarray(index) == np.arange(50)).all()
    np.testing.assert_allclose(distance, ((a - b) ** 2).sum(1), rtol=0.02)


def plain_squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """|a_i - b_j|^2, [N, M] in float64, of examples of any shape."""
    a, b = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (a, b))
    return np.maximum((a**2).sum(-1)[:, None] + (b**2).sum(-1) - 2 * a @ b.T, 0)


def plain_mmd2(a: np.ndarray, b: np.ndarray, width: float) -> tuple[float, float]:
    """(unbiased MMD^2, its standard error) of a and b [N, *event] with the kernels of WIDTHS times `width`.

    The standard error is 2 s / sqrt(N), s the standard deviation over i of mean_j h_ij: that of a U-statistic, too large by sqrt(2) where
    the two distributions are equal.
    """
    n = len(a)

    def kernel(u, v):
        square = plain_squares(u, v)
        return np.mean([np.exp(-square / (2 * (w * width) ** 2)) for w in kernel_statistics.WIDTHS], axis=0)

    cross = kernel(a, b)
    h = kernel(a, a) + kernel(b, b) - cross - cross.T
    rows = (h.sum(1) - np.diagonal(h)) / (n - 1)
    return float(rows.mean()), float(2 * rows.std(ddof=1) / np.sqrt(n))


@pytest.mark.parametrize("width", [None, 1.3])
def test_mmd_equals_the_float64_numpy_one(rng, width):
    a, b = rng.normal(size=(300, 20)), 0.4 + rng.normal(size=(300, 20))
    truth, error = plain_mmd2(a, b, kernel_statistics.median_distance(b) if width is None else width)
    value, se = mmd2(a, b, width)
    assert value == pytest.approx(truth, rel=1e-5)
    assert se == pytest.approx(error, rel=0.1)


@pytest.mark.parametrize(("statistic", "dim", "shift"), [(s, d, x) for s in ("energy", "mmd2") for d, x in ((8, 0), (8, 0.25), (2, 1.0))])
def test_the_standard_error_is_the_spread_over_repetitions(statistic, dim, shift):
    values, errors = repeat(statistic, shift, dim, 80, 120, 150)
    assert errors.mean() == pytest.approx(values.std(ddof=1), rel=0.2)
    if shift == 0:
        assert abs(values.mean()) < 3 * values.std() / np.sqrt(150)  # unbiased
        assert (values > 2 * errors).mean() < 0.1


def test_the_standard_error_covers_the_true_energy_distance():
    values, errors = repeat("energy", 0.8, 1, 150, 100, 150)
    covered = np.abs(values - energy_of_normals(0.8, 1)) < 1.96 * errors
    assert 0.9 <= covered.mean() <= 0.99


def test_the_sliced_wasserstein_distance_of_normals(rng):
    mean, std = 0.7, 1.5
    value, se, _ = sliced_wasserstein(KEY, rng.normal(size=(3000, 1)), mean + std * rng.normal(size=(2000, 1)), 4)
    truth = math.hypot(mean, std - 1)
    assert abs(value - truth) < 3 * se < 0.15 * truth


def test_the_sliced_distance_of_a_shift_is_its_length_over_root_d(rng):
    a, shift = rng.normal(size=(50, 5)), np.array([1.0, 2, 0, 0, 2])
    found = np.array([sliced_wasserstein(jax.random.fold_in(KEY, i), a, a + shift, 64) for i in range(60)])
    assert np.sqrt((found[:, 0] ** 2).mean()) == pytest.approx(3 / math.sqrt(5), rel=0.02)
    assert found[:, 2].mean() == pytest.approx(found[:, 0].std(ddof=1), rel=0.2)
    assert sliced_wasserstein(KEY, a, a, 4) == (0, 0, 0)


def test_the_sliced_distance_of_unequal_sizes_is_exact(rng):
    a, b = rng.normal(size=(12, 1)), 1 + rng.normal(size=(18, 1))
    truth = np.sqrt(((np.sort(np.repeat(a, 3)) - np.sort(np.repeat(b, 2))) ** 2).mean())
    assert sliced_wasserstein(KEY, a, b, 3).value == pytest.approx(truth, rel=1e-5)
    equal = sliced_wasserstein(KEY, np.repeat(a, 3, 0), np.repeat(b, 2, 0), 3).value
    assert equal == pytest.approx(truth, rel=1e-5)


def test_the_standard_error_of_the_sliced_distance():
    values, errors = repeat("sliced", 1.0, 3, 80, 120, 150)
    assert errors.mean() == pytest.approx(values.std(ddof=1), rel=0.2)
    values, errors = repeat("sliced", 0.0, 3, 80, 120, 150)
    assert 1 < errors.mean() / values.std(ddof=1) < 1.6  # as its docstring states


def test_the_kth_smallest_distance_counts_ties(rng):
    for x in (rng.integers(0, 4, (20, 9)).astype(np.float32), rng.random((20, 9), np.float32)):
        for k in (1, 3, 9):
            assert np.array_equal(neighbours._smallest(jax.numpy.asarray(x), k), np.sort(x, 1)[:, k - 1])


def test_neighbours_by_hand():
    a, b = (np.array(x)[:, None] for x in ([0.5, 4.5, 12, 12.5], [0, 1, 3, 8.3, 8.4, 31, 31.5]))
    found = precision_recall(a, b, k=1, chunk=3)  # radii of a: 4, 4, 0.5, 0.5; of b: 1, 1, 2, 0.1, 0.1, 0.5, 0.5
    assert found.precision == pytest.approx((1 / 2, 1 / 4))
    assert found.recall == pytest.approx((5 / 7, math.sqrt(5 / 7 * 2 / 7 / 7)))
    assert found.density.value == pytest.approx(3 / 4)
    assert found.coverage.value == pytest.approx(3 / 7)


def test_neighbours_of_equal_distributions(rng):
    """E[density] = 1 and E[coverage] of Naeem et al. (2020); the standard errors are those of new samples for the same data."""
    n, m, k = 60, 90, 3
    found = np.array([precision_recall(rng.normal(size=(n, 2)), rng.normal(size=(m, 2)), k) for _ in range(150)])[:, :, 0]
    coverage = 1 - np.prod([(m - i) / (m + n - i) for i in range(1, k + 1)])
    for values, truth in ((found[:, 2], 1.0), (found[:, 3], coverage)):
        assert abs(values.mean() - truth) < 3 * values.std() / np.sqrt(150)
    held = rng.normal(size=(m, 2))
    found = np.array([precision_recall(rng.normal(size=(n, 2)), held, k) for _ in range(150)])
    for part in (0, 2):  # precision, density
        assert found[:, part, 1].mean() == pytest.approx(found[:, part, 0].std(ddof=1), rel=0.2)
    a = rng.normal(size=(n, 2))
    found = np.array([precision_recall(a, rng.normal(size=(m, 2)), k) for _ in range(150)])
    assert found[:, 1, 1].mean() == pytest.approx(found[:, 1, 0].std(ddof=1), rel=0.2)  # recall


def modes(rng: np.random.Generator, n: int, which: int = 2) -> np.ndarray:
    """Two far modes in 20 dimensions, or the first of them."""
    return rng.normal(size=(n, 20)) + 10 * (np.arange(n) % which)[:, None]


def test_neighbours_see_dropped_modes_and_noise(rng):
    held = modes(rng, 300)
    good, dropped = precision_recall(modes(rng, 300), held), precision_recall(modes(rng, 300, 1), held)
    noisy = precision_recall(modes(rng, 300) + rng.normal(size=(300, 20)), held)
    assert dropped.recall.value < 0.6 * good.recall.value and dropped.coverage.value < 0.6 * good.coverage.value
    assert dropped.precision.value > 0.9 * good.precision.value
    assert noisy.precision.value < 0.6 * good.precision.value and noisy.density.value < 0.6 * good.density.value
    assert noisy.recall.value > 0.9 * good.recall.value


def test_memorisation_is_one_half_without_copies_however_poor_the_samples():
    """100 samples over 60 references: many samples share their nearest reference, and a binomial error would be too small."""
    rng, found = np.random.default_rng(1), []
    for _ in range(150):
        train, held, a = rng.normal(size=(40, 2)), rng.normal(size=(30, 2)), 0.5 + 2 * rng.normal(size=(100, 2))
        found.append(memorisation(KEY, a, train, held))
    values, errors, z = np.transpose(found)
    assert abs(values.mean() - 0.5) < 3 * values.std() / np.sqrt(150)
    assert np.sqrt((errors**2).mean()) == pytest.approx(values.std(ddof=1), rel=0.2)
    assert errors.mean() > 1.3 * 0.5 / math.sqrt(100)
    assert (np.abs(z) > 2).mean() < 0.1


def test_memorisation_sees_copies_of_training_data(rng):
    train, held, a = (rng.normal(size=(n, 30)) for n in (800, 400, 500))
    assert abs(memorisation(KEY, a, train, held).z) < 3
    a[:200] = train[:200] + 0.01 * rng.normal(size=(200, 30))
    value, _, z = memorisation(KEY, a, train, held)
    assert z > 3 and value == pytest.approx(0.5 + 0.4 * 400 / 800 / 2, abs=0.07)
    assert memorisation(KEY, a, train[:400], held).z > z
    assert memorisation(KEY, held, train, held).value == 0
    assert memorisation(KEY, a, held, held).value == 0.5  # all ties


def test_frechet_extrapolation(rng):
    dim, n, sizes = 6, 3000, range(300, 3001, 300)
    shift, scale = np.linspace(0, 0.3, dim), np.linspace(0.8, 1.2, dim)
    truth = (shift**2).sum() + ((scale - 1) ** 2).sum()
    found, plain = [], []
    for seed in range(6):
        a, b = shift + scale * rng.normal(size=(n, dim)), rng.normal(size=(n, dim))
        found.append(frechet_extrapolated(a, b, sizes, seed))
        plain.append(two_sample.frechet(a[:300], b[:300]))
    values, errors = np.transpose(found)
    assert values.mean() == pytest.approx(truth, rel=0.05) and np.mean(plain) > 1.1 * truth
    assert 0 < errors.max() < 0.1 * truth
    equal = [frechet_extrapolated(*rng.normal(size=(2, n, dim)), sizes).value for _ in range(6)]
    biased = two_sample.frechet(*rng.normal(size=(2, n, dim)))
    assert abs(np.mean(equal)) < 0.5 * biased


def test_no_result_depends_on_the_chunk(rng):
    for dim in (2, 20):
        a, b, train = (rng.normal(size=(n, dim)) for n in (53, 41, 47))
        for of in (energy_distance, lambda a, b, chunk: mmd2(a, b, 2.0, chunk)):
            np.testing.assert_allclose(of(a, b, chunk=7), of(a, b, chunk=512), rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(precision_recall(a, b, chunk=7), precision_recall(a, b, chunk=512))
        assert memorisation(KEY, a, train, b, chunk=7) == memorisation(KEY, a, train, b, chunk=512)


def test_compare_computes_everything_with_floors_and_compiles_once(rng, caplog):
    train, held = (rng.normal(size=(n, 2, 2, 1)).astype(np.float32) for n in (300, 200))
    first = compare(KEY, 1 + rng.normal(size=(250, 2, 2, 1)), train, held)
    distances = ["energy", "sliced_wasserstein", "mmd2", "frechet", "frechet_extrapolated"]
    shares = ["precision", "recall", "density", "coverage"]
    assert set(first) == {f"{name}{suffix}" for name in (*distances, *shares, "memorisation") for suffix in ("", "_floor")}
    for name in distances:
        assert first[name][0] > 3 * abs(first[f"{name}_floor"][0]), name
    for name in shares:
        assert first[name][0] < first[f"{name}_floor"][0], name
    assert "250 training examples, 200 held out" in first["energy_floor"][2]
    assert "250 samples, 200 held out" in first["energy"][2] and "k = 5" in first["recall"][2]
    assert f"{kernel_statistics.median_distance(held):.3g}" in first["mmd2"][2]

    with caplog.at_level("WARNING"), jax.log_compiles():
        again = compare(KEY, rng.normal(size=(250, 2, 2, 1)), train, held)
        assert not [r for r in caplog.records if "Finished XLA compilation" in r.getMessage()]
        jax.jit(lambda a: a + 3.25)(1.5)  # which is compiled, and logged
        assert [r for r in caplog.records if "Finished XLA compilation" in r.getMessage()]
    assert again["energy_floor"] == first["energy_floor"]  # fixed keys: the same reference examples
    assert again["energy"][0] < first["energy"][0]

    moved = compare(KEY, held, 3 + train, held, two_sample.TwoSampleSettings(names=("energy", "memorisation")))
    assert moved["energy_floor"][0] > 1 > moved["energy"][0]  # the floor is of training data
    assert moved["memorisation_floor"][0] == 0 and "100 held-out examples" in moved["memorisation_floor"][2]
    few = two_sample.TwoSampleSettings(examples=100, names=("energy",), floor=False)
    assert set(found := compare(KEY, held, train, held, few)) == {"energy"} and "100 samples, 100 held out" in found["energy"][2]


def test_mistakes_are_named(rng):
    a, b = rng.normal(size=(20, 2)), rng.normal(size=(20, 3))
    for wrong, word in (
        (lambda: energy_distance(a, b), "event shape"),
        (lambda: energy_distance(a[:3], a), "at least 4"),
        (lambda: mmd2(a, a, 0.0), "width"),
        (lambda: precision_recall(a, a, 20), "k=20"),
        (lambda: sliced_wasserstein(KEY, a, a, 1), "projections"),
        (lambda: frechet_extrapolated(a, a, [5, 10]), "sizes"),
        (lambda: frechet_extrapolated(a, a, [5, 10, 21]), "sizes"),
        (lambda: compare(KEY, a, a, a, two_sample.TwoSampleSettings(names=("enrgy",))), "energy"),
    ):
        with pytest.raises(UserError, match=word):
            wrong()

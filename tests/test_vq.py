"""The VQ-VAE: its codebook's moving averages, the straight-through gradient, the prior over codes, and the bound that they make up."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.model_cases import KEY, config, quick
from vaeflow.errors import UserError
from vaeflow.evaluation import elbo
from vaeflow.model import split_params
from vaeflow.models import MODELS, build_model
from vaeflow.models.parts import codebook
from vaeflow.models.parts.code_prior import code_prior, draw
from vaeflow.nets.causal import causal_transformer

VQ = MODELS["vq"].examples[0]
LINEAR = dict(kind="mlp", hidden=(), activation="relu", dtype="float32")
SYMBOLS, LENGTH, MANY = 3, 4, 10_000


def make(**values: Any) -> Any:
    c = config("vq", VQ | values).unlock()
    c.parts.linear = LINEAR
    c.parts.down = dict(kind="downsample", channels=(4,), kernel=3, stride=2, blocks=0, activation="relu", dtype="float32")
    return build_model(c)


def test_moving_averages_are_those_of_the_paper():
    e = jnp.array([[1.0, 0.0], [3.0, 0.0], [0.0, 4.0], [1.0, 1.0]])
    old = {"counts": jnp.array([0.5, 0.5, 0.0]), "sums": jnp.array([[0.5, 0.0], [0.0, 1.0], [0.0, 0.0]])}
    np.testing.assert_allclose(codebook.vectors(old, 1e-9)[:2], [[1, 0], [0, 2]], rtol=1e-6)
    codes, gap = codebook.nearest(e, jnp.array([[1.0, 0.0], [0.0, 2.0], [9.0, 9.0]]))
    assert codes.tolist() == [0, 0, 1, 0] and gap.tolist() == [0, 4, 4, 1] and codes.dtype == jnp.int32
    new = codebook.averaged(old, e, codes, 0.9)
    np.testing.assert_allclose(new["counts"], [0.45 + 0.1 * 3 / 4, 0.45 + 0.1 / 4, 0], rtol=1e-6)
    np.testing.assert_allclose(new["sums"], [[0.45 + 0.1 * 5 / 4, 0.1 * 1 / 4], [0, 0.9 + 0.1 * 4 / 4], [0, 0]], rtol=1e-6)
    # Laplace: (n_k + s) / (1 + K s), so that a code which is not used has a vector
    smooth = (np.array([0.525, 0.475, 0]) + 0.1) / 1.3
    np.testing.assert_allclose(codebook.vectors(new, 0.1), np.asarray(new["sums"]) / smooth[:, None], rtol=1e-5)


def test_the_codebook_converges_to_the_means_of_clusters():
    draws = np.random.default_rng(0)
    centres = np.array([[3.0, 0.0], [-3.0, 0.0], [0.0, 5.0]])
    label = np.arange(300) % 3
    e = jnp.asarray(centres[label] + 0.3 * draws.normal(size=(300, 2)), jnp.float32)

    @quick
    def converged(stats):
        def step(_, stats):
            return codebook.averaged(stats, e, codebook.nearest(e, codebook.vectors(stats, 1e-6))[0], 0.8)

        return codebook.vectors(jax.lax.fori_loop(0, 100, step, stats), 1e-6)

    found = converged(quick(codebook.start, static_argnums=2)(KEY, e, 3))
    means = jnp.stack([e[label == k].mean(0) for k in range(3)])
    codes, gap = codebook.nearest(means, found)
    assert sorted(codes.tolist()) == [0, 1, 2] and gap.max() < 1e-6


def test_codes_are_nearest_neighbours():
    draws = np.random.default_rng(0)
    e, c = draws.normal(size=(7, 5, 3)).astype(np.float32), draws.normal(size=(11, 3)).astype(np.float32)
    codes, gap = codebook.nearest(jnp.asarray(e), jnp.asarray(c))
    distance = ((e[..., None, :].astype(np.float64) - c) ** 2).sum(-1)
    np.testing.assert_array_equal(codes, distance.argmin(-1))
    np.testing.assert_allclose(gap, distance.min(-1), rtol=1e-5)


def test_it_starts_at_encodings_that_differ():
    """Most encodings are equal, as in the corners of images: k-means++ takes each value once."""
    values = np.array([[0.0, 0.0], [5.0, 1.0], [0.1, 0.0], [0.0, -2.0]], np.float32)
    e = jnp.asarray(values[np.r_[np.zeros(97, int), 1, 2, 3]])
    found = np.asarray(codebook.vectors(quick(codebook.start, static_argnums=2)(KEY, e, 4), 1e-5))
    np.testing.assert_allclose(found[np.lexsort(found.T)], values[np.lexsort(values.T)], atol=1e-6)


def test_codes_that_are_hardly_used_are_moved_to_what_is_badly_served():
    old = {"counts": jnp.array([0.6, 0.38, 0.02]), "sums": jnp.array([[0.6, 0.0], [0.0, 0.38], [0.02, 0.02]])}
    e = jnp.array([[1.0, 0.0], [0.0, 1.0], [7.0, 7.0]])
    codes, gap = codebook.nearest(e, codebook.vectors(old, 1e-7))
    new = codebook.averaged(old, e, codes, 0.9)
    gap = jnp.where(jnp.arange(3) < 2, 0.0, gap)  # without rounding: the last alone is not served
    found = codebook.revived(new, old, KEY, e, gap, 0.1)
    np.testing.assert_allclose(codebook.vectors(found, 1e-7)[2], e[2], rtol=1e-5)
    assert found["counts"][2] == pytest.approx(1 / 3) and all(np.array_equal(found[name][:2], new[name][:2]) for name in found)
    same = codebook.revived(new, old, KEY, e, gap, 0.05)  # 0.02 is not below 0.05 / 3
    assert all(np.array_equal(same[name], new[name]) for name in new)


def test_perplexity_counts_the_codes_in_use():
    assert codebook.perplexity(jnp.array([[2, 2], [2, 2]]), 5) == pytest.approx(1)
    assert codebook.perplexity(jnp.array([[0, 1], [2, 3]]), 9) == pytest.approx(4)


def linear():
    """(model, parameters, x, e [B, n, d], codebook, W, b): linear encoder and decoder, a Gaussian likelihood."""
    draws = np.random.default_rng(0)
    model = make(encoder="linear", decoder="linear", levels=0, likelihood="gaussian", likelihood_std=0.3, commitment=0.7)
    x = jnp.asarray(draws.normal(size=(16, 6)), jnp.float32)
    params = quick(model.init)(KEY, {"x": x})
    e = x @ params["encoder"]["head"]["kernel"] + params["encoder"]["head"]["bias"]
    head = params["decoder"]["head"]
    return model, params, x, e.reshape(16, 3, 2), codebook.vectors(params["stats"], 1e-5), head["kernel"], head["bias"]


def test_the_gradient_passes_straight_through():
    """d loss / d (encoder's bias) = the decoder's gradient at the codes' vectors + 2 commitment (e - c), averaged over the batch."""
    model, params, x, e, c, w, b = linear()
    c = c + 0.3 * jax.random.normal(KEY, c.shape)  # apart from the encodings
    params["stats"] = {"counts": jnp.full(5, 0.2), "sums": c / 5}
    codes, _ = codebook.nearest(e, c)
    z = c[codes].reshape(16, 6)
    through = ((z @ w + b - x) / 0.3**2) @ w.T
    expected = (through + 2 * 0.7 * (e - c[codes]).reshape(16, 6)).mean(0)
    (loss, metrics), grads = quick(jax.value_and_grad(lambda p: model.loss(p, KEY, {"x": x}, 0), has_aux=True))(params)
    np.testing.assert_allclose(grads["encoder"]["head"]["bias"], expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(grads["decoder"]["head"]["bias"], ((z @ w + b - x) / 0.3**2).mean(0), rtol=1e-4, atol=1e-4)
    assert not any(np.any(g) for g in jax.tree.leaves(grads["stats"]))
    assert metrics["commitment"] == pytest.approx(float(((e - c[codes]) ** 2).sum((1, 2)).mean()), rel=1e-5)
    assert loss == pytest.approx(float(metrics["recon"] + 0.7 * metrics["commitment"] + metrics["prior"]), rel=1e-6)
    assert metrics["prior"] == pytest.approx(3 * np.log(5), rel=1e-6)  # the untrained prior is uniform


def test_the_mean_over_shares_is_the_update_of_the_whole_batch():
    model, params, x, *_ = linear()
    update = quick(model.update)
    whole = update(params, KEY, {"x": x}, 0)["stats"]
    shares = [update(params, KEY, {"x": half}, 0)["stats"] for half in (x[:8], x[8:])]
    for name in whole:
        np.testing.assert_allclose(whole[name], (shares[0][name] + shares[1][name]) / 2, rtol=1e-5, atol=1e-7)
        assert np.any(shares[0][name] != shares[1][name])


ALL = jnp.asarray(list(itertools.product(range(SYMBOLS), repeat=LENGTH)), jnp.int32)


@pytest.fixture(scope="module")
def prior():
    """(temperature, scale) -> of 3 symbols in 4 places, logits from a network of random weights times `scale`: log p(c_i | c_<i) of ALL,
    draws of this distribution with their log-probabilities, draws at the temperature with the unscaled logits."""
    module = causal_transformer(width=8, depth=2, heads=2, activation="gelu", dtype="float32").module(LENGTH, SYMBOLS, SYMBOLS)
    draws = np.random.default_rng(0)
    leaves, tree = jax.tree.flatten(jax.eval_shape(module.init, KEY, ALL))
    params = tree.unflatten([jnp.asarray(0.4 * draws.normal(size=a.shape), a.dtype) for a in leaves])

    def logits(codes) -> Any:
        return module.apply(params, codes)

    @quick
    def found(temperature, scale):
        p = code_prior(lambda codes: scale * logits(codes), LENGTH)
        own = p.sample_and_log_prob(seed=KEY, sample_shape=(5,))
        return p.level_log_prob(ALL), own, draw(logits, KEY, (MANY, LENGTH), temperature)

    return lambda *values: jax.tree.map(np.asarray, found(*values))


def index(codes):
    """The rows of ALL that these codes are."""
    return codes @ SYMBOLS ** np.arange(LENGTH)[::-1]


def test_the_prior_is_normalised_and_sees_earlier_codes_alone(prior):
    terms, (z, log_p), _ = prior(1.0, 1.0)
    np.testing.assert_allclose(np.exp(terms.sum(-1)).sum(), 1, rtol=1e-5)
    table = terms.reshape(*[SYMBOLS] * LENGTH, LENGTH)
    for i in range(LENGTH):
        for j in range(LENGTH):
            change = np.ptp(table[..., i], axis=j).max()
            assert change > 0.01 if j <= i else change < 1e-5
    assert z.shape == (5, LENGTH) and z.dtype == jnp.int32
    np.testing.assert_allclose(log_p, terms.sum(-1)[index(z)], rtol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.4])
def test_draws_of_the_prior_follow_it(prior, temperature):
    terms, _, codes = prior(temperature, 1 / temperature)
    expected = MANY * np.exp(terms.sum(-1))
    often = expected > 5
    counts = np.bincount(index(codes), minlength=len(ALL))
    chi_square, freedom = np.sum((counts - expected)[often] ** 2 / expected[often]), often.sum() - 1
    assert freedom > 20 and chi_square < freedom + 4 * np.sqrt(2 * freedom)


def test_without_noise_a_draw_is_the_likeliest_code_in_every_place(prior):
    terms, _, codes = prior(0.0, 1.0)
    assert not np.ptp(codes, axis=0).any()
    for i, here in enumerate(codes[0]):
        rest = np.delete(np.arange(SYMBOLS), here)
        others = np.tile(codes[0], (SYMBOLS - 1, 1))
        others[:, i] = rest
        assert (terms[index(others), i] < terms[index(codes[0]), i]).all()


def test_the_bound_is_below_the_log_likelihood_and_its_terms_are_the_parts():
    """log p(x) = log sum over all codes, of a model with 5^3 of them; the posterior has all its mass on one."""
    model, draws = make(), np.random.default_rng(0)
    batch = {"x": jnp.asarray(draws.integers(0, 2, (16, 6)), jnp.uint8)}
    trained, stats, _ = split_params(quick(model.init)(KEY, batch))
    params = jax.tree.map(lambda a: a + jnp.asarray(draws.normal(size=a.shape), a.dtype), trained) | stats
    every = jnp.asarray(list(itertools.product(range(5), repeat=3)), jnp.int32)

    @quick
    def both(params):
        likelihood = model.latent.likelihood(params, every[:, None]).log_prob(batch["x"])  # [125, B]
        exact = jax.nn.logsumexp(likelihood + model.latent.prior(params).log_prob(every)[:, None], axis=0)
        terms = jax.vmap(lambda x: elbo.elbo_terms(model)(params, KEY, {"x": x[None]}))(batch["x"])
        q = model.latent.posterior(params, batch["x"])
        return exact, model.log_prob(params, KEY, batch), terms, q.log_prob(q.sample(seed=KEY)), q.log_prob((q.sample(seed=KEY) + 1) % 5)

    exact, bound, terms, inside, outside = both(params)
    assert (bound <= exact + 1e-5).all() and (bound < exact - 0.01).any()
    np.testing.assert_allclose(bound, -terms["recon"] - terms["kl"], rtol=1e-5)
    assert (terms["kl"] > 0).all() and not inside.any() and np.isneginf(outside).all()


@pytest.mark.parametrize(
    "values, message",
    [
        (dict(grid=()), r"model.grid=\(\) is invalid"),
        (dict(decay=1.0), "model.decay=1.0 is invalid"),
        (dict(prior="net"), "parts.net.kind='mlp' is a net, where a causal net is needed"),
        (dict(encoder="causal"), "parts.causal.kind='causal_transformer' is a causal net, where a net is needed"),
        (dict(encoder="down"), "a downsample network reads images"),
        (dict(encoder="down", event=(8, 8, 1)), r"a downsample network gives images .* the shape \(3, 2\) is asked"),
    ],
)
def test_wrong_configs_are_one_line(values, message):
    with pytest.raises(UserError, match=message) as error:
        make(**values)
    assert "\n" not in str(error.value)


def test_networks_that_do_not_meet_the_grid_are_one_line():
    model = make(event=(8, 8, 1), grid=(2, 2), encoder="down", decoder="deconv")
    with pytest.raises(UserError, match=r"a downsample network of 1 strides of 2 joins \(8, 8\) to \(4, 4\), not to \(2, 2\)"):
        jax.eval_shape(model.init, KEY, {"x": jnp.zeros((4, 8, 8, 1), jnp.uint8)})
    with pytest.raises(UserError, match="causal_transformer: heads=3 does not divide width=8"):
        causal_transformer(width=8, depth=1, heads=3, activation="relu", dtype="float32")

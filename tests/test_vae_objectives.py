"""The VAE's objectives, priors and posteriors against analytic cases; what does not fit together is one line."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.model_cases import KEY, VAE, quick
from tests.test_vae import draws, linear_gaussian, make
from vaeflow import objectives
from vaeflow.errors import UserError

LINEAR = dict(kind="mlp", hidden=(), activation="relu", dtype="float32")
BITS = {"x": jax.random.bernoulli(KEY, 0.5, (16, 6)).astype(jnp.uint8)}


@pytest.mark.parametrize("kind", ["elbo_path", "iwae", "iwae_one", "iwae_path", "dreg", "renyi"])
def test_every_bound_is_the_marginal_likelihood_at_the_exact_posterior(kind):
    model, params, batch, log_p = linear_gaussian(loss=dict(kind=kind, k=3) | (dict(alpha=0.5) if kind == "renyi" else {}))
    loss, metrics = quick(model.loss)(params, KEY, batch, 0)
    assert loss == pytest.approx(-log_p.mean(), abs=1e-3)
    assert metrics["recon"] + metrics["kl"] == pytest.approx(float(loss), abs=1e-3)


def test_runs_of_many_draws_are_selected_by_their_own_bound():
    model, params, batch, log_p = linear_gaussian(loss=dict(kind="iwae", k=50))
    params["encoder"]["head"]["bias"] += jnp.array([0.3, -0.3, 0.3, 0.4, -0.2, 0.2])  # a wrong posterior: the bounds differ
    chosen = quick(model.terms)(params, KEY, batch)["loss"]
    elbo = -quick(model.log_prob)(params, KEY, batch)
    assert chosen.shape == (64,) and -log_p.mean() < chosen.mean() < elbo.mean() - 0.1
    assert make().terms is None


def test_a_triangular_layer_gives_the_posterior_a_full_covariance():
    """x = W z + noise with correlated columns: p(z|x) is no diagonal Gaussian, and L(x) with the right entries reaches it."""
    rng = np.random.default_rng(0)
    w, noise = rng.normal(size=(5, 2)), 0.4
    model = make(
        parts=dict(net=LINEAR, full=dict(kind="triangular")),
        **dict(event=(5,), latent=2, levels=0, likelihood="gaussian", likelihood_std=noise, std="log_variance", posterior="full"),
    )
    cov = np.linalg.inv(np.eye(2) + w.T @ w / noise**2)
    lower = cov[1, 0] / cov[0, 0]
    inverse = np.array([[1, 0], [-lower, 1]])
    mean = w @ cov.T / noise**2 @ inverse.T  # of z before the layer
    variance = np.diag(inverse @ cov @ inverse.T)
    params = {
        "decoder": {"head": {"kernel": w.T, "bias": np.zeros(5)}},
        "encoder": {"head": {"kernel": np.hstack([mean, 0 * mean]), "bias": np.concatenate([np.zeros(2), np.log(variance)])}},
        "posterior": {"free": np.array([lower])},
    }
    params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), params)
    x = rng.normal(size=(32, 2)) @ w.T + noise * rng.normal(size=(32, 5))
    whole = w @ w.T + noise**2 * np.eye(5)
    log_p = -0.5 * ((x @ np.linalg.inv(whole)) * x).sum(1) - 0.5 * np.linalg.slogdet(2 * np.pi * whole)[1]
    batch = {"x": jnp.asarray(x, jnp.float32)}
    np.testing.assert_allclose(draws(model, params, batch, 5), np.broadcast_to(log_p, (5, 32)), rtol=2e-4, atol=2e-3)
    params["posterior"]["free"] *= 0
    assert draws(model, params, batch, 200).mean() < log_p.mean() - 0.05


def test_a_vamp_prior_is_the_mixture_of_posteriors_at_its_pseudo_inputs():
    model = make(pseudo_inputs=4, latent=1)
    params = quick(model.init)(KEY, BITS)
    u = jax.nn.sigmoid(params["pseudo_inputs"])
    assert u.shape == (4, 6)
    z = jnp.linspace(-6, 6, 801)[:, None]
    ours = model.latent.prior(params).log_prob(z)
    theirs = model.latent.posterior(params, u).log_prob(z[:, None])
    np.testing.assert_allclose(ours, jax.nn.logsumexp(theirs, axis=1) - np.log(4), rtol=1e-5, atol=1e-5)
    assert np.exp(ours).sum() * (z[1, 0] - z[0, 0]) == pytest.approx(1.0, abs=1e-3)
    sample, log_p = model.latent.prior(params).sample_and_log_prob(seed=KEY, sample_shape=(4000,))
    np.testing.assert_allclose(log_p, model.latent.prior(params).log_prob(sample), rtol=1e-5, atol=1e-5)
    p = np.exp(ours) / np.exp(ours).sum()
    assert sample.mean() == pytest.approx(float((p * z[:, 0]).sum()), abs=0.08)


def test_a_base_of_the_context_is_a_prior_of_each_class():
    model = make(prior_base="context_normal", prior="layer")
    context = jnp.eye(3)[jnp.arange(16) % 3]
    params = quick(model.init)(KEY, BITS | {"context": context})
    params["prior_base"]["bias"] = params["prior_base"]["bias"].at[0].set(5.0)
    params["prior_base"]["kernel"] = params["prior_base"]["kernel"].at[0, 0].set(-10.0)
    prior = model.latent.prior(params, context)
    z, log_p = prior.sample_and_log_prob(seed=KEY, sample_shape=(7,))
    assert z.shape == (7, 16, 3) and log_p.shape == (7, 16)
    np.testing.assert_allclose(log_p, prior.log_prob(z), rtol=1e-4, atol=1e-4)
    first = np.asarray(context[:, 0] == 1)  # the layer starts as the identity
    assert z[:, first, 0].mean() == pytest.approx(-5, abs=0.5) and z[:, ~first, 0].mean() == pytest.approx(5, abs=0.5)
    assert model.sample(params, KEY, 5, context[:5])["x"].shape == (5, 6)


def test_capacity_and_penalties_enter_the_loss():
    params = quick(make().init)(KEY, BITS)
    plain = quick(make().loss)(params, KEY, BITS, 5)[1]
    capacity = dict(kind="capacity", nats=4.0, steps=10, beta=3.0)
    held = quick(make(loss=capacity).loss)(params, KEY, BITS, 5)[1]
    assert held["loss"] == pytest.approx(float(plain["recon"] + 3 * abs(plain["kl"] - 2.0)), rel=1e-5)
    for kind, weight in (("mmd", 7.0), ("tc", 2.0)):
        for of, before in (({}, plain), (dict(of="capacity"), held)):
            found = quick(make(parts=dict(capacity=capacity), loss=dict(kind=kind, weight=weight) | of).loss)(params, KEY, BITS, 5)[1]
            assert found["loss"] == pytest.approx(float(before["loss"] + weight * found[kind]), rel=1e-5)


def test_the_critic_and_the_encoder_each_learn_from_their_own_term():
    parts = dict(autoencoder=dict(kind="elbo", beta=0.0), pull=dict(kind="mmd", weight=3.0, of="autoencoder"))
    model = make(parts=parts, loss=dict(kind="adversarial", critic="net", weight=2.0, of="autoencoder"))
    params = quick(model.init)(KEY, BITS)
    both, metrics = quick(jax.grad(model.loss, has_aux=True))(params, KEY, BITS, 0)
    assert metrics["loss"] == pytest.approx(float(metrics["recon"] + 2 * metrics["fooling"]), rel=1e-5)  # the critic's loss adds no value
    q = model.latent.posterior(params, BITS["x"]).sample(seed=jax.random.split(KEY, 3)[0], sample_shape=(1,))[0]
    p = jax.random.normal(jax.random.fold_in(jax.random.split(KEY, 3)[2], 2), q.shape)

    def critic_loss(own):
        from tests.model_cases import MLP
        from vaeflow.nets import NETS

        net = NETS["mlp"](**{k: v for k, v in MLP.items() if k != "kind"}).module((1,), 1, False)
        return objectives.critic_loss(*(net.apply({"params": own}, z)[:, 0] for z in (p, q)))

    expected = jax.grad(critic_loss)(params["objective"]["critic"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), both["objective"]["critic"], expected)
    more = make(parts=parts, loss=dict(kind="adversarial", critic="net", weight=2.0, of="pull"))
    found = quick(more.loss)(params, KEY, BITS, 0)[1]
    assert found["loss"] == pytest.approx(float(metrics["loss"] + 3 * found["mmd"]), rel=1e-5)


def test_a_penalty_of_an_objective_with_parameters_has_them():
    inner = dict(kind="adversarial", critic="net", weight=1.0)
    one, two = make(loss=inner), make(parts=dict(inner=inner), loss=dict(kind="mmd", weight=2.0, of="inner"))
    params, nested = (quick(model.init)(KEY, BITS) for model in (one, two))
    assert nested["objective"].keys() == {"of"}
    jax.tree.map(np.testing.assert_array_equal, nested["objective"]["of"], params["objective"])
    first, second = (quick(model.loss)(p, KEY, BITS, 0)[1] for model, p in ((one, params), (two, nested)))
    assert second["loss"] == pytest.approx(float(first["loss"] + 2 * second["mmd"]), rel=1e-5)


def test_pixels_one_by_one_are_a_probability_and_draw_what_they_score():
    """Three binary pixels given z: the eight probabilities sum to 1 and are the frequencies of draws."""
    model = make(event=(3,), autoregressive="made", latent=2)
    params = quick(model.init)(KEY, {"x": BITS["x"][:, :3]})
    head = params["autoregressive"]["head"]
    head["kernel"] = jax.random.normal(KEY, head["kernel"].shape)
    z = jnp.array([0.3, -1.0])
    every = jnp.array([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)], jnp.uint8)
    p = model.latent.likelihood(params, z)
    probability = np.exp(quick(lambda x: p.log_prob(x))(every))
    assert probability.sum() == pytest.approx(1.0, abs=1e-5)
    x = np.asarray(quick(lambda key: p.sample(seed=key, sample_shape=(4000,)))(KEY))
    share = np.bincount((x @ [4, 2, 1]).astype(int), minlength=8) / 4000
    np.testing.assert_allclose(share, probability, atol=4 * np.sqrt(0.25 / 4000))
    independent = [probability[every[:, i] == 1].sum() for i in range(3)]
    assert np.abs(probability - np.prod(np.where(every, independent, 1 - np.array(independent)), 1)).max() > 0.01
    assert p.mean().shape == (3,)


@pytest.mark.parametrize(
    "values, message",
    [
        (dict(loss=dict(kind="tc", weight=1.0), posterior="layer"), "model.objective: 'tc' needs a diagonal Gaussian"),
        (dict(loss=dict(kind="tc", weight=1.0), prior="layer"), "model.objective: 'tc' needs a diagonal Gaussian"),
        (
            dict(parts=dict(x=dict(kind="tc", weight=1.0)), loss=dict(kind="mmd", weight=1.0, of="x"), prior="layer"),
            "'mmd' needs a diagonal",
        ),
        (dict(loss=dict(kind="adversarial", weight=1.0)), "missing parts.objective.critic"),
        (dict(loss=dict(kind="dreg", k=1)), "parts.objective.k=1 is invalid; it must be >= 2"),
        (dict(loss=dict(kind="iwae", beta=2.0)), "parts.objective: the key='beta' is unknown"),
        (dict(loss=dict(kind="renyi", alpha=1.0)), "parts.objective: alpha=1.0 is invalid"),
        (dict(loss=dict(kind="elbo", beta="iwae")), "parts.iwae.kind='iwae' is an objective, where a schedule is needed"),
        (dict(loss=dict(kind="elbo", beta=-1.0)), "parts.objective.beta=-1.0 is invalid"),
        (dict(loss=dict(kind="mmd", weight=1.0, of="vimco")), "parts.objective: of='vimco' is an objective of discrete latents"),
        (dict(objective="iwea"), "model.objective='iwea' is unknown .did you mean 'iwae'"),
        (
            dict(objective="vimco"),
            "'vimco' is for discrete latents, and those of a vae are Gaussian; for them: adversarial, capacity, dreg",
        ),
        (dict(objective="dreg", posterior="norm"), "'dreg' needs a posterior that inverts its own draws in training"),
        (dict(pseudo_inputs=3, prior_base="gaussian_mixture"), "two bases of one prior"),
        (dict(pseudo_inputs=3, posterior="layer"), "model.pseudo_inputs=3 needs a Gaussian posterior"),
    ],
)
def test_what_does_not_fit_together_is_one_line(values, message):
    with pytest.raises(UserError, match=message) as error:
        make(base=VAE, **values)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("penalty", ["mmd", "tc"])
def test_a_batch_of_one_has_nothing_to_compare(penalty):
    m = make(base=VAE, loss=dict(kind=penalty, weight=1.0))
    one = {"x": jnp.zeros((1, 6), jnp.uint8)}
    with pytest.raises(UserError, match=r"data\.batch gives a device 1 example"):
        jax.eval_shape(lambda: m.loss(m.init(jax.random.key(0), one), jax.random.key(1), one, 0))

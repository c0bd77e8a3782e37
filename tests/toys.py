"""Models whose numbers are known, and splits for them."""

from __future__ import annotations

from types import SimpleNamespace

import distrax
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from configs.base import base
from vaeflow.data import Source, Split
from vaeflow.model import Latent, Model
from vaeflow.training.configure import complete


def sections() -> ConfigDict:
    """A config with every section, each value at its default, and no model yet."""
    return ConfigDict(complete(base()).to_dict())


def split(n: int, event: tuple[int, ...] = (3,), context=None) -> Split:
    x = np.random.default_rng(0).normal(size=(n, *event)).astype(np.float32)
    return Split(x, context, np.arange(n) % 3)


def source(test: Split, levels: int = 0, density=None) -> Source:
    return Source(test, None, test, levels, ("zero", "one", "two"), density)


def config(k: int = 20, chunk: int = 10, batch: int = 16, levels: int = 0, n: int = 9) -> SimpleNamespace:
    return SimpleNamespace(
        seed=0,
        eval=ConfigDict(dict(k=k, chunk=chunk, batch=batch)),
        model={"kind": "toy", "levels": levels},
        data=SimpleNamespace(binarize="none", name="toy"),
        sample=SimpleNamespace(n=n),
        optim=ConfigDict(dict(ema=0.0)),
    )


def model(log_prob, density="weight", latent=None, sample=None) -> Model:
    def nothing(*_, **__):
        raise AssertionError("nobody asks a toy for this")

    return Model(init=nothing, loss=nothing, sample=sample, log_prob=log_prob, density=density, latent=latent)


def noisy(spread: float) -> Model:
    """log w = sum x + spread * normal: log p(x) = sum x + spread^2 / 2, ELBO = sum x."""

    def log_prob(params, key, batch):
        x = batch["x"]
        return x.reshape(len(x), -1).sum(-1) + spread * jax.random.normal(key, (len(x),))

    return model(log_prob)


# x = W z + b + noise of standard deviation SIGMA; the second latent unit is not used.
W = np.array([[1.0, 0.0], [-0.5, 0.0], [2.0, 0.0]], np.float32)
SIGMA = 0.5


def linear_gaussian(width: float = 1.0, event: tuple[int, ...] = (3,)) -> Model:
    """z ~ N(0, I), x ~ N(W z, SIGMA^2): its posterior, with the standard deviation times `width`, is q(z|x)."""
    weights = jnp.asarray(W) if event == (3,) else jnp.eye(int(np.prod(event)), 2)
    precision = jnp.eye(2) + weights.T @ weights / SIGMA**2

    def flat(x):
        return jnp.asarray(x, jnp.float32).reshape(len(x), -1)

    def prior(params, context=None):
        return distrax.MultivariateNormalDiag(jnp.zeros(2), jnp.ones(2))

    def posterior(params, x, context=None):
        mean = flat(x) @ weights / SIGMA**2 @ jnp.linalg.inv(precision)
        return distrax.MultivariateNormalDiag(mean, jnp.broadcast_to(width / jnp.sqrt(jnp.diag(precision)), mean.shape))

    def likelihood(params, z, context=None):
        mean = (z @ weights.T).reshape(*z.shape[:-1], *event)
        return distrax.Independent(distrax.Normal(mean, SIGMA), len(event))

    def log_prob(params, key, batch):
        z, log_q = posterior(params, batch["x"]).sample_and_log_prob(seed=key)
        return likelihood(params, z).log_prob(batch["x"]) + prior(params).log_prob(z) - log_q

    def sample(params, key, n, context=None):
        first, second = jax.random.split(key)
        z = prior(params).sample(seed=first, sample_shape=n)
        return {"x": likelihood(params, z).sample(seed=second), "z": z}

    return model(log_prob, latent=Latent(prior, posterior, likelihood), sample=sample)


def linear_gaussian_log_p(x: np.ndarray) -> np.ndarray:
    """N(x; 0, W W^T + SIGMA^2 I), [N]."""
    x, w = x.astype(np.float64), W.astype(np.float64)
    cov = w @ w.T + SIGMA**2 * np.eye(3)
    quadratic = np.einsum("ni,ij,nj->n", x, np.linalg.inv(cov), x)
    return -0.5 * (quadratic + np.linalg.slogdet(2 * np.pi * cov)[1])


def gaussian_flow(std: float = 0.7) -> Model:
    """The exact density N(0, std^2 I) over vectors."""

    def base(shape):
        return distrax.MultivariateNormalDiag(jnp.zeros(shape), std * jnp.ones(shape))

    def log_prob(params, key, batch):
        return base(batch["x"].shape[-1]).log_prob(batch["x"])

    return model(log_prob, "exact", sample=lambda params, key, n, context=None: {"x": base(2).sample(seed=key, sample_shape=n)})

"""What distrax lacks: grey-valued Bernoulli targets, the discretised logistic, the uniform dequantiser; and the ways from a
network's output to a distribution.

Distributions of x live on the scale of the data as loaded (grey values 0..levels-1), so that a log_prob needs no correction
and `mean` is a picture. They are elementwise (event shape []); `over_event` sums them over the axes of an event.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import distrax
import jax
import jax.numpy as jnp

from vaeflow.errors import UserError
from vaeflow.model import Array

Distribution = Any  # a distrax.Distribution; distrax annotates with array types that type checkers do not take for jax.Array
Std = Literal["log_variance", "softplus", "bounded", "scaled_sigmoid"]
Likelihood = Literal["bernoulli", "bernoulli_intensities", "gaussian", "gaussian_learned", "discretized_logistic"]


def over_event(distribution: Distribution, event_ndims: int) -> Distribution:
    """The elementwise distribution as one over events: its last `event_ndims` axes are summed in log_prob."""
    return distrax.Independent(distribution, event_ndims)


def normal(mean: Array, std: Array, event_ndims: int = 1) -> Distribution:
    """N(mean, diag(std^2)) over events of rank `event_ndims`."""
    return over_event(distrax.Normal(mean, std), event_ndims)


def standard_normal(shape: tuple[int, ...], batch: tuple[int, ...] = ()) -> Distribution:
    """N(0, I) over events of `shape`, with a batch shape."""
    return normal(jnp.zeros((*batch, *shape)), jnp.ones(()), len(shape))


class Joint(distrax.Distribution):
    """A distribution over vectors z [D] made of its two functions, whose log-density may be a sum over levels z = [z_1 | z_2 | ...]:

        log p(z) = sum_l log p(z_l | z_<l),        the levels contiguous in z, of `sizes` (D_1, D_2, ...); z_<l: those drawn before z_l

    draw   (key, n) -> (z [n, *batch, D], terms [n, *batch, L]): the log-density is known where z is drawn
    terms  z [..., *batch, D] -> [..., *batch, L], log p(z_l | z_<l)

    One vector and no tuple, so that whatever works on a latent (IWAE, AIS, HMC, encodings) works on a hierarchy of them.
    """

    def __init__(self, draw: Callable[..., Any], terms: Callable[..., Any], sizes: tuple[int, ...], batch: tuple[int, ...] = ()):
        super().__init__()
        self._draw, self._terms, self._batch = draw, terms, batch
        self.sizes = sizes

    @property
    def event_shape(self) -> tuple[int, ...]:
        return (sum(self.sizes),)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return self._batch

    def level_log_prob(self, value: Array) -> Array:
        """log p(z_l | z_<l): z [..., D] -> [..., L]."""
        return self._terms(value)

    def sample_level_log_prob(self, key: Array, n: int) -> tuple[Array, Array]:
        """n draws z [n, *batch, D], those of `sample` at this key, and their log p(z_l | z_<l) [n, *batch, L]."""
        return self._draw(key, n)

    def log_prob(self, value: Array) -> Array:
        return jnp.sum(self._terms(value), axis=-1)

    def _sample_n(self, key: Array, n: int) -> Array:
        return self._draw(key, n)[0]

    def _sample_n_and_log_prob(self, key: Array, n: int) -> tuple[Array, Array]:
        z, terms = self._draw(key, n)
        return z, jnp.sum(terms, axis=-1)


class GreyBernoulli(distrax.Distribution):
    """Bernoulli with targets t = x / top in [0, 1], from logits l:

        log p(x) = t l - softplus(l)        (softplus(l) = log(1 + e^l): stable for every l)

    For x in {0, top} this is the Bernoulli's log-probability. For values between (pixel intensities) it is minus the binary
    cross-entropy, the common training signal of VAE tutorials, but not a likelihood: it does not sum to 1 over x.
    """

    def __init__(self, logits: Array, top: float = 1.0):
        super().__init__()
        self._logits = logits
        self._top = top

    @property
    def event_shape(self) -> tuple[int, ...]:
        return ()

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return self._logits.shape

    @property
    def logits(self) -> Array:
        return self._logits

    def log_prob(self, value: Array) -> Array:
        return self._logits * (value / self._top) - jax.nn.softplus(self._logits)

    def mean(self) -> Array:
        return jax.nn.sigmoid(self._logits) * self._top

    def _sample_n(self, key: Array, n: int) -> Array:
        bits = jax.random.bernoulli(key, jax.nn.sigmoid(self._logits), (n, *self.batch_shape))
        return bits.astype(self._logits.dtype) * self._top


class DiscretizedLogistic(distrax.Distribution):
    """Logistic(loc, scale) rounded to the grey values 0..levels-1; the two edges absorb the tails (Salimans et al. 2017,
    PixelCNN++, eq. 2). With s the sigmoid, b = (x + 1/2 - loc) / scale and a = (x - 1/2 - loc) / scale:

        P(x) = s(b) - s(a) = s(b) s(-a) (1 - e^(a - b)),        s(b) = 1 at x = levels-1,  s(a) = 0 at x = 0

    The product form is exact and has no cancellation, so neither the value nor a gradient degrades in the tails, and no
    branch has to be hidden from the derivative. `loc` and `scale` are in grey values.
    """

    def __init__(self, loc: Array, scale: Array, levels: int):
        super().__init__()
        self._loc, self._scale = jnp.broadcast_arrays(loc, scale)
        self._levels = levels

    @property
    def event_shape(self) -> tuple[int, ...]:
        return ()

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return self._loc.shape

    def log_prob(self, value: Array) -> Array:
        value = jnp.asarray(value, self._loc.dtype)
        first, last = value <= 0, value >= self._levels - 1
        below = jax.nn.log_sigmoid((value + 0.5 - self._loc) / self._scale)
        above = jax.nn.log_sigmoid((self._loc - value + 0.5) / self._scale)
        width = jnp.log(-jnp.expm1(-1 / self._scale))  # log(1 - e^(a - b)), b - a = 1 / scale
        return jnp.where(last, 0, below) + jnp.where(first, 0, above) + jnp.where(first | last, 0, width)

    def mean(self) -> Array:
        """sum_(j=1)^(levels-1) P(x >= j), exact; a loop over the levels, so it needs the memory of one image."""

        def add(j, total):
            return total + jax.nn.sigmoid((self._loc - j + 0.5) / self._scale)

        return jax.lax.fori_loop(1, self._levels, add, jnp.zeros_like(self._loc))

    def _sample_n(self, key: Array, n: int) -> Array:
        noise = jax.random.logistic(key, (n, *self.batch_shape), self._loc.dtype)
        return jnp.clip(jnp.round(self._loc + self._scale * noise), 0, self._levels - 1)


def dequantize(key: Array, x: Array) -> tuple[Array, Array]:
    """(y, log q(y|x)) with y = x + u, u uniform on (0, 1): x [B, *event] grey values -> y of the same shape, log q [B] = 0.

    If p(y) is a density, log p(y) - log q(y|x) is a log-weight: exp of it has mean P(x) = integral of p over x's unit cell
    (Theis et al. 2016). y stays strictly inside its cell also in floating point, so that a logit behind it is finite.
    """
    x = jnp.asarray(x, jnp.result_type(float))
    u = jax.random.uniform(key, x.shape, x.dtype, minval=2.0**-24)
    return jnp.minimum(x + u, jnp.nextafter(x + 1, x)), jnp.zeros(x.shape[:1], x.dtype)


def std_of(name: Std, s: Array, bound: float) -> Array:
    """A standard deviation from a network's output s:

    log_variance   exp(s / 2)
    softplus       softplus(s) + 1e-6
    bounded        bound tanh(t / bound), t = softplus(s) + 1e-6: the softplus for small values, never above the bound
    scaled_sigmoid bound sigmoid(s) + 1e-8: starts at bound / 2 (the VAE guide's "bounded", bound 10)
    """
    if name == "log_variance":
        return jnp.exp(0.5 * s)
    if name == "scaled_sigmoid":
        return bound * jax.nn.sigmoid(s) + 1e-8
    positive = jax.nn.softplus(s) + 1e-6
    return positive if name == "softplus" else bound * jnp.tanh(positive / bound)


def check_likelihood(name: Likelihood, levels: int) -> None:
    """UserError: data of `levels` grey values (0: as is) have no such likelihood."""
    if name == "bernoulli" and levels != 2:
        how = "set data.binarize and model.levels=2, or use bernoulli_intensities"
        raise UserError(f"model.likelihood='bernoulli' needs binary data, not model.levels={levels}: {how}")
    if name == "discretized_logistic" and levels < 2:
        raise UserError(f"model.likelihood='discretized_logistic' needs grey values, model.levels >= 2, not {levels}")
    if levels == 1:
        raise UserError("model.levels=1 is invalid; it must be 0 (data as is) or >= 2 (grey values 0..levels-1)")


def likelihood_note(name: Likelihood, levels: int) -> str:
    """What p(x|z) is when it is no likelihood of the data as loaded, else ""."""
    if name == "bernoulli_intensities":
        return "BCE on intensities, not a likelihood"
    return "Gaussian density at grey values that were not dequantised" if levels and name.startswith("gaussian") else ""


def likelihood_heads(name: Likelihood) -> tuple[int, ...]:
    """The leading axes of the output that `likelihood` reads: (2,) where it needs a location and a scale."""
    return (2,) if name in ("gaussian_learned", "discretized_logistic") else ()


def likelihood(name: Likelihood, out: Array, event_ndims: int, top: float, std: float) -> Distribution:
    """p(x|z) from a decoder's output o [..., *heads, *event]; top: the largest grey value, 1 for data as they are.

    bernoulli               x in {0, top} from logits o
    bernoulli_intensities   cross-entropy with targets x / top from logits o: not a likelihood
    gaussian                N(top o, (top std)^2)
    gaussian_learned        N(top o_1, (top s)^2), s = softplus(o_2 + i) + 1e-3, i such that o_2 = 0 gives about `std`
    discretized_logistic    location top (o_1 + 1) / 2, scale top/2 exp(max(o_2, -7)) (Salimans et al. 2017), levels top + 1
    """
    if name in ("bernoulli", "bernoulli_intensities"):
        return over_event(GreyBernoulli(out, top), event_ndims)
    if name == "gaussian":
        return normal(top * out, jnp.asarray(top * std), event_ndims)
    first, second = jnp.moveaxis(out, -event_ndims - 1, 0)
    if name == "gaussian_learned":
        start = std + jnp.log(-jnp.expm1(-std))  # the inverse of softplus
        return normal(top * first, top * (jax.nn.softplus(second + start) + 1e-3), event_ndims)
    scale = 0.5 * top * jnp.exp(jnp.maximum(second, -7.0))
    return over_event(DiscretizedLogistic(0.5 * top * (first + 1), scale, round(top) + 1), event_ndims)

"""Denoising score matching: the denoising autoencoder as an energy model (Vincent 2011), trained by any of four objectives.

    E(x) = (|x|^2 / 2 - A(x)) / sigma^2,    A(x) = <c, x> + sum_j softplus(g_j(x)),    p(x) = exp(-E(x)) / Z
    r(x) = grad A(x),    score(x) = -grad E(x) = (r(x) - x) / sigma^2

With g(x) = W x + b, r is the denoising autoencoder with tied weights, W^T sigmoid(W x + b) + c; g may be any network. The objectives,
with x~ = x + sigma e and e ~ N(0, I), are

    dae   E |r(x~) - x|^2                                             reconstruction error, 2 sigma^4 times dsm
    dsm   E 1/2 |score(x~) - (x - x~) / sigma^2|^2                    denoising score matching
    esm   E 1/2 |score(x~) - grad log q(x~)|^2                        explicit; q(x~) = 1/B sum_i N(x~; x_i, sigma^2 I), of the batch x_i
    ism   E [1/2 |score(y)|^2 + tr grad score(y)]                     implicit (Hyvarinen 2005); y = x~, or x where `clean`

dsm, esm and ism at x~ differ by constants in the parameters. This holds for the q of each batch, so all three have the same expected
gradient. `clean` ism matches the score of the data themselves, not of the data with noise.

A grows at most linearly with any activation here, so exp(-E) can be normalised. With tied weights and sigma = 1, p is a mixture of 2^H
Gaussians N(c + sum_j s_j W_j, I), s_j = 0 or 1, the marginal of a restricted Boltzmann machine. A sum of convex functions of one direction
each fits few shapes of the plane (8 Gaussians, not moons); a network fits any.

References: Vincent 2011, "A connection between score matching and denoising autoencoders", Neural Computation 23(7); Hyvarinen 2005,
"Estimation of non-normalized statistical models by score matching", JMLR 6.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp

from vaeflow.bijectors import Layer
from vaeflow.build import SAMPLING, Count, Natural, Positive
from vaeflow.errors import UserError
from vaeflow.hmc import move_all
from vaeflow.model import NO_PARAMS, Array, Model, Params, overlay
from vaeflow.models.parts.continuous_time import coordinates
from vaeflow.models.parts.density import fits
from vaeflow.nets import Net
from vaeflow.record import recorded

_JITTER = 0.2  # of the leapfrog's step size, see vaeflow/hmc.py


class Potential(NamedTuple):
    """A of parameters and x [B, D], with its derivatives.

    value      [B]
    gradient   r, [B, D]
    laplacian  tr grad^2 A, [B]
    """

    value: Callable[[Params, Array], Array]
    gradient: Callable[[Params, Array], Array]
    laplacian: Callable[[Params, Array], Array]


def _tied_value(params: Params, x: Array) -> Array:
    return x @ params["c"] + jnp.sum(jax.nn.softplus(x @ params["w"].T + params["b"]), -1)


def _tied_gradient(params: Params, x: Array) -> Array:
    return jax.nn.sigmoid(x @ params["w"].T + params["b"]) @ params["w"] + params["c"]


def _tied_laplacian(params: Params, x: Array) -> Array:
    h = jax.nn.sigmoid(x @ params["w"].T + params["b"])
    return (h * (1 - h)) @ jnp.sum(jnp.square(params["w"]), -1)


# Of the autoencoder with tied weights: parameters w [H, D], b [H], c [D].
TIED = Potential(_tied_value, _tied_gradient, _tied_laplacian)


def differentiated(value: Callable[[Params, Array], Array]) -> Potential:
    """The potential whose derivatives are those of `value` by automatic differentiation; the Laplacian takes D products."""

    def gradient(params, x):
        return jax.grad(lambda x: jnp.sum(value(params, x)))(x)

    def laplacian(params, x):
        def second(direction):
            return jax.jvp(lambda x: gradient(params, x), (x,), (jnp.broadcast_to(direction, x.shape),))[1] @ direction

        return jnp.sum(jax.lax.map(second, jnp.eye(x.shape[-1], dtype=x.dtype)), 0)

    return Potential(value, gradient, laplacian)


def explicit(score: Array, truth: Array) -> Array:
    """1/2 |score - truth|^2, [B] of scores [B, D]."""
    return jnp.sum(jnp.square(score - truth), -1) / 2


def implicit(score: Array, trace: Array) -> Array:
    """1/2 |score|^2 + tr grad score, [B] of scores [B, D] and traces [B]."""
    return jnp.sum(jnp.square(score), -1) / 2 + trace


def parzen_score(points: Array, sigma: float, x: Array) -> Array:
    """The score of q(x) = 1/N sum_i N(x; x_i, sigma^2 I), [B, D] of points [N, D] and x [B, D]."""
    distances = jnp.sum(jnp.square(x[:, None] - points), -1)
    return (jax.nn.softmax(-distances / (2 * sigma**2)) @ points - x) / sigma**2


@recorded
def dae(
    *,
    event: tuple[Count, ...],
    levels: Natural = 0,
    sigma: Positive = 1.0,
    hidden: Count = 128,
    net: Net | None = None,
    objective: Literal["dae", "dsm", "esm", "ism"] = "dae",
    clean: bool = False,
    layer: Layer | None = None,
    steps: Annotated[Count, SAMPLING] = 100,
    step_size: Annotated[Positive, SAMPLING] = 0.5,
    leapfrog: Annotated[Count, SAMPLING] = 10,
    start: Annotated[Positive, SAMPLING] = 1.0,
    denoise: Annotated[bool, SAMPLING] = False,
) -> Model:
    """See the module's docstring. Parameters: c; w and b, or net; fixed/layer.

    Args:
        event, levels: the shape of one example; number of its grey values, 0 for continuous data. Grey values get uniform noise.
        sigma: standard deviation of the noise, in units of f^-1(data). Tied weights need units in which it is about 1: a hidden unit
            switches within 1 / |W_j| and moves the reconstruction by |W_j|, so that steps are as wide as 1 over their height.
        hidden: H, number of softplus terms.
        net: g: x [B, *event] -> [B, H]; None: W x + b. Its activations should be smooth.
        objective: dae, dsm, esm or ism.
        clean: whether ism is taken at the data instead of the noisy data.
        layer: f, data = f(x), on vectors [B, D]. Its initial values, which may be those of the first batch (actnorm), are not trained.
        steps: HMC transitions of each draw; the last state is returned, the others are the burn-in.
        step_size: of the leapfrog, in units of sigma. The largest curvature of the energy is 1 / sigma^2 with tied weights, and that of
            -log q too, so below 2 the leapfrog is stable there.
        leapfrog: steps of one transition.
        start: standard deviation of the noise that chains start from, in units of f^-1(data).
        denoise: whether draws are r(x) instead of the chains' last states x, which have the noise: E[data | x] of the exact model.

    Returns: `sample` gives {x, accepted: the mean probability of acceptance of all chains}. `energy` is -log p(x) but for log Z. There is
        no density. `terms` has the objective per example (for esm that of dsm), by which `best` is selected. `encode` gives the hidden
        layer sigmoid(g(x)) [B, H].

    Raises:
        UserError: `clean` with another objective than ism; a layer that keeps statistics.

    Example:
        model = dae(event=(2,), hidden=64, layer=scale(factor=0.2), objective="dsm")
    """
    event = tuple(event)
    at = coordinates(event, levels, layer, True, "auto")
    network = None if net is None else net.module((hidden,), len(event), False)
    if clean and objective != "ism":
        raise UserError(f"model.clean=True needs model.objective='ism', here {objective!r}: the other objectives are of noisy data")

    def logits(params, x) -> Array:
        """g(x), [B, H]."""
        if network is None:
            return x @ params["w"].T + params["b"]
        return jnp.asarray(network.apply({"params": params["net"]}, x.reshape(len(x), *event)))

    def value(params, x):
        return x @ params["c"] + jnp.sum(jax.nn.softplus(logits(params, x)), -1)

    potential = TIED if network is None else differentiated(value)

    def read(params, key, batch):
        """x = f^-1(data) [B, D] and log |det| [B] of one draw of the dequantisation."""
        return at.pull(params, at.dequantize(key, batch["x"])[0])

    def init(key, batch, given=NO_PARAMS):
        fits(event, batch)
        key_u, key_layer, key_net = jax.random.split(key, 3)
        y, _ = at.dequantize(key_u, batch["x"])
        params = overlay({"c": jnp.zeros(at.shape)} | at.init(key_layer, y), given)
        if network is None:
            # W^T sigmoid(W x) then has the Jacobian W^T W / 4, I / 16 in expectation: nearly one Gaussian. With a Jacobian of I the energy
            # starts flat, and far from the data, where no objective sees it, modes of its own are left.
            params |= {"w": jax.random.normal(key_net, (hidden, *at.shape)) / (2 * math.sqrt(hidden)), "b": jnp.zeros(hidden)}
        else:
            params["net"] = network.init(key_net, at.pull(params, y)[0].reshape(len(y), *event))["params"]
        return overlay(params, given)

    def errors(params, key, batch):
        """The objective of each example, [B]."""
        key_u, key_e = jax.random.split(key)
        x, _ = read(params, key_u, batch)
        noisy = x if clean else x + sigma * jax.random.normal(key_e, x.shape, x.dtype)
        r = potential.gradient(params, noisy)
        if objective == "dae":
            return jnp.sum(jnp.square(r - x), -1)
        score = (r - noisy) / sigma**2
        if objective == "ism":
            return implicit(score, (potential.laplacian(params, noisy) - at.shape[0]) / sigma**2)
        return explicit(score, parzen_score(x, sigma, noisy) if objective == "esm" else (x - noisy) / sigma**2)

    def loss(params, key, batch, step):
        del step
        total = jnp.mean(errors(params, key, batch))
        return total, {"loss": total}

    def terms(params, key, batch):
        """Of batches of one each: the density q of esm then has one point, and esm is dsm."""
        keys = jax.random.split(key, len(batch["x"]))
        return {"loss": jax.vmap(lambda key, x: errors(params, key, {"x": x[None]})[0])(keys, batch["x"])}

    def energy(params, key, batch):
        x, log_det = read(params, key, batch)
        return (jnp.sum(jnp.square(x), -1) / 2 - potential.value(params, x)) / sigma**2 - log_det

    def encode(params, key, batch):
        return jax.nn.sigmoid(logits(params, read(params, key, batch)[0]))

    def sample(params, key, n, context=None):
        del context
        key_start, key_moves = jax.random.split(key)

        def log_density(x):
            return (potential.value(params, x[None])[0] - jnp.sum(jnp.square(x)) / 2) / sigma**2

        def step(x, key):
            return move_all(key, x, log_density, jnp.asarray(step_size * sigma, x.dtype), leapfrog, _JITTER)

        x = start * jax.random.normal(key_start, (n, *at.shape))
        x, accepted = jax.lax.scan(step, x, jax.random.split(key_moves, steps))
        drawn = at.push(params, potential.gradient(params, x) if denoise else x)
        return {"x": drawn, "accepted": jnp.broadcast_to(jnp.mean(accepted), (n,))}

    return Model(
        init=init,
        loss=loss,
        sample=sample,
        log_prob=None,
        density="none",
        encode=encode,
        terms=terms,
        energy=energy,
        event=event,
        levels=levels,
    )


_EXAMPLE = dict(event=(4,), sigma=0.5, hidden=6, steps=3, leapfrog=2)
EXAMPLES = (
    _EXAMPLE | dict(objective="ism", clean=True),
    _EXAMPLE | dict(net="net", objective="esm", layer="layer"),
    _EXAMPLE | dict(event=(2, 2, 1), levels=17),
)

"""CORRUPTIONS: the Markov chains of discrete diffusion, see categorical.py: uniform, absorbing, discretized Gaussian, nearest neighbours.

kind         what is stored             one-step matrix Q_i
uniform      alphabar [T + 1]           (1 - beta_i) I + beta_i 1 1^T / K: rank one beside I
absorbing    alphabar [T + 1]           (1 - beta_i) I + beta_i 1 e_m^T: rank one beside I
neighbours   U, r, c [T + 1]            U diag(e^((c_i - c_(i-1)) r)) U^T: one basis for all steps
gaussian     Qbar [T + 1, K, K]         rows by their formula; the matrices do not commute
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from vaeflow.build import Bare, Count, Decay
from vaeflow.diffusion.categorical import Chain, Corruption, log_of
from vaeflow.diffusion.noise_schedules import NoiseSchedule, cosine, linear, mutual_information
from vaeflow.errors import UserError
from vaeflow.model import Array
from vaeflow.record import recorded

_EXAMPLES = 2000  # from which frequencies of categories are counted
_EXPONENTS = np.geomspace(1e-4, 1e5, 128)  # between which the mutual information is interpolated, as in the authors' program


def alphabars(schedule: NoiseSchedule, steps: int, times: np.ndarray, last: float | None) -> np.ndarray:
    """alphabar at these times, float64; `last` replaces that of the last one."""
    if steps:
        left = np.concatenate([[1.0], np.cumprod(1 - schedule.betas(steps))])[times]
    else:
        assert schedule.alphabar is not None
        with jax.ensure_compile_time_eval():
            left = np.asarray(schedule.alphabar(jnp.asarray(times)), np.float64)
    return left if last is None else np.append(left[:-1], last)


def rank_one(left: Array, prior: Array, mask: int | None = None) -> Chain:
    """Qbar_i = left_i I + (1 - left_i) 1 prior^T, left [N + 1]: no matrices are needed.

    mask: the state that is absorbing; its `remask` is the posterior of Wang et al. 2025 (ReMDM, arXiv 2503.00307): of x_i with mask and
    a = alphabar, a_(i-1) - (1 - v) a_i over 1 - a_i is unmasked, and of the others a share v = eta min(1, (1 - a_(i-1)) / a_i) masked
    again; the distribution of x_(i-1) given x_0 is the same for every eta in [0, 1].
    """
    size = len(prior)

    def mixed(keep, x):
        return keep * jax.nn.one_hot(x, size, dtype=prior.dtype) + (1 - keep) * prior[x][..., None]

    def ratio(i):
        return left[i] / jnp.maximum(left[i - 1], 1e-30)

    def remask(w, x, i, eta):
        a, b = left[i], left[i - 1]
        v = eta * jnp.minimum(1, (1 - b) / jnp.maximum(a, 1e-30))
        masked = (x == mask)[..., None]
        shown = jnp.where(masked, (b - (1 - v) * a) / (1 - a), 1 - v)
        data = jnp.where(masked, w / jnp.sum(w, -1, keepdims=True), jax.nn.one_hot(x, size, dtype=w.dtype))
        return shown * data + (1 - shown) * prior

    return Chain(
        marginal=lambda p, i: left[i] * p + (1 - left[i]) * jnp.sum(p, -1, keepdims=True) * prior,
        step=lambda x, i: mixed(ratio(i), x),
        from_data=lambda x, i: mixed(left[i], x),
        prior=prior,
        remask=None if mask is None else remask,
    )


def _float(a: Any) -> Array:
    return jnp.asarray(a, jnp.result_type(float))


def flat_prior(levels: int) -> np.ndarray:
    """The uniform distribution of K states."""
    return np.full(levels, 1 / levels)


@recorded
def uniform(*, schedule: Annotated[NoiseSchedule | None, Bare("cosine")] = None) -> Corruption:
    """Q_i = (1 - beta_i) I + beta_i 1 1^T / K: any category is as likely (Hoogeboom et al. 2021, arXiv 2102.05379)."""
    noise = schedule or cosine()

    def init(x, levels, steps):
        if not (noise.information and steps):
            return {}

        def matrix(c):
            return jnp.exp(-c) * jnp.eye(levels) - jnp.expm1(-c) / levels

        return {"exponents": information_exponents(matrix, frequencies(x, levels), steps)}

    def chain(params, levels, steps, times):
        left = jnp.exp(-params["exponents"][times]) if "exponents" in params else _float(alphabars(noise, steps, times, None))
        return rank_one(left, _float(flat_prior(levels)))

    return Corruption(init, chain, flat_prior, noise.alphabar, _EXAMPLES if noise.information else 0)


@recorded
def absorbing(
    *, state: Literal["mask", "middle"] = "mask", schedule: Annotated[NoiseSchedule | None, Bare("mutual_information")] = None
) -> Corruption:
    """Q_i = (1 - beta_i) I + beta_i 1 e_m^T: a category stays as it is or becomes m for good. All are m at the end: alphabar_T = 0.

    Args:
        state: m is a `mask` of its own, S = K + 1, or the `middle` category, K // 2: the grey of Austin et al. 2021 on images.
        schedule: None: mutual_information, alphabar(t) = 1 - t.
    """
    noise = schedule or mutual_information()

    def prior(levels):
        return np.eye(levels + 1)[levels] if state == "mask" else np.eye(levels)[levels // 2]

    def chain(params, levels, steps, times):
        del params
        mask = levels if state == "mask" else None
        return rank_one(_float(alphabars(noise, steps, times, 0.0)), _float(prior(levels)), mask)

    return Corruption(lambda x, levels, steps: {}, chain, prior, noise.alphabar)


@recorded
def gaussian(*, schedule: Annotated[NoiseSchedule | None, Bare("linear")] = None) -> Corruption:
    """[Q_i]_kl is proportional to exp(-4 (k - l)^2 / ((K - 1)^2 beta_i)), k != l, its sum over all l from 1 - K to K - 1 being 1; the
    diagonal makes rows sum to 1. Symmetric, so that the stationary distribution is uniform (Austin et al. 2021, appendix A.2.3).

    These matrices do not commute: Qbar [T + 1, K, K] are constants of the run, of float32; the one-step matrices are computed by rows.
    """
    noise = schedule or linear()
    if noise.information:
        raise UserError("gaussian: schedule='mutual_information' is invalid, as its beta is a width; known: linear, cosine")

    def entries(x, beta, levels):
        """The row x [...] of the one-step matrix [..., K]."""
        scale = 4 / ((levels - 1) ** 2 * beta)
        total = 1 + 2 * jnp.sum(jnp.exp(-scale * jnp.arange(1, levels) ** 2))
        distance = jnp.arange(levels) - x[..., None]
        off = jnp.where(distance == 0, 0, jnp.exp(-scale * distance**2) / total)
        return off + jnp.where(distance == 0, 1 - jnp.sum(off, -1, keepdims=True), 0)

    def betas(steps):
        return _float(noise.betas(steps))

    def matrix(beta, levels):
        return entries(jnp.arange(levels), beta, levels)

    def init(x, levels, steps):
        del x
        first = jnp.eye(levels)

        def multiply(product, beta):
            product = jnp.dot(product, matrix(beta, levels), precision="highest")
            product = product / jnp.sum(product, -1, keepdims=True)
            return product, product

        return {"products": jnp.concatenate([first[None], jax.lax.scan(multiply, first, betas(steps))[1]])}

    def chain(params, levels, steps, times):
        products = params["products"][times]
        if len(times) == steps + 1:
            between = None
        else:  # the products of the steps between two times

            def multiply(product, now):
                beta, new = now
                own = matrix(beta, levels)
                product = jnp.where(new, own, jnp.dot(product, own, precision="highest"))
                return product, product

            new = np.isin(np.arange(steps), times[:-1])
            between = jax.lax.scan(multiply, jnp.eye(levels), (betas(steps), jnp.asarray(new)))[1][times[1:] - 1]

        def step(x, i):
            return entries(x, betas(steps)[i - 1], levels) if between is None else between[i - 1].T[x]

        return Chain(
            marginal=lambda p, i: jnp.dot(p, products[i], precision="highest"),
            step=step,
            from_data=lambda x, i: products[i].T[x],
            prior=_float(flat_prior(levels)),
        )

    return Corruption(init, chain, flat_prior)


@recorded
def neighbours(
    *, k: Count = 3, anywhere: Decay = 0.01, schedule: Annotated[NoiseSchedule | None, Bare("mutual_information")] = None
) -> Corruption:
    """Qbar_i = exp(c_i R): categories jump to near ones (Austin et al. 2021, appendix A.2.4). With G_ab = 1 where b is one of the k
    nearest of a, R = A - diag(row sums of A), A = (G + G^T) / 2k, whose rows and columns sum to 0, so that the stationary distribution is
    uniform.

    A category's place is the distribution of the categories before and after it in the first batch, as square roots (Hellinger's
    distance), an event's entries in their order; the paper has embeddings of a language model. By R = U diag(r) U^T no matrix is stored
    per step: S^2 + T numbers instead of S^2 T.

    Args:
        k: neighbours of a category, fewer than K.
        anywhere: share of the jumps that lead to any category, so that the graph is connected. Not in the paper.
        schedule: None: mutual_information, by the frequencies of the first batch. c_i is -log alphabar_i of the others.
    """
    noise = schedule or mutual_information()

    def prior(levels):
        if k >= levels:
            raise UserError(f"neighbours: k={k} must be below the number of categories, {levels}")
        return flat_prior(levels)

    def init(x, levels, steps):
        places = jnp.sqrt(transitions(x, levels))
        distance = jnp.sum(jnp.square(places[:, None] - places), -1)
        distance = jnp.where(jnp.eye(levels, dtype=bool), jnp.inf, distance)
        near = jnp.sum(jax.nn.one_hot(jax.lax.top_k(-distance, k)[1], levels), 1)
        rates = (1 - anywhere) * (near + near.T) / (2 * k) + anywhere / levels
        r, u = jnp.linalg.eigh(rates - jnp.diag(jnp.sum(rates, 1)))
        r = jnp.minimum(r, 0).at[-1].set(0)
        if noise.information:

            def matrix(c):
                return jnp.dot(u * jnp.exp(c * r), u.T, precision="highest")

            exponents = information_exponents(matrix, frequencies(x, levels), steps)
        else:
            exponents = -jnp.log(_float(np.maximum(alphabars(noise, steps, np.arange(steps + 1), None), 1e-30)))
        return {"basis": u, "rates": r, "exponents": exponents}

    def chain(params, levels, steps, times):
        del steps
        u, r, c = params["basis"], params["rates"], params["exponents"][times]

        def moved(p, amount):
            return jnp.maximum(jnp.dot(jnp.dot(p, u, precision="highest") * jnp.exp(amount * r), u.T, precision="highest"), 0)

        def one_hot(x):
            return jax.nn.one_hot(x, levels, dtype=u.dtype)

        return Chain(
            marginal=lambda p, i: moved(p, c[i]),
            step=lambda x, i: moved(one_hot(x), c[i] - c[i - 1]),
            from_data=lambda x, i: moved(one_hot(x), c[i]),
            prior=_float(prior(levels)),
        )

    return Corruption(init, chain, prior, examples=_EXAMPLES)


def frequencies(x: Array, levels: int) -> Array:
    """How often each category occurs [K], in shares."""
    counts = jnp.zeros(levels).at[jnp.ravel(x)].add(1)
    return counts / jnp.sum(counts)


def transitions(x: Array, levels: int) -> Array:
    """The distributions of the categories after and before each one [K, 2 K], entries of an event in their order."""
    flat = jnp.reshape(x, (len(x), -1)).astype(jnp.int32)
    counts = jnp.zeros((levels, levels)).at[flat[:, :-1], flat[:, 1:]].add(1) + 1 / levels
    return jnp.concatenate([a / jnp.sum(a, 1, keepdims=True) for a in (counts, counts.T)], 1)


def information_exponents(matrix: Callable[[Array], Array], p: Array, steps: int) -> Array:
    """c_0 = 0 < c_1 < ... < c_T [T + 1] such that I(x_i; x_0) = (1 - i / T) H(x_0), where x_0 ~ p [K]. matrix: c [] -> Qbar [K, K]."""

    def information(c):
        q = jnp.maximum(matrix(c), 0)
        return jnp.sum(p[:, None] * q * (log_of(q) - log_of(p @ q)))

    grid = _float(_EXPONENTS)
    lost = 1 - jax.lax.map(information, grid) / -jnp.sum(p * log_of(p))
    lost = jax.lax.cummax(lost)
    middle = jnp.interp(jnp.arange(1, steps) / steps, lost, jnp.log(grid))
    return jnp.concatenate([jnp.zeros(1), jnp.exp(middle), grid[-1:]])


CORRUPTIONS: dict[str, Callable[..., Corruption]] = {
    "uniform": uniform,
    "absorbing": absorbing,
    "gaussian": gaussian,
    "neighbours": neighbours,
}

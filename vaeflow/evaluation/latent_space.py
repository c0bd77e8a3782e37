"""A latent space as arrays: draws of the aggregate posterior and of the prior, and what each dimension carries.

D: the numbers in z, as one vector whatever its event's shape; N examples, n draws of each, M = N n. A continuous latent has D variables.
A discrete one has V = D / w variables, each of w numbers: w = 1 for bits and integer codes, C for flattened one-hot vectors.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from vaeflow.data import Split
from vaeflow.evaluation import elbo
from vaeflow.evaluation.map_split import gather, map_split
from vaeflow.model import Array, Batch, Model, Params

# Draws of the aggregate posterior and of the prior, at the least.
DRAWS = 5000


class Space(NamedTuple):
    """What a split says of a model's latent space.

    z             [M, D], draws of q(z|x), equally many of every example: the aggregate posterior
    prior         [M, D], draws of p(z), with the examples' contexts
    normal        (mean, standard deviation), both [D], of a prior that is one diagonal Gaussian, else None
    variance      Var_x E_q[z], [D], by which units are active; None for integer codes
    kl            KL(q||p), the mean over the examples in nats; kl_per_dim [D] between diagonal Gaussians, kl_per_level [L] of a hierarchy
    sizes         of a hierarchy's levels in z; (D,) for one level
    width         the numbers of a discrete variable; 0: z is continuous
    shape         of z as the likelihood takes it
    """

    z: np.ndarray
    prior: np.ndarray
    normal: tuple[np.ndarray, np.ndarray] | None
    variance: np.ndarray | None
    kl: float
    kl_per_dim: np.ndarray | None
    kl_per_level: np.ndarray | None
    sizes: tuple[int, ...]
    width: int
    shape: tuple[int, ...]


def space(model: Model, params: Params, split: Split, key: Array, **options: Any) -> Space:
    """One pass over the split; options: those of `map_split.map_split`."""
    assert model.latent is not None
    latent, draws = model.latent, -(-DRAWS // len(split.x))
    terms, means = elbo.elbo_terms(model), elbo.posterior_means(model)
    one = {name: np.asarray(a[:1]) for name, a in (("x", split.x), ("context", split.context)) if a is not None}

    def drawn(params: Params, batch: Batch, key: Array) -> Array:
        return latent.posterior(params, batch["x"], batch.get("context")).sample(seed=key)

    event = jax.eval_shape(drawn, params, one, key)
    codes = not np.issubdtype(event.dtype, np.inexact)

    def fn(params, key, batch):
        keys = jax.random.split(key, 4)
        q, p = latent.posterior(params, batch["x"], batch.get("context")), latent.prior(params, batch.get("context"))
        out = terms(params, keys[0], batch) | ({} if codes else means(params, keys[1], batch))
        for name, d, own in (("z", q, keys[2]), ("prior", p, keys[3])):
            out[name] = d.sample(seed=own, sample_shape=draws).reshape(draws, -1)
        if (known := elbo.gaussian(p)) is not None:
            out |= {"mean": known[0].ravel(), "std": known[1].ravel()}
        return out

    found = gather(map_split(fn, split, key, draws=2 * draws, **options)(params))
    z, prior = (found[name].reshape(-1, found[name].shape[-1]) for name in ("z", "prior"))
    average = {name: found[name].mean(0, dtype=np.float64) for name in ("kl", "kl_per_dim", "kl_per_level") if name in found}
    normal = None
    if "mean" in found and all((found[name] == found[name][:1]).all() for name in ("mean", "std")):
        normal = found["mean"][0], found["std"][0]
    return Space(
        z=z,
        prior=prior,
        normal=normal,
        variance=None if codes else _covariance(found["a"], found["b"]),
        kl=float(average["kl"]),
        kl_per_dim=average.get("kl_per_dim"),
        kl_per_level=average.get("kl_per_level"),
        sizes=elbo.level_sizes(model, params, one) if "kl_per_level" in found else (z.shape[1],),
        width=_width(z),
        shape=event.shape[1:],
    )


def _covariance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cov(a_d, b_d) over the rows of [N, D], in float64."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return ((a - a.mean(0)) * (b - b.mean(0))).sum(0) / max(len(a) - 1, 1)


def _width(z: np.ndarray) -> int:
    """The numbers of a discrete variable, from draws [M, D]: C where all blocks of C numbers are one-hot; 0 for continuous draws."""
    if not np.array_equal(z, np.round(z)):
        return 0
    size = z.shape[1]
    if z.min() < 0 or z.max() > 1:
        return 1
    return next((c for c in range(2, size + 1) if size % c == 0 and (z.reshape(len(z), -1, c).sum(-1) == 1).all()), 1)


def categories(space: Space, z: np.ndarray) -> np.ndarray:
    """Draws [M, D] of a discrete latent as category numbers [M, V]."""
    if space.width < 2:
        return z.astype(int)
    return z.reshape(len(z), -1, space.width).argmax(-1)


def activity(space: Space) -> tuple[np.ndarray, str]:
    """(what each variable carries [V], what that is): its KL where it has one, else the variance of its posterior means (summed over a
    one-hot vector), else the entropy of its codes."""
    if space.kl_per_dim is not None:
        return space.kl_per_dim, "KL [nats]"
    if space.variance is not None:
        return space.variance.reshape(-1, max(space.width, 1)).sum(-1), "Var$_x$ E[z|x]"
    return np.array([_entropy(column) for column in categories(space, space.z).T]), "entropy [nats]"


def _entropy(codes: np.ndarray) -> float:
    """Of the codes' frequencies, in nats."""
    share = np.unique(codes, return_counts=True)[1] / len(codes)
    return float(-(share * np.log(share)).sum())


def most_active(space: Space, count: int) -> np.ndarray:
    """About `count` variables that carry the most, each level's own (at least one of each), the first level first."""
    carried = activity(space)[0]
    ends = np.cumsum(space.sizes) // max(space.width, 1)
    blocks = np.split(np.arange(len(carried)), ends[:-1]) if len(ends) <= count else [np.arange(len(carried))]
    return np.concatenate([block[np.argsort(-carried[block], kind="stable")][: max(count // len(blocks), 1)] for block in blocks])


def names(space: Space, variables: np.ndarray) -> list[str]:
    """$z_3$, or of a hierarchy $z_{2,3}$: the third number of the second level. Counted from 1."""
    if len(space.sizes) == 1 or max(space.sizes) == 1:
        return [f"$z_{{{v + 1}}}$" for v in variables]
    starts = np.cumsum((0, *space.sizes[:-1]))
    level = np.searchsorted(starts, variables, side="right") - 1
    return [f"$z_{{{l + 1},{v - starts[l] + 1}}}$" for v, l in zip(variables, level, strict=True)]


def mismatch(one: np.ndarray, other: np.ndarray, discrete: bool = False) -> np.ndarray:
    """How far the marginals of draws [M, D], equally many, are apart, [D]: the Wasserstein-1 distance, mean |sorted - sorted|, in units of
    z; of categories, which have no order, the total variation 1/2 sum_c |p(c) - q(c)|."""
    if not discrete:
        return np.abs(np.sort(one, 0).astype(np.float64) - np.sort(other, 0)).mean(0)
    kinds = np.unique([one, other])
    return 0.5 * np.sum([np.abs((one == kind).mean(0) - (other == kind).mean(0)) for kind in kinds], axis=0)


def moments(space: Space) -> tuple[np.ndarray, np.ndarray]:
    """(mean, standard deviation) [D] of the prior, exact for a Gaussian, else of its draws."""
    return space.normal if space.normal is not None else (space.prior.mean(0), space.prior.std(0))

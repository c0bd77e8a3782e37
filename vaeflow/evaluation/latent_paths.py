"""Ways through a latent space (latent_space.py), to it and back: one variable at a time, straight lines, great circles."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from vaeflow.data import Split
from vaeflow.evaluation import elbo, latent_space
from vaeflow.evaluation.map_split import gather, map_split
from vaeflow.model import Array, Model, Params


class Sweep(NamedTuple):
    """Latents [R, C, D] with one variable set to C values in each row and the others held; `names` of the values [C]; `own` [R], the column
    nearest to the variable's own value, -1 for none."""

    z: np.ndarray
    names: list[str]
    own: np.ndarray


def sweep(space: latent_space.Space, z: np.ndarray, variables: np.ndarray, deviations: np.ndarray) -> Sweep:
    """z [D] with each of the variables [R] at the prior's mean + deviations [C] of its standard deviations; a discrete one at each of its
    categories, of integer codes the C that are the most frequent."""
    width = max(space.width, 1)
    if space.width > 1:
        numbers = np.arange(width)
    elif space.width:
        found, counts = np.unique(space.z, return_counts=True)
        numbers = np.sort(found[np.argsort(-counts, kind="stable")[: len(deviations)]])
    else:
        numbers = deviations
    if space.width:
        category = np.eye(width, dtype=z.dtype) if space.width > 1 else numbers[:, None]
        values = np.broadcast_to(category, (len(variables), *category.shape))
        same = latent_space.categories(space, z[None])[0, variables][:, None] == numbers
        own = np.where(same.any(1), same.argmax(1), -1)
    else:
        mean, std = (a[variables] for a in latent_space.moments(space))
        values = (mean[:, None] + std[:, None] * deviations)[..., None]
        own = np.abs(values[..., 0] - z[variables][:, None]).argmin(1)
    names = [f"{number:g}" for number in numbers]
    return Sweep(traverse(z, variables[:, None] * width + np.arange(width), values), names, own)


def traverse(z: np.ndarray, coordinates: np.ndarray, values: np.ndarray) -> np.ndarray:
    """z [D] with some numbers set and the others held: coordinates [R, w], values [R, C, w] -> [R, C, D]."""
    out = np.tile(z, (*values.shape[:2], 1))
    for row, where, what in zip(out, coordinates, values, strict=True):
        row[:, where] = what
    return out


def lerp(a: np.ndarray, b: np.ndarray, t: np.ndarray) -> np.ndarray:
    """The straight line (1 - t) a + t b: a, b [D], t [T] -> [T, D]."""
    return (1 - t)[:, None] * a + t[:, None] * b


def slerp(a: np.ndarray, b: np.ndarray, t: np.ndarray) -> np.ndarray:
    """The arc of the great circle between the directions of a and b (Shoemake 1985), with norms between theirs: a, b [D], t [T] -> [T, D].

        r(t) (sin((1 - t) w) a/|a| + sin(t w) b/|b|) / sin w,      w the angle between a and b,  r(t) = (1 - t) |a| + t |b|

    Draws of N(0, I) in many dimensions lie near a sphere, which a straight line leaves and this does not (White 2016). Where a and b are
    parallel, opposite or zero, there is no one great circle, and it is the straight line.
    """
    a, b, t = (np.asarray(v, np.float64) for v in (a, b, t))
    r_a, r_b = (np.sqrt((v**2).sum(keepdims=True)) for v in (a, b))
    if min(r_a, r_b) == 0:
        return lerp(a, b, t)
    u, v = a / r_a, b / r_b
    # Exact for small angles too, where the arc cosine of a product has lost them.
    angle = 2 * np.arctan2(np.linalg.norm(u - v), np.linalg.norm(u + v))
    if np.sin(angle) < 1e-6:
        return lerp(a, b, t)
    direction = (np.sin((1 - t) * angle)[:, None] * u + np.sin(t * angle)[:, None] * v) / np.sin(angle)
    return lerp(r_a, r_b, t) * direction


def encode(model: Model, params: Params, split: Split, key: Array, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """(x [N, *event] as the model sees it, z [N, D]): the posterior's mean, or a draw where that has no formula."""
    assert model.latent is not None
    posterior = model.latent.posterior

    def fn(params, key, batch):
        q = posterior(params, batch["x"], batch.get("context"))
        known = elbo.gaussian(q)
        return {"x": batch["x"][0], "z": (q.sample(seed=key) if known is None else known[0]).ravel()}

    found = gather(map_split(fn, split, key, **options)(params))
    return found["x"], found["z"]


def decode(model: Model, params: Params, space: latent_space.Space, z: np.ndarray, context: np.ndarray | None) -> np.ndarray:
    """The means of p(x|z): z [*rows, D], context [*rows, C] -> [*rows, *event]."""
    assert model.latent is not None
    likelihood, rows = model.latent.likelihood, z.shape[:-1]
    flat = z.reshape(-1, *space.shape).astype(space.z.dtype)
    given = None if context is None else context.reshape(-1, context.shape[-1])
    mean = jax.jit(lambda params, z, context: likelihood(params, z, context).mean())(params, flat, given)
    return np.asarray(mean).reshape(*rows, *mean.shape[1:])

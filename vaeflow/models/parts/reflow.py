"""Reflow: pairs (x, e) of a trained model's ODE, on which the next model is trained in place of (data, noise).

    e ~ N(0, I), or an x0 of the data for a `paired` model;   x = the end of the teacher's ODE from spread(t_max) e, or from x0

The ODE is solved from t_max to t_min by fixed steps of rk4, equal in t, and ends with the data predicted there (Tweedie's formula). It runs
in the teacher's coordinates, which are the student's too: both transport the same source to the same x, so that their straightness and
transport cost are comparable. A pool of pairs is made once, by `init`, and stored as parameters:

    fixed/pairs/x [P, *shape],  seed: e_i is drawn again from fold_in(seed, i),  x0 [P, *shape]: e of a paired model,  context [P, C]

Pair i belongs to example i mod N of the N examples that `init` sees. A step draws pairs from the pool at random; its batch gives their
number alone. Evaluation, and training with an empty pool, solve the ODE anew: with the batch's contexts and x0, and noise of their own.

Reference: Liu et al. 2023 (arXiv 2209.03003). The authors' 2-D notebook makes 10,000 pairs by 100 Euler steps and starts the second model
from the first; their CIFAR-10 configs make the pairs by RK45 and keep them on disk, or solve anew in each step ("online").
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vaeflow.diffusion.ode import solve
from vaeflow.model import NO_PARAMS, Array, Batch, Frozen, Params, merge_params
from vaeflow.models.parts.continuous_time import Coordinates, coordinates_of_teacher

_AT_ONCE = 1024  # trajectories


class Pairs(NamedTuple):
    """params: the whole tree of the student.

    space  the student's coordinates
    init   (key, batch, given) -> the teacher's parameters and the pool
    draw   (params, key, batch) -> (x [B, *shape], e [B, *shape], context [B, C] or None) of the pool
    fresh  the same of B new trajectories
    """

    space: Coordinates
    init: Callable[[Array, Batch, Params], Params]
    draw: Callable[[Params, Array, Batch], tuple[Array, Array, Array | None]]
    fresh: Callable[[Params, Array, Batch], tuple[Array, Array, Array | None]]


def reflow(
    teacher: Frozen,
    event: tuple[int, ...],
    levels: int,
    paired: bool,
    count: int,
    steps: int,
) -> Pairs:
    """See the module's docstring.

    Args:
        teacher: a run of a continuous-time model of the same event, levels and source; also one that was trained like this.
        event, levels, paired: of the student.
        count: P, the size of the pool; 0: there is none, and `draw` is `fresh`.
        steps: of rk4, four evaluations each.

    Raises:
        UserError: the teacher is trained on, has no ODE or other data.
    """
    space, dynamics = coordinates_of_teacher(teacher, event, levels, paired)
    shape = space.shape

    def source(params, key, row) -> Array:
        """e [*shape]; row: an example's leaves."""
        if not paired:
            return jax.random.normal(key, shape)
        return space.pull(params, space.dequantize(key, row["x0"][None])[0])[0][0]

    def transported(params, e, row) -> Array:
        """x [*shape] of e [*shape]."""
        mine, c = teacher.of(params), row.get("context")
        start = e if paired else dynamics.spread(dynamics.t_max).astype(e.dtype) * e
        end, _ = solve(dynamics.velocity(mine, c), start, dynamics.t_max, dynamics.t_min, solver="rk4", steps=steps)
        t = jnp.asarray(dynamics.t_min, e.dtype)
        if dynamics.predictor is None:
            return end - t * dynamics.velocity(mine, c)(t, end)
        return dynamics.predictor(mine, c)(end, t).data.astype(e.dtype)

    def rows_of(batch):
        return {name: batch[name] for name in (("x0", "context") if paired else ("context",)) if name in batch}

    def init(key, batch, given):
        key_teacher, key_pool = jax.random.split(key)
        params = teacher.init(key_teacher, batch, given)
        if not count:
            return params
        rows, n, seed = rows_of(batch), len(batch["x"]), jax.random.key_data(key_pool)

        def one(i):
            row = {name: value[i % n] for name, value in rows.items()}
            e = source(params, _key_of(seed, i), row)
            return {"x": transported(params, e, row)} | ({"x0": e} if paired else {})

        pool = jax.lax.map(one, jnp.arange(count), batch_size=min(_AT_ONCE, count))
        pool |= {} if paired else {"seed": seed}
        pool |= {"context": rows["context"][jnp.arange(count) % n]} if "context" in rows else {}
        return merge_params(params, {"fixed": {"pairs": pool}})

    def draw(params, key, batch):
        pool, i = params.get("fixed", NO_PARAMS)["pairs"], jax.random.randint(key, (len(batch["x"]),), 0, count)
        e = pool["x0"][i] if paired else jax.vmap(lambda i: jax.random.normal(_key_of(pool["seed"], i), shape))(i)
        return pool["x"][i], e, pool["context"][i] if "context" in pool else None

    def fresh(params, key, batch):
        rows = rows_of(batch)

        def one(key, row):
            e = source(params, key, row)
            return transported(params, e, row), e

        x, e = jax.vmap(one)(jax.random.split(key, len(batch["x"])), rows)
        return x, e, rows.get("context")

    return Pairs(space, init, draw if count else fresh, fresh)


def _key_of(seed: Array, i: Array) -> Array:
    """The key of pair i's noise."""
    return jax.random.fold_in(jax.random.wrap_key_data(seed), i)

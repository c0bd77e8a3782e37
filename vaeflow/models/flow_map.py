"""Flow maps, one- and few-step models: consistency models, MeanFlow, shortcut models and distilled ones, as configs of one family.

    X(x, t, r) = x - (t - r) u(x, t, r), the solution at r <= t of the probability-flow ODE that is at x at t; x_1 -> X(x_1, 1, t_min)
    loss = E loss(u(x_t, t, r) - target),    u = p x + q F, F a network                  (diffusion/flow_map.py, diffusion/map_form.py)

    consistency distillation    target heun or euler, intervals points, teacher, form edm or linear, loss data_square, ema 0.95
    consistency training        target pair, intervals points with count a `root` schedule, ema `root_decay`, path and form edm,
                                precondition; improved: count `doubling`, times log_normal, loss pseudo_huber, ema 0
    continuous consistency      target jvp, intervals to_data, path cosine, form trigonometric; sCD with a teacher, else sCT
    MeanFlow                    target jvp, intervals ordered
    shortcut model              target halves, intervals binary, ema 0.999
    distillation to k steps     target distilled, intervals equal with k steps, teacher

Maps to the data alone (intervals to_data, points) have r = t_min in every evaluation, and more than one step of them is multistep
consistency sampling, with noise between the steps; all others are composed, without noise. With `edit` every map is sampled the first way:
after each evaluation the known coordinates of the data are put in (zero-shot editing, algorithm 4 of Song et al. 2023).

References: Song et al. 2023 (arXiv 2303.01469); Song and Dhariwal 2024 (2310.14189); Geng et al. 2025 (2505.13447); Frans et al. 2025
(2410.12557); Lu and Song 2025 (2410.11081); Boffi et al. 2024 (2406.07507).
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

import jax
import jax.numpy as jnp

from vaeflow.bijectors import Layer
from vaeflow.build import SAMPLING, Bare, Count, Decay, Natural, NonNegative, Positive
from vaeflow.diffusion import Edit, MapForm, MapLoss, MapTarget, ProbabilityPath, TimeCoordinate
from vaeflow.diffusion.edits import replaced
from vaeflow.diffusion.flow_map import Pair, compose, jvp, map_loss, multistep, square
from vaeflow.diffusion.kinds import input_scale, noise_level
from vaeflow.diffusion.map_form import linear
from vaeflow.diffusion.ode import solve
from vaeflow.diffusion.path import mix, ot
from vaeflow.diffusion.times import grid as grid_of
from vaeflow.diffusion.times import uniform
from vaeflow.errors import UserError
from vaeflow.model import NO_PARAMS, Dynamics, Frozen, Model, merge_params, overlay
from vaeflow.models.parts.continuous_time import coordinates, coordinates_of_teacher, editing, features, spread_of
from vaeflow.models.parts.density import fits
from vaeflow.models.parts.intervals import Intervals, ordered
from vaeflow.nets import Embedding, Net
from vaeflow.nets.embedding import fourier
from vaeflow.objectives import Schedule, scheduled
from vaeflow.record import recorded


@recorded
def flow_map(
    *,
    event: tuple[Count, ...],
    levels: Natural = 0,
    net: Net,
    target: Annotated[MapTarget | None, Bare("jvp")] = None,
    intervals: Annotated[Intervals | None, Bare("ordered")] = None,
    teacher: Frozen | None = None,
    path: ProbabilityPath | None = None,
    form: Annotated[MapForm | None, Bare("linear")] = None,
    loss: Annotated[MapLoss | None, Bare("square")] = None,
    times: Annotated[TimeCoordinate | None, Bare("uniform")] = None,
    ema: Schedule | Decay = 0.0,
    embedding: Annotated[Embedding | None, Bare("fourier")] = None,
    layer: Layer | None = None,
    flatten: bool = False,
    dequantize: Literal["auto", "none", "uniform"] = "auto",
    precondition: bool = False,
    sigma_data: Positive = 0.5,
    t_min: Decay = 0.0,
    steps: Annotated[Count, SAMPLING] = 1,
    grid: Annotated[TimeCoordinate | None, Bare("uniform"), SAMPLING] = None,
    temperature: Annotated[NonNegative, SAMPLING] = 1.0,
    edit: Annotated[Edit | None, SAMPLING] = None,
    encoder_steps: Annotated[Count, SAMPLING] = 50,
) -> Model:
    """See the module's docstring. Parameters: net, time (the embedding's), stats/net (the target's, with `ema`), fixed/layer or teacher.

    Args:
        event, levels: the shape of one example; number of its grey values, 0 for continuous data.
        net: F: x_t [B, *event] with the context (features of t and t - r, c) -> [B, *event]; of t alone where r is always t_min. Without
            its dropout. A target that differentiates in forward mode (jvp) needs one that can: mlp, dit, not the convolutions.
        target, loss, form: see diffusion/flow_map.py and diffusion/map_form.py.
        intervals: which (t, s, r) are trained, see models/parts/intervals.py; `times` is the density of t and r.
        teacher: a trained continuous-time model, of whose ODE this is the map. The student has its coordinates and its path, and so no
            layer, path, flatten, dequantize or t_min of its own.
        path: None: the linear one, `ot`.
        ema: decay of the target network, a moving average of `net`, at every step; 0: the target is of `net` itself.
        layer, flatten, dequantize, embedding: as of `diffusion`.
        precondition: the network reads x_t / r(t), and log(sigma) / 4 of t and r, as of `diffusion`.
        sigma_data: s_d, the standard deviation of f^-1(data): of the form edm, of `precondition`, and of the source where alpha(1) > 0.
            The form trigonometric does not read it: it assumes 1.
        t_min: where the map ends; > 0 on a path whose sigma or its derivative is not finite at 0, and with `precondition`.
        steps, grid: evaluations of the network, and their times from 1 to t_min; of the intervals `equal` those that they have.
        temperature: factor of the source's noise.
        edit: samples keep what is known of references, see diffusion/edits.py; more than one step suits them.
        encoder_steps: of Heun's method, in `encode`.

    Returns: `sample` gives {x, x0: the draw of the source, nfe}. There is no density, and a loss compares the network with its own target:
        `best` is chosen by a sample measure. `encode` solves the map's ODE from the data to the source: the teacher's, or that of
        u(x, t, t) where some examples have r = t; `dynamics` is that ODE; both are None where there is none.

    Example:
        model = flow_map(event=(2,), net=mlp(hidden=(128, 128, 128), activation="silu"), layer=actnorm(), sigma_data=1.0)
    """
    target, intervals, form, loss_of = target or jvp(), intervals or ordered(), form or linear(), loss or square()
    times, embedding, grid, decay = times or uniform(), embedding or fourier(), grid or uniform(), scheduled(ema)
    event, average = tuple(event), isinstance(ema, Schedule) or ema > 0
    _check(target, loss_of, intervals, teacher, steps)
    if teacher is None:
        curve: ProbabilityPath = path or ot()
        space, spread, low, high = coordinates(event, levels, layer, flatten, dequantize), spread_of(curve, sigma_data), t_min, 1.0
    else:
        own = dict(layer=layer, path=path, flatten=flatten, dequantize=dequantize != "auto", t_min=t_min)
        if given := [f"model.{name}" for name, value in own.items() if value]:
            raise UserError(f"{', '.join(given)} of a model with a teacher is the teacher's, and must not be given")
        space, ode = coordinates_of_teacher(teacher, event, levels)
        curve, spread, low, high = ode.path, ode.spread, ode.t_min, ode.t_max
    if curve.gamma is not None or curve.init is not None:
        raise UserError("a flow map requires a path without gamma, from Gaussian noise, which is not learned")
    if precondition and not low:
        raise UserError("model.precondition reads log(sigma), and so needs model.t_min > 0")
    if edit is not None and intervals.steps > 1:
        raise UserError("sample.edit maps to the data at every step, which a map of model.intervals=equal with more than one step does not")
    keeping = None if edit is None else editing(edit, "replacement", space, event, levels, False, sigma_data)
    rank = len(space.shape)
    network = net.module(space.shape, rank, False)

    def outputs(net, params, x, t, r, c):
        """u [..., *shape] of x [..., *shape], t, r [...], c [..., K] or None, with the network's parameters `net`."""

        def wide(a):
            return jnp.expand_dims(a, tuple(range(-rank, 0)))

        read = (noise_level(curve, t), noise_level(curve, r)) if precondition else (t, t - r)
        context = features(embedding, params["time"], read[: 1 if intervals.to_data else 2], c, None, False)
        scaled = x * wide(input_scale(curve, t, sigma_data)) if precondition else x
        p, q = form.of(curve, t, r, sigma_data) if t.ndim == 0 else jax.vmap(lambda t, r: form.of(curve, t, r, sigma_data))(t, r)
        return wide(p) * x + wide(q) * jnp.asarray(network.apply({"params": net}, scaled, context))

    def map_of(net, params, c):
        """The FlowMap of one example, given c [K] or None."""
        return lambda x, t, r: outputs(net, params, x, t, r, c)

    def velocity(params, c):
        """The (t, x) -> dx/dt of the ODE whose map this is: the teacher's, or that of u(x, t, t), if some examples have r = t."""
        if teacher is not None:
            return teacher.model.dynamics.velocity(teacher.of(params), c)  # type: ignore[union-attr]
        u = map_of(params["net"], params, c)
        return lambda t, x: u(x, t, t).astype(x.dtype)

    def init(key, batch, given=NO_PARAMS):
        fits(event, batch)
        key_u, key_layer, key_time, key_net, key_teacher = jax.random.split(key, 5)
        y, _ = space.dequantize(key_u, batch["x"])
        fixed = space.init(key_layer, y) if teacher is None else teacher.init(key_teacher, batch, given)
        params = overlay(merge_params({"time": embedding.init(key_time)}, fixed), given)
        x, c = space.pull(params, y)[0], batch.get("context")
        t = jnp.full(len(x), 0.5, x.dtype)
        read = (t,) if intervals.to_data else (t, t)
        params["net"] = network.init(key_net, x, features(embedding, params["time"], read, c, None, False))["params"]
        params = overlay(params, given)
        if target.forward:
            _differentiable(
                lambda x: network.apply({"params": params["net"]}, x, features(embedding, params["time"], read, c, None, False)), x
            )
        return overlay(params | {"stats": {"net": params["net"]}}, given) if average else params

    def errors(params, key, batch, step):
        """The loss [B] of one interval and one source draw an example."""
        k_u, k_t, k_e = jax.random.split(key, 3)
        x, c = space.pull(params, space.dequantize(k_u, batch["x"])[0])[0], batch.get("context")
        t, s, r = (a.astype(x.dtype) for a in intervals.draw(k_t, times, curve, len(x), low, high, step))
        e = jax.random.normal(k_e, x.shape, x.dtype)
        constant = jax.lax.stop_gradient(params)
        behind = constant["stats"]["net"] if average else constant["net"]

        def one(x, e, t, s, r, c):
            field = None if teacher is None else velocity(constant, c)
            return target.of(map_of(behind, constant, c), curve, Pair(x, e, t, s, r, field))

        want = jax.vmap(one)(x, e, t, s, r, c)
        out = outputs(params["net"], params, jax.vmap(mix, (None, 0, 0, 0))(curve, t, x, e), t, r, c)
        return jax.vmap(map_loss, (None, None, 0, 0, 0))(loss_of, curve, Pair(x, e, t, s, r), out, want)

    def total(params, key, batch, step):
        mean = jnp.mean(errors(params, key, batch, step))
        return mean, {"loss": mean}

    def update(params, key, batch, step):
        """The target network after a step: decay times itself + (1 - decay) times the network."""
        del key, batch
        mu = decay.at(step)
        moved = jax.tree.map(lambda a, b: (mu * a + (1 - mu) * b).astype(a.dtype), params["stats"]["net"], params["net"])
        return params | {"stats": {"net": moved}}

    def sample(params, key, n, context=None, reference=None):
        key_e, key_walk = jax.random.split(key)
        e = temperature * spread(high) * jax.random.normal(key_e, (n, *space.shape))
        visited = grid_of(grid, curve, steps, low, high)
        kept = keeping and keeping.read(params, reference)

        def one(key, e, c, kept):
            u = map_of(params["net"], params, c)
            if keeping:
                return multistep(u, curve, key, e, visited, partial(replaced, keeping.known, x=kept))
            return multistep(u, curve, key, e, visited) if intervals.to_data else compose(u, e, visited)

        x = jax.vmap(one)(jax.random.split(key_walk, n), e, context, kept)
        found = {"x": space.push(params, x), "x0": e.reshape(n, *event), "nfe": jnp.full(n, steps)}
        return found | {"known": keeping.shown(params, kept)} if keeping else found

    def encode(params, key, batch):
        x, _ = space.pull(params, space.dequantize(key, batch["x"])[0])

        def one(x, c):
            return solve(velocity(params, c), x, low, high, solver="heun", steps=encoder_steps)[0]

        return jax.vmap(one)(x, batch.get("context"))

    known = teacher is not None or intervals.velocity
    return Model(
        init=init,
        loss=total,
        sample=sample,
        log_prob=None,
        density="none",
        encode=encode if known else None,
        update=update if average else None,
        event=event,
        levels=levels,
        edits=keeping is not None,
        dynamics=Dynamics(space.pull, space.push, velocity, curve, spread, low, high, space.shape) if known else None,
    )


def _check(target: MapTarget, loss: MapLoss, intervals: Intervals, teacher: Frozen | None, steps: int) -> None:
    """UserError: the target does not read what there is, or the intervals do not fit the target, the loss or the sampler."""
    if target.velocity and not intervals.velocity:
        raise UserError("model.target=halves needs model.intervals with r = t in a share of the examples: binary or ordered, equal > 0")
    if loss.apart and intervals.velocity:
        raise UserError("model.loss=pseudo_huber divides by sigma(t) - sigma(s), which is 0 where model.intervals have r = t")
    if intervals.steps and steps != intervals.steps:
        raise UserError(f"sample.steps={steps} must be {intervals.steps}, the model.intervals.steps that the map is trained for")
    if target.reads == "field" and teacher is None:
        raise UserError("model.target is one of distillation, and needs model.teacher, the workdir of a trained continuous-time model")
    if target.reads == "data" and teacher is not None:
        raise UserError("model.target=pair is consistency training, which reads no teacher; with model.teacher it must be euler or heun")


def _differentiable(network, x) -> None:
    """UserError: the network has no forward mode (vaeflow/nets/convolve.py has none), which JAX says only while it compiles."""
    if "custom_vjp_call" in str(jax.make_jaxpr(network)(x)):
        raise UserError(
            "model.target=jvp differentiates the network in forward mode, which convolutions do not have here; model.net must be an mlp "
            "or a dit, or the target pair, euler, heun, halves or distilled"
        )


_EXAMPLE = dict(event=(4,), net="net", steps=2, encoder_steps=2)
EXAMPLES = (
    _EXAMPLE,
    _EXAMPLE
    | dict(target="pair", intervals="points_rising", path="edm", form="edm", loss="pseudo_huber", times="rho", ema="target_decay")
    | dict(precondition=True, t_min=0.01, layer="layer"),
    _EXAMPLE | dict(target="heun", intervals="points", teacher="frozen_diffusion", loss="data_square", ema=0.95),
    _EXAMPLE | dict(event=(2, 2, 1), levels=17, flatten=True, target="halves", intervals="binary"),
)

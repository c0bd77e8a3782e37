"""Continuous-time models: flow matching, score SDEs, EDM, stochastic interpolants and rectified flow, as configs of one family.

    x_t = alpha(t) x + sigma(t) e [+ gamma(t) z],    t = 0 data, t = 1 source                           (vaeflow/diffusion/path.py)
    loss = E w(t) |F(x_t, t, c) - target|^2 / D,     F a network, target = u x + v e                    (kinds.py)
    log p(x|c) = log N(x_1; 0, r(1)^2 I) + int div velocity dt,   r(t)^2 = sigma^2 + alpha^2 s_d^2      (ode.py)

    flow matching      path ot or vp, predict velocity; coupling exact or sinkhorn: minibatch optimal transport
    score SDE          path ve, vp or subvp, predict noise; weight likelihood for training by likelihood
    EDM                path edm, predict edm, weight edm, times log_normal, precondition, grid rho
    interpolant        path ot or cosine, with gamma; from noise, or `paired`: from the x0 of the data
    rectified flow     path ot, predict velocity, from noise or `paired`; its next round, reflow: the same with a `teacher`
    learned interpolant   path fourier with the quadratic objective: the path maximises what the velocity minimises

With gamma the network has a second output, E[z | x_t], trained by its own squared error. References: Song et al.
2021 (arXiv 2011.13456); Karras et al. 2022 (2206.00364); Lipman et al. 2023 (2210.02747); Liu et al. 2023 (2209.03003); Tong et al. 2024
(2302.00482); Albergo et al. 2023 (2303.08797).
"""

from __future__ import annotations

import math
from functools import partial
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp

from vaeflow.bijectors import Layer
from vaeflow.build import SAMPLING, Bare, Count, Decay, Fraction, Natural, NonNegative, Positive
from vaeflow.diffusion import BatchCoupling, Edit, PredictionKind, ProbabilityPath, Sampler, TimeCoordinate, Weighting
from vaeflow.diffusion.coupling import independent
from vaeflow.diffusion.guidance import EditMethod, guided
from vaeflow.diffusion.kinds import input_scale, noise_level, own, read, target, velocity_kind
from vaeflow.diffusion.ode import EXACT_TRACE, SolverName, field, solve
from vaeflow.diffusion.path import at, mix, ot, reversed_gradient
from vaeflow.diffusion.steps import heun
from vaeflow.diffusion.times import grid as grid_of
from vaeflow.diffusion.times import stratified, uniform
from vaeflow.diffusion.walk import walk
from vaeflow.errors import UserError
from vaeflow.model import NO_PARAMS, Array, Dynamics, Frozen, Model, overlay
from vaeflow.models.parts.class_guidance import class_guidance
from vaeflow.models.parts.continuous_time import check_source, check_times, coordinates, drop, editing, features, needs_context, spread_of
from vaeflow.models.parts.density import fits, ode_density
from vaeflow.models.parts.reflow import reflow
from vaeflow.nets import Embedding, Net
from vaeflow.nets.embedding import fourier
from vaeflow.record import recorded


@recorded
def diffusion(
    *,
    event: tuple[Count, ...],
    levels: Natural = 0,
    net: Net,
    path: Annotated[ProbabilityPath | None, Bare("ot")] = None,
    predict: Annotated[PredictionKind | None, Bare("velocity")] = None,
    weight: Annotated[Weighting | None, Bare("own")] = None,
    times: Annotated[TimeCoordinate | None, Bare("uniform")] = None,
    coupling: Annotated[BatchCoupling | None, Bare("independent")] = None,
    embedding: Annotated[Embedding | None, Bare("fourier")] = None,
    layer: Layer | None = None,
    flatten: bool = False,
    dequantize: Literal["auto", "none", "uniform"] = "auto",
    precondition: bool = False,
    sigma_data: Positive = 0.5,
    t_min: Positive = 1e-3,
    objective: Literal["regression", "quadratic"] = "regression",
    teacher: Frozen | None = None,
    pool: Natural = 100_000,
    pool_steps: Count = 25,
    classifier: Frozen | None = None,
    label_drop: Decay = 0.0,
    paired: bool = False,
    sampler: Annotated[Sampler | None, Bare("heun"), SAMPLING] = None,
    steps: Annotated[Natural, SAMPLING] = 50,
    grid: Annotated[TimeCoordinate | None, Bare("uniform"), SAMPLING] = None,
    t_max: Annotated[Fraction, SAMPLING] = 1.0,
    guidance: Annotated[NonNegative, SAMPLING] = 1.0,
    guidance_interval: Annotated[tuple[Fraction, ...], SAMPLING] = (0.0, 1.0),
    classifier_scale: Annotated[NonNegative, SAMPLING] = 1.0,
    temperature: Annotated[NonNegative, SAMPLING] = 1.0,
    edit: Annotated[Edit | None, SAMPLING] = None,
    edit_method: Annotated[EditMethod, SAMPLING] = "replacement",
    solver: Annotated[SolverName, SAMPLING] = "dopri5",
    solver_steps: Annotated[Natural, SAMPLING] = 0,
    tol: Annotated[Positive, SAMPLING] = 1e-5,
    trace: Annotated[Literal["auto", "exact", "estimate"], SAMPLING] = "auto",
) -> Model:
    """See the module's docstring. Parameters: net, time (the embedding's), path (if learned), fixed/{layer, teacher, pairs, classifier}.

    Args:
        event, levels: the shape of one example; number of its grey values, 0 for continuous data.
        net: F: x_t [B, *event] with the context (features of t, whether c was dropped, c) -> [B, *event]; [B, 2, *event] with gamma.
        path, predict, weight, times, coupling: see the files of vaeflow/diffusion. The coupling permutes the source only among examples
            of equal context. `times` are those of training, in [t_min, 1 - t_min]; one in each of B strata.
        embedding: features of t, or of log(sigma) / 4 where `precondition`.
        layer: f at the data end, data = f(x). Its initial values, which may be those of the first batch (actnorm), are not trained.
        flatten: whether layer and net see vectors [B, D] instead of [B, *event].
        dequantize: auto (uniform for grey values, none for continuous data), none or uniform.
        precondition: the network reads x_t / r(t) and log(sigma) / 4, with s_d = sigma_data (Karras et al. 2022), instead of x_t and t.
        sigma_data: s_d, the standard deviation of f^-1(data), also in the source's r(1).
        t_min: where sampling ends (by Tweedie's formula) and the density is taken: it is that of x_t at t_min.
        objective: regression: |F - target|^2. quadratic: |F|^2 - 2 F . target, which differs by a term without F, so that the gradients of
            the network are equal. Its minimum over velocities is -E|v|^2; a learned path requires it and takes the reversed gradient.
        teacher: the run of an earlier round, with `pool` and `pool_steps` the number of its pairs and the steps of its ODE; see
            models/parts/reflow.py. The layer and the source are the teacher's; the batch's x is not learned.
        classifier: a run of a classifier of noised data of this path, for samples of a class; see models/parts/class_guidance.py.
        label_drop: probability with which training drops the context: it is zero and an entry before it 1. For guidance.
        paired: the source is the x0 of the data, not noise; without gamma there is no score then, and no sampler that adds noise.
        sampler, steps, grid: a sampler of vaeflow/diffusion/steps.py, and its times from t_max to t_min. Then the data are predicted there;
            steps = 0: at t_max, by one evaluation, which is one step of Euler's method on the path ot.
        t_max: where sampling starts and the density's solve ends; below 1 for what divides by alpha, and with gamma.
        guidance: classifier-free: unconditional + guidance (conditional - unconditional), for t in guidance_interval; 1: none, a density.
        classifier_scale: factor of the classifier's gradient, 0: none. Its evaluations are not in nfe, and a guided field has no density.
        temperature: factor of the source's noise.
        edit, edit_method: samples keep what is known of references, by a method of vaeflow/diffusion/guidance.py. The density has none.
        solver, solver_steps, tol: of the density and `encode`: fixed steps, or dopri5 with a tolerance where solver_steps is 0.
        trace: of the velocity's Jacobian. exact: D products; estimate: one Rademacher probe a draw; auto: exact for D <= 64.

    Returns: `sample` gives {x, x0: draws of the source, nfe: evaluations of the network, known: of references}. log_prob is exact for
        continuous data, a log-weight for grey values; with a probe an estimate or a bound. `terms` has the loss, which selects `best`.

    Example:
        model = diffusion(event=(2,), net=mlp(hidden=(128, 128, 128), activation="silu"), layer=actnorm())
    """
    path, kind, weight, times = path or ot(), predict or velocity_kind(), weight or own(), times or uniform()
    coupling, embedding = coupling or independent(), embedding or fourier()
    event, sampler, grid = tuple(event), sampler or heun(), grid or uniform()
    spread, learned = spread_of(path, sigma_data), path.init is not None
    made = None if teacher is None else reflow(teacher, event, levels, paired, pool, pool_steps)
    by_class = class_guidance(classifier, classifier_scale, path, event, levels, t_min, t_max)
    if by_class and (made or paired or label_drop or layer is not None or flatten or dequantize != "auto" or coupling.moves):
        others = "model.layer, teacher, paired, label_drop, coupling, flatten and dequantize"
        raise UserError(f"model.classifier has its own layer: leave out {others}")
    of = made or by_class
    space = of.space if of else coordinates(event, levels, layer, flatten, dequantize)
    shape, pull = space.shape, space.pull
    rank, latent = len(shape), path.gamma is not None
    network = net.module((2, *shape) if latent else shape, rank, False)
    exact = trace == "exact" or (trace == "auto" and math.prod(shape) <= EXACT_TRACE)
    solving: dict[str, Any] = dict(solver=solver, steps=solver_steps or None, tol=None if solver_steps else tol)
    if guidance != 1 and not label_drop:
        raise UserError(f"sample.guidance={guidance:g} needs a model that was trained without its context too: model.label_drop > 0")
    check_times(latent, t_min, t_max, guidance_interval)
    check_source(paired, latent, sampler, temperature)
    if made and (layer is not None or flatten or dequantize != "auto" or coupling.moves):
        raise UserError("model.layer, model.flatten, model.dequantize and model.coupling are the teacher's with model.teacher")
    if learned and (objective != "quadratic" or not kind.rate or precondition or t_max != 1):
        needs = "model.objective='quadratic', model.predict='velocity', model.precondition=False and sample.t_max=1"
        raise UserError(f"model.path is a learned path, which needs {needs}")
    keeping = None if edit is None else editing(edit, edit_method, space, event, levels, paired or latent, sigma_data)

    def path_of(params) -> ProbabilityPath:
        return at(path, params.get("path", NO_PARAMS))

    def context_of(params, t, c, dropped):
        """The network's context [..., C] of t [...], c [..., K] or None, dropped [...]."""
        times = (noise_level(path, t) if precondition else t,)
        return features(embedding, params["time"], times, None if by_class else c, dropped, label_drop > 0)

    def outputs(params, x, t, c, dropped, key=None) -> tuple[Array, Array | None]:
        """(F, the predicted z or None) [..., *shape] of x = x_t [..., *shape], t [...]."""
        scaled = x * jnp.expand_dims(input_scale(path, t, sigma_data), tuple(range(-rank, 0))) if precondition else x
        rngs = None if key is None else {"dropout": key}
        out = jnp.asarray(network.apply({"params": params["net"]}, scaled, context_of(params, t, c, dropped), rngs=rngs))
        both = jnp.moveaxis(out, -rank - 1, 0) if latent else (out, None)
        return both[0], both[1]

    def predictor(params, c):
        """(x [*shape], t []) -> Prediction, given c [K] or None."""

        def conditional(x, t, dropped=0.0):
            return read(kind, path_of(params), t, x, *outputs(params, x, t, c, jnp.full_like(t, dropped)))

        if by_class:
            return by_class.guide(conditional, params, c)
        return conditional if guidance == 1 else guided(conditional, partial(conditional, dropped=1.0), guidance, *guidance_interval)

    def velocity(params, c):
        """The probability-flow ODE's (t, x) -> dx/dt; the state may have another type than the network's output."""
        own = field(path_of(params), predictor(params, c))
        return lambda t, x: own(t, x).astype(x.dtype)

    def init(key, batch, given=NO_PARAMS):
        fits(event, batch)
        key_u, key_layer, key_time, key_net = jax.random.split(key, 4)
        y, _ = space.dequantize(key_u, batch["x"])
        c = batch.get("context")
        needs_context(label_drop, c, by_class.classes if by_class else 0)
        params = {"time": embedding.init(key_time)} | space.init(key_layer, y)
        params |= {"path": path.init(key_layer)} if path.init is not None else {}
        params |= of.init(key_layer, batch, given) if of else {}
        params = overlay(params, given)
        context = context_of(params, jnp.full(len(y), 0.5), c, jnp.zeros(len(y)))
        params["net"] = network.init(key_net, pull(params, y)[0], context)["params"]
        return overlay(params, given)

    def errors(params, key, batch, train):
        """The weighted error per entry [B] of one t and one source draw an example."""
        k_u, k_t, k_e, k_z, k_pair, k_drop, k_net = jax.random.split(key, 7)
        if made:
            x, e, c = (made.draw if train else made.fresh)(params, k_pair, batch)
        else:
            x, c = pull(params, space.dequantize(k_u, batch["x"])[0])[0], batch.get("context")
            e = pull(params, space.dequantize(k_e, batch["x0"])[0])[0] if paired else jax.random.normal(k_e, x.shape, x.dtype)
            # Examples of equal context are one class, called by the first of them.
            same = None if c is None else jnp.argmax(jnp.all(c[:, None] == c, -1), 1)
            e = e[coupling.pair(k_pair, x, e, same)]
        n, here = len(x), path_of(params | ({"path": reversed_gradient(params["path"])} if learned else {}))
        t = stratified(k_t, times, here, n, t_min).astype(x.dtype)
        z = jax.random.normal(k_z, x.shape, x.dtype) if latent else None
        x_t = jax.vmap(partial(mix, here))(t, x, e, z)
        want = jax.vmap(partial(target, kind, here))(t, x, e, z)
        dropped = drop(k_drop, label_drop if train else 0, x)
        out, z_out = outputs(params, x_t, t, c, dropped, k_net if train else None)

        def mean_of(a):
            return jnp.mean(a.reshape(n, -1), -1)

        error = mean_of(jnp.square(out - want) if objective == "regression" else jnp.square(out) - 2 * out * want)
        error *= jax.lax.stop_gradient(jax.vmap(partial(weight.weigh, kind, here))(t))
        return error if z is None or z_out is None else error + mean_of(jnp.square(z_out - z))

    def loss(params, key, batch, step):
        del step
        total = jnp.mean(errors(params, key, batch, train=True))
        return total, {"loss": total}

    def terms(params, key, batch):
        return {"loss": errors(params, key, batch, train=False)}

    density = ode_density(pull, velocity, spread, t_min, t_max, solving)

    def log_prob(params, key, batch):
        key_u, key_probe = jax.random.split(key)
        y, log_q = space.dequantize(key_u, batch["x"])
        return density(params, None if exact else key_probe, y, batch.get("context")) - log_q

    def continuous(params, y, context=None):
        return density(params, None, y, context)

    def encode(params, key, batch):
        x, _ = pull(params, space.dequantize(key, batch["x"])[0])
        return jax.vmap(lambda x, c: solve(velocity(params, c), x, t_min, t_max, **solving)[0])(x, batch.get("context"))

    def sample(params, key, n, context=None, x0=None, reference=None):
        key_e, key_walk = jax.random.split(key)
        e = pull(params, space.dequantize(key_e, x0)[0])[0] if paired else jax.random.normal(key_e, (n, *shape))
        e = e if paired else temperature * spread(t_max) * e
        own = path_of(params)
        visited = grid_of(grid, own, steps, t_min, t_max)
        kept = keeping and keeping.read(params, reference)

        def one(key, e, c, kept):
            predict = predictor(params, c) if keeping is None else keeping.guide(predictor(params, c), own, kept)
            return walk(sampler.on(own, predict), key, e, visited)

        x, nfe = jax.vmap(one)(jax.random.split(key_walk, n), e, context, kept)
        found = {"x": space.push(params, x), "x0": x0 if paired else e.reshape(n, *event), "nfe": nfe * (1 if guidance == 1 else 2)}
        return found | {"known": keeping.shown(params, kept)} if keeping else found

    guide = f"guidance={guidance:g}" if guidance != 1 else f"classifier_scale={classifier_scale:g}" if by_class and classifier_scale else ""
    known = not paired and not guide
    return Model(
        init=init,
        loss=loss,
        sample=sample,
        log_prob=log_prob if known else None,
        density="none" if not known else ("weight" if exact else "bound") if levels else "exact" if exact else "estimate",
        encode=encode,
        terms=terms,
        note="" if known or paired else f"the field of {guide} has no density",
        remark=f"of x_t at t = {t_min:g}" if known else "",
        continuous=continuous if known and exact else None,
        event=event,
        levels=levels,
        paired=paired,
        init_examples=pool if made else 0,
        edits=keeping is not None,
        classes=by_class.classes if by_class else 0,
        dynamics=Dynamics(pull, space.push, velocity, path, spread, t_min, t_max, shape, predictor),
    )


_EXAMPLE = dict(event=(4,), net="net", steps=4, solver="rk4", solver_steps=4)
_IMAGE = _EXAMPLE | dict(event=(4, 4, 1), levels=17, net="unet", embedding="sinusoidal")
_EDM = dict(path="edm", predict="edm", weight="edm", times="log_normal", precondition=True, grid="rho", sampler="dpm_2m")
EXAMPLES = (
    _EXAMPLE,
    _EXAMPLE | dict(path="vp", predict="noise", layer="layer", coupling="sinkhorn", label_drop=0.2, sampler="ancestral", t_min=0.01),
    _EXAMPLE | dict(path="cosine_gamma", paired=True, sampler="sde_sigma", t_max=0.99),
    _EXAMPLE | dict(path="vp", label_drop=0.2, guidance=2.0, sampler="ddim", coupling="exact", edit="right", edit_method="covariance"),
    _EXAMPLE | dict(path="fourier", objective="quadratic"),
    _EXAMPLE | dict(teacher="frozen_dynamics", pool=6, pool_steps=2),
    _EXAMPLE | dict(path="vp", classifier="frozen_classifier"),
    _IMAGE,
    _IMAGE | _EDM | dict(trace="estimate"),
)

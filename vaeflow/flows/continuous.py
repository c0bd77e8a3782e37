"""Premade continuous-time models, of vectors and images: flow matching, rectified flow, score SDEs, EDM (vaeflow/models/diffusion.py).

    x_t = alpha(t) x + sigma(t) e,   t = 0 data, t = 1 noise;    a network learns the velocity, the noise or the data of x_t

Vectors have a fully connected network, images [H, W, C] a U-Net, unless `net` is given. Continuous data are brought to unit scale by the
first batch; grey values are dequantised uniformly and scaled to [-1, 1]. Contexts condition the network; with label_drop > 0 samples may
be guided (guidance > 1). log_prob is that of the probability-flow ODE, see there.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from vaeflow.build import SAMPLING, Bare, Count, Decay, Natural, NonNegative, Positive
from vaeflow.diffusion import KINDS, PATHS, STEPS, TIMES, WEIGHTINGS, BatchCoupling, Edit, Sampler
from vaeflow.diffusion.guidance import EditMethod
from vaeflow.diffusion.ode import SolverName
from vaeflow.flows.ends import Event, continuous_coordinates, network
from vaeflow.model import Model
from vaeflow.models.diffusion import diffusion
from vaeflow.nets import Net, fourier, sinusoidal
from vaeflow.record import recorded

Trace = Literal["auto", "exact", "estimate"]


def _embedding(event: Event) -> Any:
    """Features of t."""
    return sinusoidal() if len(event) == 3 else fourier(width=64, scale=1.0)


@recorded
def flow_matching(
    *,
    event: tuple[Count, ...],
    levels: Natural = 0,
    net: Net | None = None,
    coupling: Annotated[BatchCoupling | None, Bare("independent")] = None,
    label_drop: Decay = 0.0,
    sampler: Annotated[Sampler | None, Bare("heun"), SAMPLING] = None,
    steps: Annotated[Natural, SAMPLING] = 50,
    guidance: Annotated[NonNegative, SAMPLING] = 1.0,
    temperature: Annotated[NonNegative, SAMPLING] = 1.0,
    edit: Annotated[Edit | None, SAMPLING] = None,
    edit_method: Annotated[EditMethod, SAMPLING] = "replacement",
    solver: Annotated[SolverName, SAMPLING] = "dopri5",
    solver_steps: Annotated[Natural, SAMPLING] = 0,
    tol: Annotated[Positive, SAMPLING] = 1e-5,
    trace: Annotated[Trace, SAMPLING] = "auto",
) -> Model:
    """Flow matching on the linear path x_t = (1 - t) x + t e (Lipman et al. 2023, arXiv 2210.02747).

    Args:
        event, levels: the shape of one example; number of its grey values, 0 for continuous data.
        net: (x_t, features of t and the context) -> velocity; None: see the module's docstring.
        coupling: of the noise and the data of a batch: independent, exact or sinkhorn (minibatch optimal transport).
        label_drop: probability with which training drops the context.
        sampler, steps: of the ODE in `sample`.
        guidance: classifier-free, 1: none.
        temperature: of `sample`: factor of the noise at t = 1.
        edit, edit_method: samples that keep parts of references, see `diffusion`.
        solver, solver_steps, tol, trace: of the density's ODE, see `diffusion`.

    Returns: A Model; density exact for continuous data of at most 64 dimensions, else by an estimate of the trace.

    Example:
        model = flow_matching(event=(2,))
    """
    return diffusion(
        event=event,
        levels=levels,
        net=network(event, net),
        coupling=coupling,
        embedding=_embedding(event),
        label_drop=label_drop,
        sampler=sampler,
        steps=steps,
        guidance=guidance,
        temperature=temperature,
        edit=edit,
        edit_method=edit_method,
        solver=solver,
        solver_steps=solver_steps,
        tol=tol,
        trace=trace,
        **continuous_coordinates(levels),
    )


@recorded
def rectified_flow(
    *,
    event: tuple[Count, ...],
    levels: Natural = 0,
    net: Net | None = None,
    label_drop: Decay = 0.0,
    sampler: Annotated[Sampler | None, Bare("euler"), SAMPLING] = None,
    steps: Annotated[Natural, SAMPLING] = 50,
    guidance: Annotated[NonNegative, SAMPLING] = 1.0,
    temperature: Annotated[NonNegative, SAMPLING] = 1.0,
    edit: Annotated[Edit | None, SAMPLING] = None,
    edit_method: Annotated[EditMethod, SAMPLING] = "replacement",
    solver: Annotated[SolverName, SAMPLING] = "dopri5",
    solver_steps: Annotated[Natural, SAMPLING] = 0,
    tol: Annotated[Positive, SAMPLING] = 1e-5,
    trace: Annotated[Trace, SAMPLING] = "auto",
) -> Model:
    """Rectified flow (Liu et al. 2023, arXiv 2209.03003): the linear path, times logit-normal (Esser et al. 2024, arXiv 2403.03206),
    samples by Euler's method. The next round, reflow, is the family `diffusion` with a teacher.

    Args:
        event, levels: the shape of one example; number of its grey values, 0 for continuous data.
        net: (x_t, features of t and the context) -> velocity; None: see the module's docstring.
        label_drop: probability with which training drops the context.
        sampler, steps: of the ODE in `sample`.
        guidance: classifier-free, 1: none.
        temperature: of `sample`: factor of the noise at t = 1.
        edit, edit_method: samples that keep parts of references, see `diffusion`.
        solver, solver_steps, tol, trace: of the density's ODE, see `diffusion`.

    Returns: A Model; density exact for continuous data of at most 64 dimensions, else by an estimate of the trace.

    Example:
        model = rectified_flow(event=(2,))
    """
    return diffusion(
        event=event,
        levels=levels,
        net=network(event, net),
        times=TIMES["logit_normal"](),
        embedding=_embedding(event),
        label_drop=label_drop,
        sampler=sampler or STEPS["euler"](),
        steps=steps,
        guidance=guidance,
        temperature=temperature,
        edit=edit,
        edit_method=edit_method,
        solver=solver,
        solver_steps=solver_steps,
        tol=tol,
        trace=trace,
        **continuous_coordinates(levels),
    )


@recorded
def score(
    *,
    event: tuple[Count, ...],
    levels: Natural = 0,
    sde: Literal["vp", "ve", "subvp"] = "vp",
    net: Net | None = None,
    label_drop: Decay = 0.0,
    sampler: Annotated[Sampler | None, Bare("heun"), SAMPLING] = None,
    steps: Annotated[Natural, SAMPLING] = 50,
    guidance: Annotated[NonNegative, SAMPLING] = 1.0,
    temperature: Annotated[NonNegative, SAMPLING] = 1.0,
    edit: Annotated[Edit | None, SAMPLING] = None,
    edit_method: Annotated[EditMethod, SAMPLING] = "replacement",
    solver: Annotated[SolverName, SAMPLING] = "dopri5",
    solver_steps: Annotated[Natural, SAMPLING] = 0,
    tol: Annotated[Positive, SAMPLING] = 1e-5,
    trace: Annotated[Trace, SAMPLING] = "auto",
) -> Model:
    """Score-based model of an SDE (Song et al. 2021, arXiv 2011.13456), as a prediction of the noise.

    Args:
        event, levels: the shape of one example; number of its grey values, 0 for continuous data.
        sde: variance preserving, exploding or sub-preserving. ve: the network reads x_t / r(t) and log sigma; sigma_max = 50 of images
            (of grey values scaled to [-1, 1]), 10 of vectors.
        net: (x_t, features of t and the context) -> noise; None: see the module's docstring.
        label_drop: probability with which training drops the context.
        sampler, steps: of `sample`: heun solves the ODE, ancestral and sde add noise.
        guidance: classifier-free, 1: none.
        temperature: of `sample`: factor of the noise at t = 1.
        edit, edit_method: samples that keep parts of references, see `diffusion`.
        solver, solver_steps, tol, trace: of the density's ODE, see `diffusion`.

    Returns: A Model; density exact for continuous data of at most 64 dimensions, else by an estimate of the trace.

    Example:
        model = score(event=(2,), sde="subvp")
    """
    exploding, image = sde == "ve", len(event) == 3
    return diffusion(
        event=event,
        levels=levels,
        net=network(event, net),
        path=PATHS["ve"](sigma_max=50.0 if image else 10.0) if exploding else PATHS[sde](),
        predict=KINDS["noise"](),
        embedding=fourier(width=64, scale=1.0) if exploding else _embedding(event),
        precondition=exploding,
        t_min=1e-3 if exploding else 1e-5 if image else 1e-2,
        label_drop=label_drop,
        sampler=sampler,
        steps=steps,
        guidance=guidance,
        temperature=temperature,
        edit=edit,
        edit_method=edit_method,
        solver=solver,
        solver_steps=solver_steps,
        tol=tol,
        trace=trace,
        **continuous_coordinates(levels),
    )


@recorded
def edm(
    *,
    event: tuple[Count, ...],
    levels: Natural = 0,
    net: Net | None = None,
    sigma_max: Positive = 80.0,
    label_drop: Decay = 0.0,
    sampler: Annotated[Sampler | None, Bare("heun"), SAMPLING] = None,
    steps: Annotated[Natural, SAMPLING] = 17,
    guidance: Annotated[NonNegative, SAMPLING] = 1.0,
    temperature: Annotated[NonNegative, SAMPLING] = 1.0,
    edit: Annotated[Edit | None, SAMPLING] = None,
    edit_method: Annotated[EditMethod, SAMPLING] = "replacement",
    solver: Annotated[SolverName, SAMPLING] = "dopri5",
    solver_steps: Annotated[Natural, SAMPLING] = 0,
    tol: Annotated[Positive, SAMPLING] = 1e-5,
    trace: Annotated[Trace, SAMPLING] = "auto",
) -> Model:
    """EDM (Karras et al. 2022, arXiv 2206.00364): its preconditioning, weights, times and grid of 18 levels of noise.

    Args:
        event, levels: the shape of one example; number of its grey values, 0 for continuous data.
        net: (x_t / r(t), features of log sigma and the context) -> F; None: see the module's docstring.
        sigma_max: standard deviation of the noise at t = 1; sigma_min is 0.002.
        label_drop: probability with which training drops the context.
        sampler, steps: of `sample`; the last level is Tweedie's formula.
        guidance: classifier-free, 1: none.
        temperature: of `sample`: factor of the noise at t = 1.
        edit, edit_method: samples that keep parts of references, see `diffusion`.
        solver, solver_steps, tol, trace: of the density's ODE, see `diffusion`.

    Returns: A Model; density exact for continuous data of at most 64 dimensions, else by an estimate of the trace.

    Example:
        model = edm(event=(32, 32, 3), levels=256)
    """
    own = continuous_coordinates(levels)
    return diffusion(
        event=event,
        levels=levels,
        net=network(event, net),
        path=PATHS["edm"](sigma_max=sigma_max),
        predict=KINDS["edm"](sigma_data=own["sigma_data"]),
        weight=WEIGHTINGS["edm"](sigma_data=own["sigma_data"]),
        times=TIMES["log_normal"](),
        embedding=fourier(width=64, scale=1.0),
        precondition=True,
        t_min=0.002 / sigma_max,
        label_drop=label_drop,
        sampler=sampler,
        steps=steps,
        grid=TIMES["rho"](),
        guidance=guidance,
        temperature=temperature,
        edit=edit,
        edit_method=edit_method,
        solver=solver,
        solver_steps=solver_steps,
        tol=tol,
        trace=trace,
        **own,
    )


_EXAMPLE = dict(event=(3,), net="net", steps=2, solver="rk4", solver_steps=2)
EXAMPLES = {
    flow_matching: _EXAMPLE | dict(coupling="exact"),
    rectified_flow: _EXAMPLE | dict(label_drop=0.2),
    score: _EXAMPLE | dict(sde="ve"),
    edm: _EXAMPLE | dict(event=(2, 2, 1), levels=17),
}

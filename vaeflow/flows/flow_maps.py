"""Premade one- and few-step models trained from scratch: consistency models, MeanFlow, shortcut models (vaeflow/models/flow_map.py).

    x_1 noise -> X(x_1, 1, 0), a sample by one evaluation of the network

Networks and coordinates are those of continuous.py; there is no density, so that a sample measure selects the best parameters
(eval.select = "sample_quality.energy"). Distillation needs a teacher, and is the family `flow_map`.
"""

from __future__ import annotations

from typing import Annotated

from vaeflow.build import SAMPLING, Count, Decay, Natural, NonNegative, Range
from vaeflow.diffusion import MAP_FORMS, MAP_LOSSES, MAP_TARGETS, PATHS, TIMES, Edit
from vaeflow.flows.ends import Event, continuous_coordinates, network
from vaeflow.model import Model
from vaeflow.models.flow_map import flow_map
from vaeflow.models.parts.intervals import INTERVALS
from vaeflow.nets import Embedding, Net, dit, fourier, sinusoidal
from vaeflow.objectives import SCHEDULES
from vaeflow.record import recorded


def _embedding(event: Event) -> Embedding:
    """Features of t and t - r: low frequencies, as the network is compared with itself at neighbouring times."""
    return sinusoidal() if len(event) == 3 else fourier(width=64, scale=0.2)


@recorded
def consistency(
    *,
    event: tuple[Count, ...],
    levels: Natural = 0,
    net: Net | None = None,
    train_steps: Count = 10_000,
    points: Annotated[int, Range(10)] = 160,
    steps: Annotated[Count, SAMPLING] = 1,
    temperature: Annotated[NonNegative, SAMPLING] = 1.0,
    edit: Annotated[Edit | None, SAMPLING] = None,
) -> Model:
    """Improved consistency training (Song and Dhariwal 2024, arXiv 2310.14189; Song et al. 2023, 2303.01469), without a teacher: the maps
    from neighbouring points of EDM's grid to the data agree. More than one step of `sample` adds noise in between.

    Args:
        event, levels: the shape of one example; number of its grey values, 0 for continuous data.
        net: (x_t / r(t), features of log sigma and the context) -> F; None: see continuous.py.
        train_steps: training steps over which the number of points doubles from 10 to `points`: those of the training.
        points: number of points at the end of training; 1,280 in the paper.
        steps: evaluations of the network for a sample.
        temperature: of `sample`: factor of the noise.
        edit: samples that keep parts of references, see `flow_map`.

    Returns: A Model without a density.

    Example:
        model = consistency(event=(2,), train_steps=10_000)
    """
    image = len(event) == 3
    sigma_max, sigma_min = (80.0, 0.002) if image else (10.0, 0.002)
    count = SCHEDULES["doubling"](steps=train_steps, end=points)
    return flow_map(
        event=event,
        levels=levels,
        net=network(event, net),
        target=MAP_TARGETS["pair"](),
        intervals=INTERVALS["points"](count=count, grid=TIMES["rho"]()),
        path=PATHS["edm"](sigma_max=sigma_max),
        form=MAP_FORMS["edm"](),
        loss=MAP_LOSSES["pseudo_huber"](**({} if image else dict(scale=0.03))),
        times=TIMES["log_normal"](**(dict(mean=-1.1, std=2.0) if image else dict(mean=-0.8, std=1.6))),
        embedding=fourier(scale=0.02) if image else _embedding(event),
        precondition=True,
        t_min=sigma_min / sigma_max,
        steps=steps,
        temperature=temperature,
        edit=edit,
        **continuous_coordinates(levels),
    )


@recorded
def mean_flow(
    *,
    event: tuple[Count, ...],
    levels: Natural = 0,
    net: Net | None = None,
    equal: Decay = 0.5,
    steps: Annotated[Count, SAMPLING] = 1,
    temperature: Annotated[NonNegative, SAMPLING] = 1.0,
    edit: Annotated[Edit | None, SAMPLING] = None,
) -> Model:
    """MeanFlow (Geng et al. 2025, arXiv 2505.13447): the average velocity between two times, by its identity with the velocity.

    Args:
        event, levels: the shape of one example; number of its grey values, 0 for continuous data.
        net: (x_t, features of t and t - r, the context) -> u; differentiable in forward mode, as an mlp or a dit. None: an mlp for vectors,
            a dit for images.
        equal: share of the examples with r = t, which train the velocity.
        steps: evaluations of the network for a sample.
        temperature: of `sample`: factor of the noise.
        edit: samples that keep parts of references, see `flow_map`.

    Returns: A Model without a density.

    Example:
        model = mean_flow(event=(2,))
    """
    return flow_map(
        event=event,
        levels=levels,
        net=net or (dit() if len(event) == 3 else network(event, None)),
        target=MAP_TARGETS["jvp"](),
        intervals=INTERVALS["ordered"](equal=equal),
        embedding=fourier(width=64, scale=0.2),
        steps=steps,
        temperature=temperature,
        edit=edit,
        **continuous_coordinates(levels),
    )


@recorded
def shortcut(
    *,
    event: tuple[Count, ...],
    levels: Natural = 0,
    net: Net | None = None,
    equal: Decay = 0.5,
    ema: Decay = 0.99,
    steps: Annotated[Count, SAMPLING] = 1,
    temperature: Annotated[NonNegative, SAMPLING] = 1.0,
    edit: Annotated[Edit | None, SAMPLING] = None,
) -> Model:
    """Shortcut model (Frans et al. 2025, arXiv 2410.12557): a step of length d is two steps of length d / 2.

    Args:
        event, levels: the shape of one example; number of its grey values, 0 for continuous data.
        net: (x_t, features of t and the length, the context) -> u; None: see continuous.py.
        equal: share of the examples that train the velocity, the shortest step.
        ema: decay of the moving average of the network that gives the targets; 0.999 in the paper.
        steps: evaluations of the network for a sample, 1, 2, 4, ...
        temperature: of `sample`: factor of the noise.
        edit: samples that keep parts of references, see `flow_map`.

    Returns: A Model without a density.

    Example:
        model = shortcut(event=(2,))
    """
    return flow_map(
        event=event,
        levels=levels,
        net=network(event, net),
        target=MAP_TARGETS["halves"](),
        intervals=INTERVALS["binary"](equal=equal),
        ema=ema,
        embedding=_embedding(event),
        steps=steps,
        temperature=temperature,
        edit=edit,
        **continuous_coordinates(levels),
    )


_EXAMPLE = dict(event=(3,), net="net")
EXAMPLES = {
    consistency: _EXAMPLE | dict(train_steps=10),
    mean_flow: _EXAMPLE,
    shortcut: _EXAMPLE | dict(levels=17, steps=2),
}

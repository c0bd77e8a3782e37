"""What the continuous-time families share: the coordinates x of their ODE, the source, and the context that their networks read.

data as loaded -- dequantize --> y [B, *event] -- f^-1 --> x [B, *shape], where the ODE runs;   y = f(x), f a Layer that is not trained
source  e ~ N(0, r(1)^2 I),   r(t)^2 = sigma(t)^2 + alpha(t)^2 s_d^2
context of the network  (features of each of its times, whether c was dropped, c)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from vaeflow.bijectors.core.layer import Layer, at_rank
from vaeflow.diffusion.edits import Edit, Measurement, flattened, replaced
from vaeflow.diffusion.guidance import EditMethod, edited
from vaeflow.diffusion.kinds import input_scale
from vaeflow.diffusion.path import Predict, ProbabilityPath
from vaeflow.diffusion.walk import Sampler
from vaeflow.errors import UserError
from vaeflow.model import NO_PARAMS, Array, Dynamics, Frozen, Params
from vaeflow.models.parts.dequantize import make_dequantizer
from vaeflow.nets import Embedding

_SOURCES = {False: "noise", True: "the x0 of data"}


class Coordinates(NamedTuple):
    """Between data and x, in which the ODE runs. params: the whole tree of the model.

    shape       of one x
    dequantize  (key, data [B, *event] as loaded) -> (y [B, *shape] real-valued, log q(y|data) [B])
    init        (key, y) -> {"fixed": {"layer": ...}}, or {} where there is nothing to store
    pull        (params, y [B, *event] or [B, *shape]) -> (x [B, *shape], log |det dx/dy| [B])
    push        (params, x [B, *shape]) -> data [B, *event]: of grey values the floor of y
    """

    shape: tuple[int, ...]
    dequantize: Callable[[Array, Any], tuple[Array, Array]]
    init: Callable[[Array, Array], Params]
    pull: Callable[[Params, Array], tuple[Array, Array]]
    push: Callable[[Params, Array], Array]


def coordinates(
    event: tuple[int, ...], levels: int, layer: Layer | None, flatten: bool, dequantize: Literal["auto", "none", "uniform"]
) -> Coordinates:
    """The coordinates of a family's arguments; `layer` is f.

    Args:
        event, levels: the shape of one example; number of its grey values, 0 for continuous data.
        layer: None: the identity.
        flatten: whether x is a vector [D] instead of [*event].
        dequantize: see models/parts/dequantize.py.

    Raises:
        UserError: the layer keeps statistics, or `dequantize` does not fit `levels`.
    """
    shape = (math.prod(event),) if flatten else event
    grey = make_dequantizer(dequantize, levels, event, shape)
    if layer is not None and layer.update is not None:
        raise UserError(
            "model.layer is a layer that keeps statistics (batch_norm), and the layer of a continuous-time model is not trained"
        )

    def bijector(params):
        assert layer is not None
        return at_rank(layer.bijector(params.get("fixed", NO_PARAMS).get("layer", NO_PARAMS)), len(shape))

    def init(key, y):
        own = layer.init(key, y) if layer is not None else NO_PARAMS
        return {"fixed": {"layer": own}} if own else {}

    def pull(params, y):
        y = y.reshape(len(y), *shape)
        x, log_det = (y, jnp.zeros(len(y), y.dtype)) if layer is None else bijector(params).inverse_and_log_det(y)
        return jnp.asarray(x), jnp.asarray(log_det)

    def push(params, x):
        return grey.round(x if layer is None else jnp.asarray(bijector(params).forward(x)))

    return Coordinates(shape, lambda key, x: grey.draw({}, key, x), init, pull, push)


class Editing(NamedTuple):
    """What an edit keeps of references, in the coordinates x.

    known   the measurement of x [*shape]
    read    (params, reference [n, *event]) -> x [n, *shape]: of grey values the middle of their cells, so that `push` returns them
    guide   (predict, path, x [*shape]) -> the prediction given what is known of x
    shown   (params, x [n, *shape]) -> data [n, *event] of what is known of x, 0 in its other coordinates
    """

    known: Measurement
    read: Callable[[Params, Any], Array]
    guide: Callable[[Predict, ProbabilityPath, Any], Predict]
    shown: Callable[[Params, Any], Array]


def editing(
    edit: Edit, method: EditMethod, space: Coordinates, event: tuple[int, ...], levels: int, other: bool, sigma_data: float
) -> Editing:
    """See Editing.

    Args:
        method: how a sampler's predictions are changed, see vaeflow/diffusion/guidance.py.
        other: whether the source is not Gaussian noise.
        sigma_data: standard deviation of x.

    Raises:
        UserError: the edit does not apply to examples of this shape, or to this source.
    """
    if other:
        raise UserError("sample.edit needs Gaussian noise as the source: model.paired=False and a path without gamma")
    try:
        known = edit.on(event)
    except UserError as error:
        raise UserError(f"sample.edit: {error}") from error
    known = known if space.shape == event else flattened(known, event)

    def read(params, reference):
        return space.pull(params, jnp.asarray(reference, jnp.result_type(float)) + (0.5 if levels else 0))[0]

    def guide(predict, path, x):
        return edited(predict, path, known, x, method, sigma_data=sigma_data)

    def shown(params, x):
        return space.push(params, jax.vmap(lambda x: replaced(known, jnp.zeros_like(x), x))(x))

    return Editing(known, read, guide, shown)


def check_times(gamma: bool, t_min: float, t_max: float, interval: tuple[float, ...] = (0.0, 1.0)) -> None:
    """UserError: sampling cannot start at t_max and end at t_min, or `interval` is none. gamma: whether the path has one."""
    if len(interval) != 2 or interval[0] >= interval[1]:
        raise UserError(f"sample.guidance_interval={tuple(interval)} must be two times, the lower one first, as (0.2, 0.8)")
    if not t_min < t_max:
        raise UserError(f"model.t_min={t_min:g} must be below sample.t_max={t_max:g}")
    if gamma and t_max == 1:
        raise UserError("sample.t_max=1 is invalid with a path with gamma, whose rate is infinite there; it must be below 1, as 0.999")


def check_source(paired: bool, gamma: bool, sampler: Sampler, temperature: float) -> None:
    """UserError: samples that start from data (`paired`) have no temperature and, on a path without gamma, no score for a noisy sampler."""
    if paired and not gamma and sampler.noisy:
        raise UserError(
            "sample.sampler adds noise, which with model.paired needs a path with gamma; known: euler, midpoint, heun, dopri5, ddim, dpm_2m"
        )
    if paired and temperature != 1:
        raise UserError(f"sample.temperature={temperature:g} must be 1 with model.paired: the source is data, not noise")


def spread_of(path: ProbabilityPath, sigma_data: float) -> Callable[[Array | float], Array]:
    """t [] -> r(t) []: the standard deviation of x_t where that of x is sigma_data and the source is standard normal."""
    return lambda t: 1 / input_scale(path, jnp.asarray(t, jnp.result_type(float)), sigma_data)


def features(embedding: Embedding, params: Params, times: Sequence[Array], c: Array | None, dropped: Array | None, flag: bool) -> Array:
    """The network's context [..., C].

    Args:
        params: the embedding's.
        times: [...] each; every one has features of its own, by the same frequencies.
        c: the data's context [..., K], or None.
        dropped: 1 where c is hidden [...], or None: nowhere.
        flag: whether an entry says that c is hidden (of a model that is trained without its context too).
    """
    known = [embedding.features(params, t) for t in times]
    if c is not None:
        dropped = jnp.zeros(c.shape[:-1], c.dtype) if dropped is None else dropped
        known += [dropped[..., None]] if flag else []
        known += [c * (1 - dropped[..., None])]
    return jnp.concatenate(known, -1)


def drop(key: Array, rate: float, like: Array) -> Array:
    """1 with the probability `rate`, else 0 [B], of the type of `like` [B, ...]."""
    return jax.random.bernoulli(key, rate, like.shape[:1]).astype(like.dtype) if rate else jnp.zeros(len(like), like.dtype)


def needs_context(label_drop: float, c: Array | None, classes: int = 0) -> None:
    """UserError: a model that is to drop its context has none, or a classifier's class [B, classes] is not the context."""
    if classes and (c is None or c.shape[-1] != classes):
        raise UserError(f"model.classifier needs the class as context, of {classes} classes; set data.context='label'")
    if label_drop and c is None:
        raise UserError(f"model.label_drop={label_drop:g} needs a context; set data.context")


def coordinates_of_teacher(teacher: Frozen, event: tuple[int, ...], levels: int, paired: bool = False) -> tuple[Coordinates, Dynamics]:
    """The coordinates of a teacher's ODE, as functions of its student's parameters; that ODE, as a function of its own.

    Raises:
        UserError: the teacher has no ODE, is trained on, starts from data where its student (`paired`) does not, or is of other data.
    """
    ode, model = teacher.model.dynamics, teacher.model
    where = f"model.{teacher.name}"
    if ode is None:
        raise UserError(f"{where} must be a continuous-time model: its probability-flow ODE is what the student learns")
    if teacher.train:
        raise UserError(f"{where}.train=True is invalid: a teacher that is trained on would follow its student")
    if model.paired != paired:
        raise UserError(f"{where} starts from {_SOURCES[model.paired]}, and its student from {_SOURCES[paired]} (model.paired={paired})")
    if (model.event, model.levels) != (event, levels):
        raise UserError(f"{where} is of data with event={model.event}, levels={model.levels}, not event={event}, levels={levels}")
    grey = make_dequantizer("auto", levels, event, event)
    space = Coordinates(ode.shape, lambda key, x: grey.draw({}, key, x), lambda key, y: {}, ode.pull, ode.push)
    return of_frozen(teacher, space), ode


def of_frozen(other: Frozen, space: Coordinates) -> Coordinates:
    """Another model's coordinates, as functions of the parameters of the model that has it as an argument."""
    return space._replace(
        init=lambda key, y: {},
        pull=lambda params, y: space.pull(other.of(params), y),
        push=lambda params, x: space.push(other.of(params), x),
    )

"""Figures of a continuous-time model's ODE (`Model.dynamics`): its trajectories, and data that go to the source and back."""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import numpy as np

from vaeflow.errors import UserError
from vaeflow.evaluation.information import evenly
from vaeflow.evaluation.trajectories import decode, encode, generate, source
from vaeflow.figures import latents
from vaeflow.figures.canvas import COLOURS, canvas
from vaeflow.figures.draws import conditions
from vaeflow.figures.figure import Subject, needs_pictures, needs_plane_or_pictures
from vaeflow.figures.images import is_image
from vaeflow.model import Dynamics, Model

_PICTURES = 4  # draws, two lines each
_TIMES = 8  # at which pictures are shown
_LINES = 200  # draws in the plane
_POINTS = 41  # of a line
_CLOUD = 1000  # data in the plane
_ROUND_TRIPS = 12
_WIDE = 3.0  # a source that is wider than the data by this factor is drawn on the data's scale


def dynamics_of(model: Model) -> Dynamics:
    """UserError: the model has no ODE."""
    if model.dynamics is None:
        raise UserError("needs a model with a probability-flow ODE")
    return model.dynamics


def needs_trajectories(subject: Subject) -> None:
    """UserError: the model has no ODE, or its examples cannot be shown."""
    dynamics_of(subject.run.model)
    needs_plane_or_pictures(subject)


def trajectories(subject: Subject) -> list[Path]:
    """trajectories.png: draws on their way from the source to the data, in the plane as lines; of pictures at 8 times, with the data that
    are predicted there."""
    run, path, dynamics = subject.run, subject.path("trajectories"), dynamics_of(subject.run.model)
    picture = is_image(subject.event)
    n = _PICTURES if picture else _LINES
    given = conditions(subject, n)
    found = generate(
        run.model,
        run.params,
        source(run.model, run.params, subject.key, n, given.get("x0")),
        given.get("context"),
        _TIMES if picture else _POINTS,
    )
    spread = np.asarray([dynamics.spread(t) for t in found.t])
    factor = spread[-1] / spread
    wide = picture or factor[0] < 1 / _WIDE
    states = found.x * (factor if wide else np.ones_like(factor)).reshape(-1, *[1] * (found.x.ndim - 1))
    shown = _seen(subject, states)
    if not picture:
        title = "$x_t$ on the data's scale" if wide else ""
        return [lines(np.asarray(evenly(run.split, _CLOUD).x), shown, path, title)]
    columns = [f"{t:.2g}" for t in found.t]
    blocks = [shown] if found.data is None else [shown, _seen(subject, found.data)]
    tables = [np.stack([block[:, i] for block in blocks]) for i in range(n)]
    names = ["$x_t$"] if found.data is None else ["$x_t$", "predicted data"]
    what = "$x_t$ (scaled to the data's standard deviation)" + (" and E[x | $x_t$]" if len(names) > 1 else "") + " along the ODE"
    heads = [what, *[""] * (n - 1)]
    return [latents.picture_blocks(tables, path, subject.top, rows=[names] * n, columns=columns, titles=heads, xlabel="$t$")]


def needs_round_trips(subject: Subject) -> None:
    """UserError: the model has no ODE, or its examples are not pictures."""
    dynamics_of(subject.run.model)
    needs_pictures(subject)


def round_trips(subject: Subject) -> list[Path]:
    """round_trips.png: data, the source that the ODE takes them to, and the data that it takes this back to."""
    run, path, dynamics = subject.run, subject.path("round_trips"), dynamics_of(subject.run.model)
    data = evenly(run.split, _ROUND_TRIPS)
    context = None if data.context is None else np.asarray(data.context)
    z = encode(run.model, run.params, np.asarray(data.x), context)
    back = decode(run.model, run.params, z, context)
    scaled = z * float(dynamics.spread(dynamics.t_min) / dynamics.spread(dynamics.t_max))
    x = np.asarray(data.x, np.float64)
    pictures = np.stack([np.asarray(data.x, np.float32), _seen(subject, scaled[None])[0], back.astype(np.float32)])
    title = f"data, where the ODE takes them, and back: mean |difference| {np.abs(back - x).mean():.2g}"
    unit = f" of {subject.top:g} grey values" if subject.top else ""
    options = dict(rows=["data", "source", "back"], columns=[""] * len(x), title=title + unit, xlabel="example")
    return [latents.picture_table(pictures, path, subject.top, **options)]  # type: ignore[arg-type]


def _seen(subject: Subject, states: np.ndarray) -> np.ndarray:
    """States [T, n, *shape] of the ODE as data [T, n, *event]."""
    flat = jnp.asarray(states.reshape(-1, *states.shape[2:]))
    found = np.asarray(dynamics_of(subject.run.model).push(subject.run.params, flat))
    return found.reshape(*states.shape[:2], *found.shape[1:])


def lines(data: np.ndarray, states: np.ndarray, path: Path, title: str) -> Path:
    """Ways states [T, n, 2] from the source to the data [N, 2]."""
    with canvas(path, 5.0, 4.8) as figure:
        ax = figure.subplots()
        ax.scatter(*data.T, s=6, alpha=0.6, linewidths=0, color="#c3ccd3", label="data")
        for line in states.swapaxes(0, 1):
            ax.plot(*line.T, color=COLOURS[0], lw=0.5, alpha=0.45, zorder=1.5)
        ax.scatter(*states[0].T, s=7, linewidths=0, color=COLOURS[5], label="source", zorder=2)
        ax.scatter(*states[-1].T, s=9, linewidths=0, color=COLOURS[1], label="samples", zorder=3)
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), markerscale=1.8)
        ax.set(xlabel="$x_1$", ylabel="$x_2$", title=f"{states.shape[1]} trajectories{', ' * bool(title)}{title}")
        ax.set_aspect("equal", adjustable="datalim")
    return path

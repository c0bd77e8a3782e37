"""Figures of what a model draws: samples, marginals, the density in the plane, pairs, temperatures."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vaeflow import models
from vaeflow.errors import UserError
from vaeflow.evaluation import density_grid
from vaeflow.evaluation.information import evenly
from vaeflow.figures import images, latents, points
from vaeflow.figures.draws import conditions, count_classes, draw_x
from vaeflow.figures.figure import POINTS, Subject, grey_top, needs_plane_or_pictures, needs_samples
from vaeflow.figures.images import is_image
from vaeflow.model import Array, Model, Params

TEMPERATURES = (0.0, 0.25, 0.5, 0.7, 0.85, 1.0, 1.2)
_COLUMNS = 12  # pictures at each temperature, or pairs of pictures
_CLOUD = 1000  # points in each of several panels
_AXES = ("$x_1$", "$x_2$")

Names = Sequence[str] | None  # of classes


def needs_samples_alone(subject: Subject) -> None:
    """UserError: there are no samples, or another figure shows them."""
    needs_samples(subject)
    needs_plane_or_pictures(subject)
    if subject.run.model.edits:
        raise UserError("edits shows these samples, beside the examples that they edit")
    shown = False
    with contextlib.suppress(UserError):
        needs_density(subject)
        shown = True
    if shown:
        raise UserError("density shows these samples, beside the data and the density")


def samples(subject: Subject) -> list[Path]:
    """samples.png: pictures, one row per class where the context is the label; or points beside the data, which samples.npz has too."""
    run, path = subject.run, subject.path("samples")
    if not is_image(subject.event):
        data = evenly(run.split, POINTS)
        drawn = draw_x(subject, conditions(subject, len(data.x)), len(data.x))
        density_grid.save(path.with_suffix(".npz"), density_grid.Plane(data.x, drawn))
        return [points.density_panels(data.x, drawn, None, path)]
    n, classes = run.config.sample.n, count_classes(run.split)
    n = -(-n // classes) * classes if classes and subject.label < 0 else n  # equally many of each class
    given = conditions(subject, n, in_turn=True)
    return [_grid(draw_x(subject, given, n), given.get("label"), run.source.label_names, path, _what(subject), subject.top)]


def needs_vectors(subject: Subject) -> None:
    """UserError: there are no samples, or they are pictures, points of the plane or text."""
    needs_samples(subject)
    if subject.run.source.alphabet:
        raise UserError("text shows these samples, as characters")
    if is_image(subject.event) or subject.event == (2,):
        raise UserError(f"needs vectors, and these examples have the shape {subject.event}")


def marginals(subject: Subject) -> list[Path]:
    """marginals.png: histograms of single dimensions of samples and data."""
    data = evenly(subject.run.split, POINTS)
    drawn = draw_x(subject, conditions(subject, len(data.x)), len(data.x))
    return [points.marginals(data.x, drawn, subject.path("marginals"))]


def needs_density(subject: Subject) -> None:
    """UserError: a grid cannot show the model's density."""
    model, split = subject.run.model, subject.run.split
    if not density_grid.applies(model, split.x):
        raise UserError(
            f"needs points of the plane, and a density or an energy for a grid: here the shape {subject.event}, density={model.density!r}"
        )
    density_grid.contexts_of(split.context)


def density(subject: Subject) -> list[Path]:
    """density.png: data, samples (where the model draws some) and the density in the plane; density.npz has them too."""
    run, path = subject.run, subject.path("density")
    data = evenly(run.split, POINTS)
    drawn = None if run.model.sample is None else draw_x(subject, conditions(subject, len(data.x)), len(data.x))
    how = ", normalised on the grid" if density_grid.on_grid(run.model) else "" if run.model.density == "exact" else ", IWAE-64"
    found = subject.density()
    points.density_panels(data.x, drawn, found, path, f"density{how}")
    density_grid.save(path.with_suffix(".npz"), density_grid.Plane(data.x, drawn, found))
    return [path]


def needs_pairs(subject: Subject) -> None:
    """UserError: the model does not map x0 to x, or its samples cannot be shown."""
    needs_samples(subject)
    if not subject.run.model.paired or subject.run.split.x0 is None:
        raise UserError("needs a model that maps x0 to x, and data with such pairs")
    needs_plane_or_pictures(subject)


def pairs(subject: Subject) -> list[Path]:
    """pairs.png: x0, the data x that belong to them, and samples of x given x0."""
    picture, path = is_image(subject.event), subject.path("pairs")
    data = evenly(subject.run.split, _COLUMNS if picture else _CLOUD)
    three = [np.asarray(data.x0), np.asarray(data.x), draw_x(subject, conditions(subject, len(data.x)), len(data.x))]
    if not picture:
        titles = ("$x_0$", "data: $x$ of these $x_0$", "samples given these $x_0$")
        return [latents.point_panels(three, path, titles=titles, axes=_AXES, box=_box(three))]
    options = dict[str, Any](rows=["$x_0$", "data", "sample"], columns=[""] * len(data.x), title=f"{_what(subject)}, given $x_0$")
    return [latents.picture_table(np.stack(three), path, subject.top, xlabel="example", **options)]


def needs_temperature(subject: Subject) -> None:
    """UserError: samples have no temperature, or cannot be shown."""
    needs_samples(subject)
    needs_plane_or_pictures(subject)
    if "temperature" not in subject.run.config.sample:
        raise UserError("needs config.sample.temperature, which this model does not have")


def temperatures(subject: Subject) -> list[Path]:
    """temperatures.png: samples with the same key at each temperature, of a model that is built anew with it."""
    run, path = subject.run, subject.path("temperatures")
    picture, drawn = is_image(subject.event), {}
    n = _COLUMNS if picture else _CLOUD
    given = conditions(subject, n, in_turn=picture)
    for temperature in TEMPERATURES:
        try:
            model = models.build_model({**run.config.to_dict(), "sample": {**run.config.sample.to_dict(), "temperature": temperature}})
        except UserError:  # 0, for a model that divides logits by it
            continue
        drawn[temperature] = draw_x(subject._replace(run=run._replace(model=model)), given, n)
    clouds = [*drawn.values()]
    if not picture:
        titles = [f"temperature {t:g}" for t in drawn]
        return [latents.point_panels(clouds, path, titles=titles, axes=_AXES, box=_box([run.split.x, *clouds]))]
    label = given.get("label")
    columns = [""] * n if label is None else [_class(run.source.label_names, c) for c in label]
    options = dict[str, Any](rows=[f"{t:g}" for t in drawn], columns=columns, title=f"{_what(subject)}; the same noise in each column")
    xlabel = "sample" if label is None else "class"
    return [latents.picture_table(np.stack(clouds), path, subject.top, xlabel=xlabel, ylabel="temperature", **options)]


def draw_samples(
    x: np.ndarray, levels: int | None, path: Path, label: np.ndarray | None = None, names: Names = None, what: str = "samples"
) -> Path:
    """Samples [n, *event] without their data: pictures of `levels` grey values (by class, where they have a `label` [n]), points of the
    plane, or marginals. what: what they are, in words."""
    if is_image(x.shape[1:]):
        return _grid(x, label, names, path, what, grey_top(levels))
    if x.shape[1:] == (2,):
        return points.plane(x, path, f"{len(x):,} {what}")
    return points.marginals(None, x, path)


def shows_means(model: Model, params: Params, context: np.ndarray | None = None) -> bool:
    """True if a sample of a latent variable model is the mean of p(x|z) and not a draw: two keys give the same x for the same z.

    context: [N, C] of a conditional model.
    """
    if model.latent is None:
        return False
    latent, given = model.latent, None if context is None else jnp.asarray(context[:1])

    def pair(params: Params) -> Array:
        prior = latent.prior(params, given)
        z = prior.sample(seed=jax.random.key(0), sample_shape=() if prior.batch_shape else (1,))
        return jnp.stack([latent.show(jax.random.key(i), latent.likelihood(params, z, given)) for i in (1, 2)])

    one, other = np.asarray(jax.jit(pair)(params))
    return bool(np.array_equal(one, other))


def _grid(x: np.ndarray, label: np.ndarray | None, names: Names, path: Path, what: str, top: float) -> Path:
    """Pictures: one row per class, where they are of several."""
    title = f"{len(x)} {what}"
    if label is None:
        return images.image_grid(x, path, title, top)
    if len(np.unique(label)) == 1:
        return images.image_grid(x, path, f"{title}, class {_class(names, label[0])}", top)
    return images.class_grid(x, label, [_class(names, c) for c in range(label.max() + 1)], path, f"{title}, by class", top)


def _what(subject: Subject) -> str:
    """What pictures of samples show."""
    return what_samples(subject.run.model, subject.run.params, subject.run.split.context)


def what_samples(model: Model, params: Params, context: np.ndarray | None = None) -> str:
    """What pictures of samples show, in words."""
    return "samples: means of p(x|z)" if shows_means(model, params, context) else "samples of the model"


def _class(names: Names, number: int) -> str:
    return names[number] if names else str(number)


def _box(clouds: Sequence[np.ndarray]) -> tuple[float, float, float, float]:
    """Left, right, bottom and top of all but the farthest points."""
    low, high = np.quantile(np.concatenate(clouds), (0.0005, 0.9995), axis=0)
    return low[0], high[0], low[1], high[1]

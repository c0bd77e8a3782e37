"""What a person sees of one run: one function a view, one line in VIEWS. Each draws figures and returns their paths.

To add one: a function of a Run that raises Inapplicable, with the reason in one line, where the view makes no sense; and its line.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from vaeflow import figures, models, rng
from vaeflow.data import Source, Split
from vaeflow.errors import UserError
from vaeflow.evaluation import evaluate, latent_paths, latent_space, sampling
from vaeflow.figures import latents
from vaeflow.figures.images import is_image
from vaeflow.model import Model, Params

TEMPERATURES = (0.0, 0.25, 0.5, 0.7, 0.85, 1.0, 1.2)
_DEVIATIONS = np.linspace(-3, 3, 13)  # of the prior, in a traversal
_ROWS = 16  # variables in a traversal
_STEPS = np.linspace(0, 1, 11)  # of an interpolation
_PAIRS = 4  # of examples, where none are named
_SAMPLES = 12  # at each temperature
_POINTS = 1000  # the same, of the plane


class Inapplicable(UserError):
    """A view that makes no sense of this model: said in passing, an error where it was asked for."""


class Request(NamedTuple):
    """A run and what was asked about it: `examples` (rows of `split`, () for none named), `label` of conditional samples or -1."""

    directory: Path
    output: Path
    model: Model
    params: Params
    config: Any
    source: Source
    name: str
    split: Split
    examples: tuple[int, ...]
    seed: int
    label: int
    space: Callable[[], latent_space.Space]


def _traversals(run: Request) -> list[Path]:
    """One variable after the other through the prior's range, the others as an example has them."""
    _needs_latent(run, "traversals")
    _needs_pictures(run, "traversals")
    space, drawn = run.space(), []
    picked = latent_space.most_active(space, _ROWS)
    carried, what = latent_space.activity(space)
    for i in run.examples or _pairs(run)[0][:1]:
        sweep = latent_paths.sweep(space, _encode(run, [i])[1][0], picked, _DEVIATIONS)
        x, title = _decode(run, sweep.z, _context(run, [i])), f"decoder means around {_called(run, i)}, whose own values are framed"
        seen = np.flatnonzero(np.ptp(x, 1).reshape(len(x), -1).any(1))
        if 0 < len(seen) < len(x):  # such as the upper levels of a hierarchy whose decoder has the first one alone
            title += f"\n{len(x) - len(seen)} of the {len(x)} most active latents are left out: p(x|z) does not depend on them"
        else:
            seen = np.arange(len(x))
        x, shown, columns = x[seen], picked[seen], sweep.names
        framed = [(row, int(column)) for row, column in enumerate(sweep.own[seen]) if column >= 0]
        rows = [f"{name}   {carried[v]:.2f}" for name, v in zip(latent_space.names(space, shown), shown, strict=True)]
        labels = "category" if space.width else "value of the latent, in standard deviations of the prior about its mean", f"latent, {what}"
        if 2 * len(columns) < len(rows):  # bits: the longer side lies
            x, framed, labels = x.swapaxes(0, 1), [(column, row) for row, column in framed], labels[::-1]
            rows, columns = columns, [name.replace("   ", "\n") for name in rows]
        path = run.output / f"traversals_{i}.png"
        options = dict[str, Any](rows=rows, columns=columns, framed=framed, title=title, xlabel=labels[0], ylabel=labels[1])
        drawn.append(latents.picture_table(x, path, figures.grey_top(run.config), **options))
    return drawn


def _interpolation(run: Request) -> list[Path]:
    """From one example's latents to another's, in a straight line and along a great circle; the examples stand at both ends."""
    _needs_latent(run, "interpolation")
    _needs_pictures(run, "interpolation")
    if len(run.examples) % 2:
        raise Inapplicable(f"interpolation: needs an even number of --examples (each two are a pair), not {len(run.examples)}")
    space = run.space()
    if space.width:
        raise Inapplicable("interpolation: needs a continuous latent, and this model's is discrete")
    blocks, titles = [], []
    for i, j in zip(run.examples[::2], run.examples[1::2], strict=True) if run.examples else _pairs(run):
        x, z = _encode(run, [i, j])
        given = _context(run, [i, j])
        context = None if given is None else latent_paths.lerp(given[0], given[1], _STEPS)
        path = np.stack([way(z[0], z[1], _STEPS) for way in (latent_paths.lerp, latent_paths.slerp)])
        ends = [np.broadcast_to(end, (2, 1, *end.shape)) for end in x]
        blocks.append(np.concatenate([ends[0], _decode(run, path, context), ends[1]], 1))
        titles.append(f"{_called(run, i)} to {_called(run, j)}")
    columns = ["data", *(f"{t:g}" for t in _STEPS), "data"]
    options = dict[str, Any](rows=[("linear", "spherical")] * len(blocks), columns=columns, titles=titles)
    options["framed"] = [(row, column) for row in (0, 1) for column in (0, len(columns) - 1)]
    xlabel = f"share of the way in z{'' if run.split.context is None else ' (and in the context)'}"
    path = run.output / "interpolation.png"
    return [latents.picture_blocks(blocks, path, figures.grey_top(run.config), xlabel=xlabel, **options)]


def _manifold(run: Request) -> list[Path]:
    if why := figures.lacks_manifold(run.model, run.params, run.split):
        raise Inapplicable(f"manifold: {why}")
    return [figures.draw_manifold(run.model, run.params, run.config, run.output / "manifold.png")]


def _scatter(run: Request) -> list[Path]:
    if run.model.encode is None:
        _needs_latent(run, "scatter")
    drawn = figures.draw_scatter(run.model, run.params, run.split, run.source, run.config, run.output / "scatter.png")
    if drawn is None:
        raise Inapplicable("scatter: needs latents with distances between them, and this model's are codes")
    return [drawn]


def _kl(run: Request) -> list[Path]:
    _needs_latent(run, "kl")
    drawn = figures.draw_kl(run.space(), run.output)
    if not drawn:
        raise Inapplicable("kl: needs latents with a KL of their own or with means, and this model's are codes")
    return drawn


def _prior(run: Request) -> list[Path]:
    _needs_latent(run, "prior")
    return figures.draw_prior(run.space(), run.output)


def _temperatures(run: Request) -> list[Path]:
    """Samples with the same key at each temperature, of a model built anew with it."""
    event, config, path = run.split.x.shape[1:], run.config, run.output / "temperatures.png"
    if not is_image(event) and event != (2,):
        raise Inapplicable(f"temperatures: needs pictures or points of the plane, and these examples have the shape {event}")
    if "temperature" not in config.sample:
        raise Inapplicable("temperatures: needs config.sample.temperature, which this model does not have")
    n = _SAMPLES if is_image(event) else _POINTS
    given, drawn = sampling.conditions(run.directory, config, run.model, n, run.label), {}
    for temperature in TEMPERATURES:
        try:
            model = models.build_model({**config.to_dict(), "sample": {**config.sample.to_dict(), "temperature": temperature}})
        except UserError:  # 0, for a model that divides logits by it
            continue
        own = {name: value for name, value in given.items() if name != "label"}
        drawn[temperature] = sampling.prepare_draw(model, n, own, ("x",))(run.params, jax.random.key(run.seed))["x"]
    x = np.stack([*drawn.values()])
    if not is_image(event):
        low, high = np.quantile(np.concatenate([run.split.x, *x]), (0.0005, 0.9995), axis=0)
        box, titles = (low[0], high[0], low[1], high[1]), [f"temperature {t:g}" for t in drawn]
        return [latents.point_panels([*x], path, titles=titles, axes=("$x_1$", "$x_2$"), box=box)]
    columns = [run.source.label_names[c] for c in given["label"]] if "label" in given and run.source.label_names else [""] * n
    options = dict[str, Any](rows=[f"{t:g}" for t in drawn], columns=columns, title="samples, with the same noise in each column")
    xlabel = "class" if "label" in given else "sample"
    return [latents.picture_table(x, path, figures.grey_top(config), xlabel=xlabel, ylabel="temperature", **options)]


VIEWS: dict[str, Callable[[Request], list[Path]]] = {
    "traversals": _traversals,
    "interpolation": _interpolation,
    "manifold": _manifold,
    "scatter": _scatter,
    "kl": _kl,
    "prior": _prior,
    "temperatures": _temperatures,
}


def _needs_latent(run: Request, view: str) -> None:
    if run.model.latent is None:
        raise Inapplicable(f"{view}: needs a latent variable with a decoder, and this model has none")


def _needs_pictures(run: Request, view: str) -> None:
    if not is_image(run.split.x.shape[1:]):
        raise Inapplicable(f"{view}: needs pictures, and these examples have the shape {run.split.x.shape[1:]}")


def _pairs(run: Request) -> list[tuple[int, int]]:
    """Examples by chance, two by two, of different classes where there are labels."""
    rest = np.random.default_rng(run.seed).permutation(len(run.split.x))
    label = np.arange(len(rest)) if run.split.label is None else np.asarray(run.split.label)
    pairs: list[tuple[int, int]] = []
    while len(rest) > 1 and len(pairs) < _PAIRS:
        others = rest[label[rest] != label[rest[0]]]
        i, j = int(rest[0]), int(others[0] if len(others) else rest[1])
        pairs.append((i, j))
        rest = rest[(rest != i) & (rest != j)]
    return pairs


def _called(run: Request, i: int) -> str:
    label = run.split.label
    names = run.source.label_names
    return f"{run.name} example {i}" + (f" ({names[label[i]]})" if label is not None and names else "")


def _encode(run: Request, rows: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """(x as the model sees it [n, *event], z [n, D]) of examples."""
    some = jax.tree.map(lambda a: np.asarray(a[list(rows)]), run.split)
    key, options = rng.eval_key(run.config.seed), evaluate.map_options(run.source, run.config)
    return latent_paths.encode(run.model, run.params, some, key, **options)


def _context(run: Request, rows: Sequence[int]) -> np.ndarray | None:
    """[n, C] of examples."""
    return None if run.split.context is None else np.asarray(run.split.context[list(rows)])


def _decode(run: Request, z: np.ndarray, context: np.ndarray | None) -> np.ndarray:
    """Means of p(x|z): z [*rows, D], context that broadcasts to [*rows, C]."""
    given = None if context is None else np.broadcast_to(context, (*z.shape[:-1], context.shape[-1]))
    return latent_paths.decode(run.model, run.params, run.space(), z, given)

"""What a person looks at: PNG figures with labelled axes and units.

`draw_all` picks what applies to a model and its data; the single figures are functions of arrays in curves.py (numbers over
training), images.py (pictures) and points.py (latents, two-dimensional densities, marginals).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vaeflow import elbo, evaluate, grid
from vaeflow.data import Source, Split
from vaeflow.figures import curves, images, points
from vaeflow.figures.curves import Rows
from vaeflow.model import Array, Model, Params
from vaeflow.passes import gather, make_pass

_SCATTER = 5000  # points in one scatter plot
_PLANE = 20  # pictures along one side of the latent plane
_PAIRS = 24  # reconstructions


def draw_all(model: Model, params: Params, source: Source, config: Any, rows: Rows, directory: str | Path) -> list[Path]:
    """Write every figure that applies to a trained run into `directory` and return their paths.

    rows: those of metrics.jsonl. The pictures are of the test split (the validation or training split without one).
    """
    directory = Path(directory)
    split = next(s for s in (source.test, source.val, source.train) if s is not None)
    key = jax.random.fold_in(evaluate.eval_key(config.seed), 2)  # apart from the pictures' and the estimators' keys
    top = _top(config.model.get("levels", 0))
    drawn = [
        curves.training_curves(rows, directory / "curves.png"),
        curves.recon_kl_plane(rows, directory / "recon_kl.png"),
        _samples(model, params, split, source.label_names, config, top, key, directory),
    ]
    if grid.applies(model, split.x):
        drawn.append(_density(model, params, split, key, directory / "density.png"))
    if model.latent is not None:
        if images.is_image(split.x.shape[1:]):
            drawn.append(_reconstructions(model, params, split, source, config, top, directory / "reconstructions.png"))
        drawn.append(_latents(model, params, split, source, config, directory / "latents.png"))
        drawn.append(_manifold(model, params, split, top, directory / "manifold.png"))
    return [path for path in drawn if path is not None]


def draw_samples(x: np.ndarray, config: Any, path: str | Path, label: np.ndarray | None = None, names: Sequence[str] = ()) -> Path:
    """Samples [n, *event] alone: pictures (by class, where they have a `label` [n]), points of the plane, or marginals."""
    x, path = np.asarray(x), Path(path)
    if images.is_image(x.shape[1:]):
        if label is not None:
            return images.class_grid(x, label, names, path, f"{len(x)} samples by class", _top(config.model.get("levels", 0)))
        return images.image_grid(x, path, f"{len(x)} samples", _top(config.model.get("levels", 0)))
    if x.shape[1:] == (2,):
        return points.plane(x, path, f"{len(x):,} samples")
    return points.marginals(None, x, path)


def draw_curves(runs: Mapping[str, Rows], path: str | Path) -> Path:
    """The validation curves of several runs, {name: rows of metrics.jsonl}, in one plot."""
    return curves.run_curves(runs, Path(path))


def draw_densities(cells: Sequence[points.Cell], path: str | Path) -> Path:
    """The densities of several two-dimensional models in one table of pictures."""
    return points.density_table(cells, Path(path))


def _top(levels: int) -> float:
    """The largest grey value of a picture; 0 for continuous data."""
    return float(max(levels - 1, 0))


def _head(split: Split, n: int) -> Split:
    """A split of at most n examples, evenly chosen from the whole."""
    rows = np.linspace(0, len(split.x) - 1, min(n, len(split.x))).round().astype(int)
    return jax.tree.map(lambda a: np.asarray(a[rows]), split)


def _draw(model: Model, params: Params, split: Split, key: Array, n: int) -> np.ndarray:
    """n samples; a conditional model gets the contexts of the split's examples in turn."""
    context = None if split.context is None else jnp.asarray(np.resize(np.asarray(split.context), (n, split.context.shape[-1])))
    return np.asarray(jax.jit(model.sample, static_argnums=2)(params, key, n, context))


def _samples(
    model: Model, params: Params, split: Split, names: Sequence[str] | None, config: Any, top: float, key: Array, directory: Path
) -> Path | None:
    event = split.x.shape[1:]
    if images.is_image(event):
        if names is not None and _is_class(split, len(names)):
            label = np.repeat(np.arange(len(names)), -(-config.sample.n // len(names)))
            context = jnp.asarray(np.eye(len(names), dtype=np.float32)[label])
            x = np.asarray(jax.jit(model.sample, static_argnums=2)(params, key, len(label), context))
            return images.class_grid(x, label, names, directory / "samples.png", f"{len(x)} samples of the model, by class", top)
        x = _draw(model, params, _head(split, config.sample.n), key, config.sample.n)
        return images.image_grid(x, directory / "samples.png", f"{len(x)} samples of the model", top)
    if event == (2,):
        if grid.applies(model, split.x):
            return None  # the density's figure shows them
        shown = _head(split, _SCATTER)
        return points.density_panels(shown.x, _draw(model, params, shown, key, len(shown.x)), None, directory / "samples.png")
    shown = _head(split, _SCATTER)
    return points.marginals(shown.x, _draw(model, params, shown, key, len(shown.x)), directory / "marginals.png")


def _is_class(split: Split, classes: int) -> bool:
    """Whether the context is the label, one-hot."""
    if split.context is None or split.label is None or split.context.shape[1:] != (classes,):
        return False
    context = np.asarray(split.context)
    return bool((context == (np.asarray(split.label)[:, None] == np.arange(classes))).all())


def _density(model: Model, params: Params, split: Split, key: Array, path: Path) -> Path:
    shown = _head(split, _SCATTER)
    samples = _draw(model, params, shown, key, len(shown.x))
    what = "density" if model.density == "exact" else "density, IWAE-64"
    found = grid.density(model, params, split, key)
    drawn = points.density_panels(np.asarray(shown.x), samples, found, path, what)
    grid.save(path.with_suffix(".npz"), found, np.asarray(shown.x))
    return drawn


def _reconstructions(model: Model, params: Params, split: Split, source: Source, config: Any, top: float, path: Path) -> Path:
    latent = model.latent
    assert latent is not None

    def fn(params, key, one):
        x, context = one["x"], one.get("context")
        q = latent.posterior(params, x, context)
        known = elbo.gaussian(q)
        z = q.sample(seed=key) if known is None else known[0]
        return {"x": x[0], "mean": latent.likelihood(params, z, context).mean()[0]}

    options = evaluate.pass_options(source, config)
    found = gather(make_pass(fn, _head(split, _PAIRS), evaluate.eval_key(config.seed), **options)(params))
    return images.reconstructions(found["x"], found["mean"], path, top)


def _latents(model: Model, params: Params, split: Split, source: Source, config: Any, path: Path) -> Path:
    shown = _head(split, _SCATTER)
    found = evaluate.encode(model, params, shown, source, config)
    name, what = ("mean", "posterior means") if "mean" in found else ("z", "posterior draws")
    return points.latent_scatter(found[name], shown.label, source.label_names, path, what)


def _manifold(model: Model, params: Params, split: Split, top: float, path: Path) -> Path | None:
    """Only where the prior is N(0, I) in two dimensions, of pictures without a context."""
    latent = model.latent
    assert latent is not None
    if split.context is not None or not images.is_image(split.x.shape[1:]):
        return None
    prior = elbo.gaussian(latent.prior(params))
    if prior is None or prior[0].shape[-1:] != (2,):
        return None
    quantiles = np.asarray(jax.scipy.special.ndtri((np.arange(_PLANE) + 0.5) / _PLANE), np.float32)
    z = np.stack(np.meshgrid(quantiles, quantiles), -1).reshape(-1, 2)
    mean = jax.jit(lambda params, z: latent.likelihood(params, z).mean())(params, z)
    return images.manifold(np.asarray(mean), quantiles, path, top)

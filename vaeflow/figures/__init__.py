"""What a person looks at: PNG figures with labelled axes and units.

`draw_all` picks what applies to a model and its data; the single figures are functions of arrays in curves.py (numbers over
training), images.py (pictures), points.py (scatter plots, two-dimensional densities, marginals), latents.py (latent spaces)
and priors.py (the prior hole).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vaeflow import rng
from vaeflow.data import Source, Split
from vaeflow.evaluation import density_grid, elbo, evaluate, latent_space, sampling
from vaeflow.evaluation.latent_space import Space
from vaeflow.evaluation.map_split import gather, map_split
from vaeflow.figures import curves, images, latents, points, priors
from vaeflow.figures.canvas import captioned
from vaeflow.figures.curves import Rows
from vaeflow.model import Array, Model, Params
from vaeflow.runs.progress import phase

_SCATTER = 5000  # points in one scatter plot
_PLANE = 20  # pictures along one side of the latent plane
_PAIRS = 24  # reconstructions
_MARGINALS = 11  # dimensions whose aggregate posterior is drawn beside the prior


def draw_all(
    model: Model,
    params: Params,
    source: Source,
    config: Any,
    rows: Rows,
    directory: str | Path,
    density: density_grid.GridDensity | None = None,
) -> list[Path]:
    """Write every figure that applies to a trained run into `directory` and return their paths.

    rows: those of metrics.jsonl. density: of two-dimensional data, where it is computed already (of the same split). The pictures are of
    the test split (the validation or training split without one).
    """
    directory = Path(directory)
    name, split = next((name, split) for name in ("test", "val", "train") if (split := getattr(source, name)) is not None)
    average = getattr(config, "optim", {}).get("ema", 0.0)
    averaged = f"parameters averaged over training (EMA {average:g})" if average else "parameters of one step"
    run = f"{directory.absolute().parent.name}, seed {config.seed}"
    key = rng.figure_key(config.seed)
    drawn: list[Path | None] = []

    caption = f"{run}; training: current parameters, validation: {averaged}"

    def draw(name: str, figure: Callable[[], Path | list[Path] | None]) -> None:
        with phase(f"drawing {name}"), captioned(caption):
            found = figure()
        drawn.extend(found if isinstance(found, list) else [found])

    draw("the training curves", lambda: curves.training_curves(rows, directory / "curves.png"))
    draw("the training curves", lambda: curves.recon_kl_plane(rows, directory / "recon_kl.png"))
    caption = f"{run}; {name} split; {averaged}"
    if model.sample is not None:
        draw("samples", lambda: _samples(model, params, split, source.label_names, config, key, directory))
    if density_grid.applies(model, split.x):
        draw("the density", lambda: _density(model, params, split, key, rng.eval_key(config.seed), directory / "density.png", density))
    if model.latent is not None:
        if images.is_image(split.x.shape[1:]):
            draw("reconstructions", lambda: _reconstructions(model, params, split, source, config, directory / "reconstructions.png"))
        draw("the latents", lambda: draw_scatter(model, params, split, source, config, directory / "latents.png"))
        if not lacks_manifold(model, params, split):
            draw("the manifold", lambda: draw_manifold(model, params, config, directory / "manifold.png"))
        with phase("encoding for the figures of the latent space"):
            space = find_space(model, params, split, source, config)
        draw("the latent space", lambda: [*draw_kl(space, directory), *draw_prior(space, directory)])
        if model.latent.before is not None:
            shown = _head(split, _SCATTER)
            draw("the prior hole", lambda: priors.draw_stage(model, params, shown, config, key, directory / "prior_hole.png"))
    return [path for path in drawn if path is not None]


def draw_samples(x: np.ndarray, config: Any, path: str | Path, label: np.ndarray | None = None, names: Sequence[str] = ()) -> Path:
    """Samples [n, *event] alone: pictures (by class, where they have a `label` [n]), points of the plane, or marginals."""
    x, path = np.asarray(x), Path(path)
    if images.is_image(x.shape[1:]):
        if label is not None:
            return images.class_grid(x, label, names, path, f"{len(x)} samples by class", grey_top(config))
        return images.image_grid(x, path, f"{len(x)} samples", grey_top(config))
    if x.shape[1:] == (2,):
        return points.plane(x, path, f"{len(x):,} samples")
    return points.marginals(None, x, path)


def draw_curves(runs: Mapping[str, Rows], path: str | Path, data: Mapping[str, str] | None = None) -> Path:
    """The losses of several runs, {name: rows of metrics.jsonl}; data: {name: its data set}, a panel each."""
    return curves.run_curves(runs, Path(path), data)


def draw_planes(runs: Mapping[str, Rows], path: str | Path) -> Path | None:
    """The paths of runs {name: rows of metrics.jsonl} in the plane of reconstruction and KL; None where no run logs them."""
    one = next(iter(runs.values())) if len(runs) == 1 else None
    return curves.recon_kl_runs(runs, Path(path)) if one is None else curves.recon_kl_plane(one, Path(path))


def draw_densities(cells: Sequence[points.Panel], path: str | Path) -> Path:
    """The densities of several two-dimensional models in one table of pictures."""
    return points.density_table(cells, Path(path))


def grey_top(config: Any) -> float:
    """The largest grey value of a picture; 0 for continuous data."""
    return float(max(config.model.get("levels", 0) - 1, 0))


def _head(split: Split, n: int) -> Split:
    """A split of at most n examples, evenly chosen from the whole."""
    rows = np.linspace(0, len(split.x) - 1, min(n, len(split.x))).round().astype(int)
    return jax.tree.map(lambda a: np.asarray(a[rows]), split)


def _draw(model: Model, params: Params, split: Split, key: Array, n: int) -> np.ndarray:
    """n samples; a conditional model gets the contexts of the split's examples in turn."""
    return sampling.prepare_draw(model, n, sampling.given_of(split), ("x",))(params, key)["x"]


def _samples(
    model: Model, params: Params, split: Split, names: Sequence[str] | None, config: Any, key: Array, directory: Path
) -> Path | None:
    event = split.x.shape[1:]
    what = "samples: means of p(x|z)" if shows_means(model, params, split) else "samples of the model"
    if images.is_image(event):
        if names is not None and _is_class(split, len(names)):
            label = np.repeat(np.arange(len(names)), -(-config.sample.n // len(names)))
            given = sampling.given_classes(model, split, label, len(names))
            x = sampling.prepare_draw(model, len(label), given, ("x",))(params, key)["x"]
            title = f"{len(x)} {what}, by class"
            return images.class_grid(x, label, names, directory / "samples.png", title, grey_top(config))
        x = _draw(model, params, _head(split, config.sample.n), key, config.sample.n)
        return images.image_grid(x, directory / "samples.png", f"{len(x)} {what}", grey_top(config))
    if event == (2,):
        if density_grid.applies(model, split.x):
            return None  # the density's figure shows them
        shown = _head(split, _SCATTER)
        return points.density_panels(shown.x, _draw(model, params, shown, key, len(shown.x)), None, directory / "samples.png")
    shown = _head(split, _SCATTER)
    return points.marginals(shown.x, _draw(model, params, shown, key, len(shown.x)), directory / "marginals.png")


def shows_means(model: Model, params: Params, split: Split) -> bool:
    """True if a sample of a latent variable model is the mean of p(x|z) and not a draw: two keys give the same x for the same z."""
    if model.latent is None:
        return False
    latent, context = model.latent, None if split.context is None else jnp.asarray(split.context[:1])

    def pair(params: Params) -> Array:
        z = latent.posterior(params, jnp.asarray(split.x[:1]), context).sample(seed=jax.random.key(0))
        return jnp.stack([latent.show(jax.random.key(i), latent.likelihood(params, z, context)) for i in (1, 2)])

    one, other = np.asarray(jax.jit(pair)(params))
    return bool(np.array_equal(one, other))


def _is_class(split: Split, classes: int) -> bool:
    """Whether the context is the label, one-hot."""
    if split.context is None or split.label is None or split.context.shape[1:] != (classes,):
        return False
    context = np.asarray(split.context)
    return bool((context == (np.asarray(split.label)[:, None] == np.arange(classes))).all())


def _density(
    model: Model, params: Params, split: Split, key: Array, eval_key: Array, path: Path, found: density_grid.GridDensity | None
) -> Path:
    """key: of the samples; eval_key: of the density, as evaluation computes it, where it is not `found` yet."""
    shown = _head(split, _SCATTER)
    samples = _draw(model, params, shown, key, len(shown.x))
    what = "density" if model.density == "exact" else "density, IWAE-64"
    found = density_grid.density(model, params, split, eval_key) if found is None else found
    drawn = points.density_panels(np.asarray(shown.x), samples, found, path, what)
    density_grid.save(path.with_suffix(".npz"), found, np.asarray(shown.x))
    return drawn


def _reconstructions(model: Model, params: Params, split: Split, source: Source, config: Any, path: Path) -> Path:
    latent = model.latent
    assert latent is not None

    def fn(params, key, one):
        x, context = one["x"], one.get("context")
        q = latent.posterior(params, x, context)
        known = elbo.gaussian(q)
        z = q.sample(seed=key) if known is None else known[0]
        return {"x": x[0], "mean": latent.likelihood(params, z, context).mean()[0]}

    options = evaluate.map_options(source, config)
    found = gather(map_split(fn, _head(split, _PAIRS), rng.eval_key(config.seed), **options)(params))
    return images.reconstructions(found["x"], found["mean"], path, grey_top(config))


def find_space(model: Model, params: Params, split: Split, source: Source, config: Any) -> Space:
    """The latent space as (at most 5,000 examples of) a split sees it: what `draw_kl` and `draw_prior` show."""
    options = evaluate.map_options(source, config)
    return latent_space.space(model, params, _head(split, _SCATTER), rng.eval_key(config.seed), **options)


def draw_scatter(model: Model, params: Params, split: Split, source: Source, config: Any, path: Path) -> Path | None:
    """Posterior means of a split (draws where they have no formula; a flow's z), by label. None for codes: they have no distances."""
    shown = _head(split, _SCATTER)
    found = evaluate.encode(model, params, shown, source, config)
    name, what = ("mean", "posterior means") if "mean" in found else ("z", "posterior draws" if model.latent else "latents")
    if not np.issubdtype(found[name].dtype, np.inexact):
        return None
    return points.latent_scatter(found[name], shown.label, source.label_names, path, what)


def lacks_manifold(model: Model, params: Params, split: Split) -> str:
    """Why there is no manifold of this model: it is drawn where the prior is a Gaussian of two dimensions, of pictures without a context.
    "": it can be drawn."""
    if model.latent is None:
        return "needs a latent variable, and this model has none"
    if not images.is_image(split.x.shape[1:]):
        return f"needs pictures, and these examples have the shape {split.x.shape[1:]}"
    if split.context is not None:
        return "needs a model without a context, and this one is conditional"
    prior = model.latent.prior(params)
    if tuple(prior.event_shape) != (2,):
        return f"needs two latents, and this model has {math.prod(prior.event_shape)}"
    return "" if elbo.gaussian(prior) is not None else "needs a Gaussian prior, and this model's is another one"


def draw_manifold(model: Model, params: Params, config: Any, path: Path) -> Path:
    """The decoder's mean over the plane of two latents, which the model has (`lacks_manifold`)."""
    latent = model.latent
    assert latent is not None
    quantiles = np.asarray(jax.scipy.special.ndtri((np.arange(_PLANE) + 0.5) / _PLANE), np.float32)
    z = np.stack(np.meshgrid(quantiles, quantiles), -1).reshape(-1, 2)
    mean = jax.jit(lambda params, z: latent.likelihood(params, z).mean())(params, z)
    return images.manifold(np.asarray(mean), quantiles, path, grey_top(config))


def draw_kl(space: Space, directory: Path) -> list[Path]:
    """kl.png: KL and variance of every dimension; kl_levels.png: KL of every level of a hierarchy. Nothing for codes."""
    title, drawn = f"what the latents carry: KL {space.kl:.2f} nats", []
    if space.kl_per_level is not None:
        drawn.append(latents.level_bars(space.kl_per_level, directory / "kl_levels.png", title=title))
    if space.variance is not None:
        active = int((space.variance > elbo.ACTIVE).sum())
        title = f"{title}, {active} of {len(space.variance)} units active"
        names = latent_space.names(space, np.arange(len(space.variance)))
        options = dict[str, Any](names=names, sizes=space.sizes, threshold=elbo.ACTIVE, title=title)
        drawn.append(latents.dimension_bars(space.kl_per_dim, space.variance, directory / "kl.png", **options))
    return drawn


def draw_prior(space: Space, directory: Path) -> list[Path]:
    """prior.png: histograms of the aggregate posterior and the prior in the dimensions that carry the most and that agree the least, and
    of the norm; prior_plane.png: draws of both, of two dimensions."""
    discrete = bool(space.width)
    prior, aggregate = ((latent_space.categories(space, z) if discrete else z) for z in (space.prior, space.z))
    gap, distance = latent_space.mismatch(prior, aggregate, discrete), "TV" if discrete else "$W_1$"
    most = latent_space.most_active(space, -(-_MARGINALS // 2))
    least = [d for d in np.argsort(-gap, kind="stable") if d not in most][: _MARGINALS - len(most)]
    picked = np.array([*most, *least], int)
    names, notes = latent_space.names(space, picked), [f"{distance} = {gap[d]:.3f}" for d in picked]
    density = [None if space.normal is None else (float(space.normal[0][d]), float(space.normal[1][d])) for d in picked]
    ours, theirs = aggregate[:, picked], prior[:, picked]
    if not discrete:
        norm, norm_p = (np.linalg.norm(z, axis=1, keepdims=True) for z in (aggregate, prior))
        ours, theirs = np.concatenate([ours, norm], 1), np.concatenate([theirs, norm_p], 1)
        names, notes, density = [*names, "|z|"], [*notes, f"$W_1$ = {latent_space.mismatch(norm, norm_p)[0]:.3f}"], [*density, None]
    meaning = f"{distance}: their {'total variation' if discrete else 'Wasserstein distance'}"
    title = f"prior and aggregate posterior, {len(picked)} of {prior.shape[1]} {'variables' if discrete else 'dimensions'} ({meaning})"
    drawn = [latents.prior_histograms(theirs, ours, directory / "prior.png", names=names, notes=notes, density=density, title=title)]
    if prior.shape[1] == 2 and not discrete:
        drawn.append(latents.prior_plane(prior, aggregate, directory / "prior_plane.png"))
    return drawn

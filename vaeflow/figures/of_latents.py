"""Figures of a latent space: reconstructions, latents by label, the manifold, what the dimensions carry, the prior beside q(z)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vaeflow.errors import UserError
from vaeflow.evaluation import elbo, evaluate, latent_space
from vaeflow.evaluation.information import evenly
from vaeflow.evaluation.map_split import gather, map_split
from vaeflow.figures import images, points
from vaeflow.figures.draws import conditions, draw_x
from vaeflow.figures.figure import POINTS, Subject, are_codes, latent_of, needs_decoded_pictures
from vaeflow.figures.latents import dimension_bars, level_bars, prior_histograms, prior_plane
from vaeflow.figures.priors import prior_columns

_PAIRS = 24  # reconstructions
_SIDE = 20  # pictures along one side of the manifold
_MARGINALS = 11  # dimensions whose aggregate posterior is drawn beside the prior


def reconstructions(subject: Subject) -> list[Path]:
    """reconstructions.png: data above the means of p(x|z), z the posterior's mean (a draw where that has no formula)."""
    run, latent = subject.run, latent_of(subject)

    def fn(params, key, one):
        x, context = one["x"], one.get("context")
        q = latent.posterior(params, x, context)
        known = elbo.gaussian(q)
        z = q.sample(seed=key) if known is None else known[0]
        return {"x": x[0], "mean": latent.likelihood(params, z, context).mean()[0]}

    found = gather(map_split(fn, evenly(run.split, _PAIRS), run.key, **run.options)(run.params))
    return [images.reconstructions(found["x"], found["mean"], subject.path("reconstructions"), subject.top)]


def needs_distances(subject: Subject) -> None:
    """UserError: there are no latents, or they are codes."""
    if subject.run.model.encode is None and are_codes(subject):
        raise UserError("needs latents with distances between them, and this model's are codes")


def scatter(subject: Subject) -> list[Path]:
    """latents.png: posterior means (draws where they have no formula; a flow's z) by label."""
    run = subject.run
    shown = evenly(run.split, POINTS)
    found = evaluate.encode(run.model, run.params, shown, run.source, run.config)
    name, what = ("mean", "posterior means") if "mean" in found else ("z", "posterior draws" if run.model.latent else "latents")
    return [points.latent_scatter(found[name], shown.label, run.source.label_names, subject.path("latents"), what)]


def needs_plane(subject: Subject) -> None:
    """UserError: the prior is not a Gaussian of two dimensions, or the decoder does not make pictures of z alone."""
    needs_decoded_pictures(subject)
    if subject.run.split.context is not None:
        raise UserError("needs a model without a context, and this one is conditional")
    found: dict[str, Any] = {}

    def trace(params):
        prior = latent_of(subject).prior(params)
        found.update(shape=tuple(prior.event_shape), gaussian=elbo.gaussian(prior) is not None)

    jax.eval_shape(trace, subject.run.params)
    if found["shape"] != (2,):
        raise UserError(f"needs two latents, and this model has {math.prod(found['shape'])}")
    if not found["gaussian"]:
        raise UserError("needs a Gaussian prior, and this model has another one")


def manifold(subject: Subject) -> list[Path]:
    """manifold.png: the decoder's mean over the plane of two latents, at quantiles of the prior."""
    latent = latent_of(subject)
    quantiles = np.asarray(jax.scipy.special.ndtri((np.arange(_SIDE) + 0.5) / _SIDE), np.float32)
    deviations = np.stack(np.meshgrid(quantiles, quantiles), -1).reshape(-1, 2)

    @jax.jit
    def decoded(params):
        known = elbo.gaussian(latent.prior(params))
        assert known is not None
        return latent.likelihood(params, known[0] + known[1] * deviations).mean()

    mean = decoded(subject.run.params)
    return [images.manifold(np.asarray(mean), quantiles, subject.path("manifold"), subject.top)]


def needs_units(subject: Subject) -> None:
    """UserError: there are no latents, or they are codes."""
    if are_codes(subject):
        raise UserError("needs latents with a KL or a mean of their own, and this model's are codes")


def kl(subject: Subject) -> list[Path]:
    """kl.png: KL and variance of every dimension; kl_levels.png: KL of every level of a hierarchy."""
    space = subject.space()
    title, drawn = f"what the latents carry: KL {space.kl:.2f} nats", []
    if space.kl_per_level is not None:
        drawn.append(level_bars(space.kl_per_level, subject.path("kl_levels"), title=title))
    if space.variance is not None:
        active = int((space.variance > elbo.ACTIVE).sum())
        title = f"{title}, {active} of {len(space.variance)} units active"
        names = latent_space.names(space, np.arange(len(space.variance)))
        options = dict[str, Any](names=names, sizes=space.sizes, threshold=elbo.ACTIVE, title=title)
        drawn.append(dimension_bars(space.kl_per_dim, space.variance, subject.path("kl"), **options))
    return drawn


def prior(subject: Subject) -> list[Path]:
    """prior.png: histograms of the aggregate posterior and the prior in the dimensions that carry the most and that agree the least, and
    of the norm; prior_plane.png: draws of both, of two dimensions."""
    space = subject.space()
    discrete = bool(space.width)
    theirs, ours = ((latent_space.categories(space, z) if discrete else z) for z in (space.prior, space.z))
    size, plane = theirs.shape[1], (theirs, ours)
    gap, distance = latent_space.mismatch(theirs, ours, discrete), "TV" if discrete else "$W_1$"
    most = latent_space.most_active(space, -(-_MARGINALS // 2))
    least = [d for d in np.argsort(-gap, kind="stable") if d not in most][: _MARGINALS - len(most)]
    picked = np.array([*most, *least], int)
    names, notes = latent_space.names(space, picked), [f"{distance} = {gap[d]:.3f}" for d in picked]
    density = [None if space.normal is None else (float(space.normal[0][d]), float(space.normal[1][d])) for d in picked]
    norm_p, norm = (np.linalg.norm(z, axis=1, keepdims=True) for z in (theirs, ours))
    theirs, ours = theirs[:, picked], ours[:, picked]
    if not discrete:
        theirs, ours = np.concatenate([theirs, norm_p], 1), np.concatenate([ours, norm], 1)
        names, notes, density = [*names, "|z|"], [*notes, f"$W_1$ = {latent_space.mismatch(norm, norm_p)[0]:.3f}"], [*density, None]
    meaning = f"{distance}: their {'total variation' if discrete else 'Wasserstein distance'}"
    title = f"prior and aggregate posterior, {len(picked)} of {size} {'variables' if discrete else 'dimensions'} ({meaning})"
    drawn = [prior_histograms(theirs, ours, subject.path("prior"), names=names, notes=notes, density=density, title=title)]
    if size == 2 and not discrete:
        drawn.append(prior_plane(*plane, subject.path("prior_plane")))
    return drawn


def needs_second_stage(subject: Subject) -> None:
    """UserError: no second stage changed the prior of this model."""
    if latent_of(subject).before is None:
        raise UserError("needs a second stage, which changes the prior of another model and keeps its encoder and decoder")


def prior_hole(subject: Subject) -> list[Path]:
    """prior_hole.png: draws of q(z) = E_x[q(z|x)], of the prior before the second stage and of the new one; above them, where these are
    points of the plane, the data and the samples of both."""
    run, latent = subject.run, latent_of(subject)
    before = latent.before
    assert before is not None
    shown = evenly(run.split, POINTS)
    x, context = jnp.asarray(shown.x), None if shown.context is None else jnp.asarray(shown.context)

    def draws(prior: Any, key: jax.Array) -> jax.Array:
        return prior.sample(seed=key, sample_shape=() if prior.batch_shape else (len(x),))

    @jax.jit
    def latents(params, x):
        keys = jax.random.split(subject.key, 3)
        z = latent.posterior(params, x, context).sample(seed=keys[0])
        return [z, draws(before(params, context), keys[1]), draws(latent.prior(params, context), keys[2])]

    @jax.jit
    def earlier(params, z):
        return latent.show(jax.random.fold_in(subject.key, 3), latent.likelihood(params, z, context))

    z, columns = latents(run.params, x), []
    if subject.event == (2,) and run.model.sample is not None:
        columns = [shown.x, np.asarray(earlier(run.params, z[1])), draw_x(subject, conditions(subject, len(x)), len(x))]
    return [prior_columns(columns, [np.asarray(one).reshape(len(one), -1) for one in z], subject.path("prior_hole"))]

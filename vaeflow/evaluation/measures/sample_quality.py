"""Samples against data that were not trained on: distances with standard errors and floors, of x and of features.

    of x          energy distance, sliced W_2, MMD^2; precision, recall, density, coverage; memorisation (two_sample.py)
    of features   Frechet distance FD = |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) and its limit for n -> infinity

The floor of a number is the same with training examples in place of the samples: a perfect model scores the floor, not 0. Samples are
those of the model's `sample`; if it returns means of p(x|z), as for images, they have no noise of p(x|z), and distances count that too.
Grey values are compared as intensities in [0, 1]. The floor of the features' distance is a little high if the extractor is a classifier
trained on these data: it was trained on one of the two sides. `frechet_extractor` identifies the extractor: distances of two runs are
comparable if it is the same.

The reconstruction of a number is the same with reconstructions of training examples in place of the samples, of models with a latent:
z ~ q(z|x), and x as the model shows p(x|z). Samples of a second stage on these latents can only exceed it by a better prior than q.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from vaeflow.build import Count, Natural, Seed
from vaeflow.data import Split
from vaeflow.errors import UserError, unknown
from vaeflow.evaluation.features import FEATURES, Extractor, efficientnet, installed
from vaeflow.evaluation.information import evenly
from vaeflow.evaluation.measures.classifier import trained_classifier
from vaeflow.evaluation.measures.measure import Evaluation, Finding, MeasureFn
from vaeflow.evaluation.sampling import given_of, prepare_draw
from vaeflow.evaluation.trained_features import of_run
from vaeflow.evaluation.two_sample import (
    FRECHET_DIMENSION,
    FRECHET_EXAMPLES,
    NAMES,
    TwoSampleSettings,
    compare,
    frechet,
    frechet_extrapolated,
)
from vaeflow.model import Array, Params

# A selection compares at least so many samples.
LEAST_SELECTING = 1000
# Subset sizes of the extrapolated Frechet distance, from this share of the examples on.
_SIZES, _SMALLEST = 9, 0.2
# The smallest subset has this many examples per feature.
_LEAST_SIZE = 5
_DIGITS = 12  # of a sha256


class SampleQualitySettings(NamedTuple):
    """Settings of the measure.

    samples           draws of the model; 0: as many as there are held-out examples
    examples          at most, of samples and of held-out data
    projections       directions of the sliced distance
    neighbours        k of precision, recall, density and coverage
    names             the comparisons of x; one of two_sample.NAMES each
    floor             whether the floors are computed
    reconstructions   whether reconstructions are compared too
    extractor         of the Frechet distance: none (of x itself), classifier, efficientnet; auto: the classifier if one is named or there
                      are labels and enough examples, else none
    classifier        workdir of a trained run, whose `encode` gives the features (see vaeflow/evaluation/trained_features.py): a run of
                      configs/digits_classifier.py; "": a classifier that is trained here, to which the following settings belong
    features          of the classifier
    classifier_steps  of its training
    classifier_seed   of its training
    """

    samples: Natural = 0
    examples: Count = 5000
    projections: Count = 128
    neighbours: Count = 5
    names: tuple[str, ...] = NAMES
    floor: bool = True
    reconstructions: bool = False
    extractor: Literal["auto", "none", "classifier", "efficientnet"] = "auto"
    classifier: str = ""
    features: Count = 64
    classifier_steps: Count = 1500
    classifier_seed: Seed = 0


BETTER = {
    **dict.fromkeys(("energy", "sliced_wasserstein", "mmd2", "frechet", "frechet_extrapolated"), "low"),
    **dict.fromkeys(("precision", "recall", "density", "coverage"), "high"),
}


def needs(run: Evaluation, settings: SampleQualitySettings) -> None:
    """UserError: the model draws nothing, the examples are of the training split, too few, or a name is unknown."""
    if run.model.sample is None:
        raise UserError("this model draws no samples")
    if run.name == "train":
        raise UserError("samples are compared with data that were not trained on; --split: val or test")
    if settings.reconstructions and run.model.latent is None:
        raise UserError("sample_quality.reconstructions=True needs a model with a latent, such as a vae")
    if settings.reconstructions and run.config.data.binarize == "dynamic":
        raise UserError("sample_quality.reconstructions=True needs data that are not binarized anew in each batch: data.binarize='dynamic'")
    for name in settings.names:
        if name not in NAMES:
            raise unknown("sample_quality.names", name, NAMES)
    if not jax.numpy.issubdtype(np.asarray(run.split.x[:1]).dtype, np.number):
        raise UserError(f"distances need numbers, and the data are {run.split.x.dtype}")
    kind = _kind(run, settings)
    if kind == "efficientnet" and settings.classifier:
        raise UserError(f"sample_quality.classifier={settings.classifier!r} is not used with sample_quality.extractor='efficientnet'")
    least = max(settings.neighbours, 8, _count(run, settings))  # memorisation halves the held-out examples for its floor
    held = min(len(run.split.x), settings.examples)
    sizes = {
        "held-out examples": held,
        "samples": min(settings.samples or held, settings.examples),
        "training examples": len(run.source.train.x),
    }
    for name, size in sizes.items():
        if size <= least:
            raise UserError(f"{size} {name} are too few: more than {least} are needed")
    if kind == "classifier" and not settings.classifier and not _labelled(run):
        raise UserError("sample_quality.extractor='classifier' needs labels, which these data lack, or a run, sample_quality.classifier")
    if kind == "efficientnet" and run.split.x.ndim != 4:
        raise UserError(f"sample_quality.extractor='efficientnet' needs images, and examples have the shape {run.split.x.shape[1:]}")
    if kind == "efficientnet":
        installed()


def for_selection(run: Evaluation, finding: str) -> dict[str, Any]:
    """The settings with which this measure selects a checkpoint by `finding`: that comparison alone, without floors, of at least
    LEAST_SELECTING samples."""
    of = {"frechet_extrapolated": "frechet"} | dict.fromkeys(("precision", "recall", "density", "coverage"), "neighbours")
    own = {"samples": max(LEAST_SELECTING, len(run.split.x)), "names": (of.get(finding, finding),), "floor": False}
    return own | ({} if finding.startswith("frechet") else {"extractor": "none"})


def provides(run: Evaluation, settings: SampleQualitySettings) -> list[str]:
    """The findings of BETTER for these data and settings."""
    found = [name for name in settings.names if name in BETTER]
    found += ["precision", "recall", "density", "coverage"] if "neighbours" in settings.names else []
    if "frechet" not in settings.names:
        return found
    n = min(settings.samples or len(run.split.x), settings.examples, len(run.split.x))
    dimension = int(np.prod(run.split.x.shape[1:]))
    if _kind(run, settings) == "none":
        applies = dimension <= FRECHET_DIMENSION and n >= FRECHET_EXAMPLES * dimension
        return [*found, "frechet_extrapolated"] if applies else [name for name in found if name != "frechet"]
    return [*found, "frechet_extrapolated"] if n >= 2 * _LEAST_SIZE * _count(run, settings) else found


def prepare(run: Evaluation, settings: SampleQualitySettings) -> MeasureFn:
    """All comparisons; keys, held-out examples and training examples are those of the run, whatever the parameters."""
    s = settings
    split = evenly(run.split, s.examples)
    n = min(s.samples or len(split.x), s.examples)
    grey = max(run.source.levels - 1, 1)
    drawn_grey = 1 if run.config.data.binarize == "dynamic" else grey
    training = evenly(run.source.train, max(n, len(split.x)))
    held, seen = (np.asarray(x, np.float32) / grey for x in (split.x, training.x))
    draw = prepare_draw(run.model, n, given_of(split), ("x",))
    names = tuple(name for name in s.names if name != "frechet" or _kind(run, s) == "none")
    salt = zlib.crc32(b"sample_quality")
    rows = np.arange(m := min(n, len(seen))) * len(seen) // m
    of_features = _frechet(run, s, held, seen[rows]) if _kind(run, s) != "none" else None
    two_sample = TwoSampleSettings(s.examples, s.projections, s.neighbours, names=names, floor=False)
    floors: dict[str, Finding] = {}
    reconstruct = _reconstructions(run, training, rows) if s.reconstructions else None

    def findings(key: Array, x: np.ndarray, floor: bool) -> dict[str, Finding]:
        found = compare(key, x, seen, held, two_sample._replace(floor=floor))
        return {name: Finding(value, what, se) for name, (value, se, what) in found.items()} | (of_features(x) if of_features else {})

    def measure(params: Params, key: Array) -> dict[str, Finding]:
        own = jax.random.fold_in(key, salt)
        compared = jax.random.fold_in(own, 1)
        x = np.asarray(draw(params, jax.random.fold_in(own, 0))["x"], np.float32) / drawn_grey
        out = findings(compared, x, s.floor and not floors)  # floors are of the data alone: computed once
        floors.update({name: finding for name, finding in out.items() if name.endswith("_floor")})
        if reconstruct is None:
            return out | floors
        found = findings(compared, reconstruct(params, jax.random.fold_in(own, 2)) / drawn_grey, False)
        found = {name: finding for name, finding in found.items() if not name.endswith(("_floor", "_extractor"))}
        return (
            out | floors | {f"{name}_reconstruction": f._replace(what=f"reconstructions as samples: {f.what}") for name, f in found.items()}
        )

    return measure


def _reconstructions(run: Evaluation, split: Split, rows: np.ndarray) -> Callable[[Params, Array], np.ndarray]:
    """(params, key) -> reconstructions [M, *event] of these rows of a split: of the batch size of the evaluation at a time."""
    latent = run.model.latent
    assert latent is not None
    x, context = split.x[rows], None if split.context is None else split.context[rows]
    size = min(run.config.eval.batch, len(rows))

    @jax.jit
    def some(params: Params, key: Array, x: Array, context: Array | None) -> Array:
        key_z, key_x = jax.random.split(key)
        z = latent.posterior(params, x, context).sample(seed=key_z)
        return latent.show(key_x, latent.likelihood(params, z, context))

    def reconstruct(params: Params, key: Array) -> np.ndarray:
        found = []
        for i, start in enumerate(range(0, len(rows), size)):
            own = np.arange(start, start + size) % len(rows)  # the last ones from the start again: one shape, one program
            found.append(some(params, jax.random.fold_in(key, i), x[own], None if context is None else context[own]))
        return np.concatenate(jax.device_get(found))[: len(rows)].astype(np.float32)

    return reconstruct


def _kind(run: Evaluation, settings: SampleQualitySettings) -> str:
    """The kind of extractor of the Frechet distance, if that is asked for, with "auto" resolved."""
    if "frechet" not in settings.names:
        return "none"
    if settings.extractor != "auto":
        return settings.extractor
    if settings.classifier:
        return "classifier"
    enough = min(len(run.split.x), len(run.source.train.x)) > settings.features
    return "classifier" if _labelled(run) and enough else "none"


def _labelled(run: Evaluation) -> bool:
    return run.source.train.label is not None and run.source.label_names is not None


def _named(run: Evaluation, settings: SampleQualitySettings) -> Extractor:
    """The extractor that the setting `classifier` names. UserError: it names none, or one that does not fit the data."""
    try:
        return of_run(settings.classifier, run.split.x.shape[1:], run.source.levels)
    except UserError as error:
        raise UserError(f"sample_quality.classifier={settings.classifier!r}: {error}") from None


def _count(run: Evaluation, settings: SampleQualitySettings) -> int:
    """The number of features that the extractor gives; 0: there is none."""
    kind = _kind(run, settings)
    if kind == "classifier":
        return _named(run, settings).count if settings.classifier else settings.features
    return FEATURES if kind == "efficientnet" else 0


def _extractor(run: Evaluation, s: SampleQualitySettings) -> Extractor:
    if _kind(run, s) == "efficientnet":
        return efficientnet()
    if s.classifier:
        return _named(run, s)
    return trained_classifier(run.source, run.config.data, s.features, s.classifier_steps, s.classifier_seed)


def _frechet(run: Evaluation, s: SampleQualitySettings, held: np.ndarray, seen: np.ndarray) -> Callable[[np.ndarray], dict[str, Finding]]:
    """Samples [N, *event] -> their Frechet distances to the held-out data in features, with floors."""
    own = _extractor(run, s)
    data, floor = own.features(held), own.features(seen) if s.floor else None

    def measure(x: np.ndarray) -> dict[str, Finding]:
        out = frechet_findings(own.features(x), data, f"samples, {len(data):,} held out; {own.name}")
        out["frechet_extractor"] = Finding(own.sha256[:_DIGITS], "sha256 of the extractor: distances of others are not comparable")
        if floor is None:
            return out
        return out | frechet_findings(floor, data, f"training examples, {len(data):,} held out; {own.name}", "_floor")

    return measure


def frechet_findings(features: np.ndarray, data: np.ndarray, what: str, suffix: str = "") -> dict[str, Finding]:
    """The Frechet distance of two sets of features and, with enough of them, its limit for n -> infinity.

    Args:
        features: [N, F] of the samples.
        data: [M, F] of the held-out examples.
        what: words for the two sets, after the number N.
        suffix: of the findings' names.
    """
    n, count = min(len(features), len(data)), data.shape[1]
    out = {f"frechet{suffix}": Finding(frechet(features, data), f"Frechet distance; {len(features):,} {what}")}
    if n >= 2 * _LEAST_SIZE * count:  # below, the bias is not linear in 1/n
        sizes = sorted({int(size) for size in np.linspace(max(_SMALLEST * n, _LEAST_SIZE * count), n, _SIZES)})
        value, se = frechet_extrapolated(features, data, sizes)
        how = f"Frechet distance for n -> infinity, from n = {sizes[0]:,} to {n:,} (s.e. of the regression); {len(features):,} {what}"
        out[f"frechet_extrapolated{suffix}"] = Finding(value, how, se)
    return out

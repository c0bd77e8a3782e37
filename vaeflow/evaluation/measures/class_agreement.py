"""Whether samples that are given a class are of that class, by a linear probe of a classifier's features.

    agreement   share of samples whose predicted class is the one that was asked for
    held_out    the probe's accuracy on the examples of the split: a perfect model scores it, not 1

Every class is asked for equally often. The features are those of `sample_quality`: of a classifier that is trained here on the training
split, or of the run that is named. What guidance buys is read off this number beside the distances of sample_quality.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

import jax
import numpy as np

from vaeflow.build import Count, Positive, Seed
from vaeflow.errors import UserError
from vaeflow.evaluation.information import evenly
from vaeflow.evaluation.measures.classifier import trained_classifier
from vaeflow.evaluation.measures.measure import Evaluation, Finding, MeasureFn
from vaeflow.evaluation.measures.probes import labelled, linear
from vaeflow.evaluation.sampling import given_classes, prepare_draw
from vaeflow.evaluation.trained_features import of_run
from vaeflow.model import Array, Params


class ClassAgreementSettings(NamedTuple):
    """Settings of the measure.

    samples           draws of the model
    train             examples that the probe learns from, at the most
    c, iterations     of the probe, see probes.py
    classifier        workdir of a run whose `encode` gives the features; "": a classifier that is trained here
    features          of the classifier that is trained here
    classifier_steps  of its training
    classifier_seed   of its training
    """

    samples: Count = 1000
    train: Count = 5000
    c: Positive = 1.0
    iterations: Count = 1000
    classifier: str = ""
    features: Count = 64
    classifier_steps: Count = 1500
    classifier_seed: Seed = 0


BETTER = {"agreement": "high"}


def needs(run: Evaluation, settings: ClassAgreementSettings) -> None:
    """UserError: the model draws nothing or is not given classes, or the data have no labels."""
    if run.model.sample is None:
        raise UserError("this model draws no samples")
    if run.config.data.context != "label" or run.source.label_names is None or run.source.train.label is None:
        raise UserError("samples need a class as context: data.context='label' and data with labels")
    if run.split.label is None or run.name == "train":
        raise UserError("the probe learns from the training split; --split: val or test, with labels")
    if settings.classifier:
        _named(run, settings)


def _named(run: Evaluation, settings: ClassAgreementSettings):
    try:
        return of_run(settings.classifier, run.split.x.shape[1:], run.source.levels)
    except UserError as error:
        raise UserError(f"class_agreement.classifier={settings.classifier!r}: {error}") from None


def prepare(run: Evaluation, settings: ClassAgreementSettings) -> MeasureFn:
    """See the module's docstring."""
    s, names = settings, run.source.label_names
    assert names is not None
    asked = np.arange(s.samples) % len(names)
    draw = prepare_draw(run.model, s.samples, given_classes(run.model, run.split, asked, len(names)), ("x",))
    top = max(run.source.levels - 1, 1)
    of_samples = 1 if run.config.data.binarize == "dynamic" else top
    own = _named(run, s) if s.classifier else None
    own = own or trained_classifier(run.source, run.config.data, s.features, s.classifier_steps, s.classifier_seed)
    train, held = labelled(evenly(run.source.train, s.train)), labelled(run.split)
    seen, tested = (own.features(np.asarray(split.x, np.float32) / top) for split in (train, held))
    accuracy = float((linear(seen, train.label, tested, s.c, s.iterations) == held.label).mean())
    ceiling = Finding(accuracy, f"accuracy of the probe on {len(held.x):,} examples; {own.name}", _se(accuracy, len(held.x)))

    def measure(params: Params, key: Array) -> dict[str, Finding]:
        x = draw(params, jax.random.fold_in(key, zlib.crc32(b"class_agreement")))["x"]
        found = linear(seen, train.label, own.features(np.asarray(x, np.float32) / of_samples), s.c, s.iterations)
        p = float((found == asked).mean())
        what = f"share of {s.samples:,} samples, every class equally often, that the probe assigns to the class that was asked for"
        return {"agreement": Finding(p, what, _se(p, s.samples)), "held_out": ceiling}

    return measure


def _se(p: float, n: int) -> float:
    """The binomial standard error of a share."""
    return (p * (1 - p) / n) ** 0.5

"""The model's own terms (`Model.terms`), means over a split."""

from __future__ import annotations

from typing import NamedTuple

from vaeflow.errors import UserError
from vaeflow.evaluation.elbo import own_terms
from vaeflow.evaluation.likelihood import mean_se
from vaeflow.evaluation.map_split import gather, map_split
from vaeflow.evaluation.measures.measure import Evaluation, Finding, MeasureFn
from vaeflow.model import Array, Params


class TermsSettings(NamedTuple):
    """No settings."""


def needs(run: Evaluation, settings: TermsSettings) -> None:
    """UserError: the model has no terms of its own."""
    del settings
    if run.model.terms is None:
        raise UserError(f"model.kind={run.config.model['kind']!r} has no terms of its own")


def prepare(run: Evaluation, settings: TermsSettings) -> MeasureFn:
    """The mean of each term with its standard error over examples."""
    del settings
    terms = map_split(own_terms(run.model), run.split, run.key, **run.options)

    def measure(params: Params, key: Array) -> dict[str, Finding]:
        out = {}
        for name, values in gather(terms(params, key)).items():
            value, se = mean_se(values)
            out[name] = Finding(value, "a term of the model", se)
        return out

    return measure

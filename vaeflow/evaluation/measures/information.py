"""Mutual information, the aggregate posterior and the reconstruction error of a model with a latent variable."""

from __future__ import annotations

from typing import NamedTuple

from vaeflow.evaluation.information import information_terms
from vaeflow.evaluation.measures.measure import Evaluation, Finding, findings


class InformationSettings(NamedTuple):
    """No settings."""


WHAT = {
    "information": "mutual information I(x; z) under q, nats",
    "aggregate_kl": "KL(q(z) || p(z)) of the aggregate posterior",
    "total_correlation": "of q(z), nats",
    "dimension_kl": "sum over d of KL(q(z_d) || p(z_d))",
    "own_share": "share of q(z_n) that is example n's own posterior",
    "recon_mse": "squared error of an element's reconstruction",
}


def check(run: Evaluation, settings: InformationSettings) -> dict[str, Finding]:
    """See `evaluation.information.information_terms`."""
    del settings
    top = max(run.source.levels - 1, 1) if run.config.data.binarize != "dynamic" else 1
    return findings(information_terms(run.model, run.params, run.split, run.key, top=top, **run.options), WHAT)

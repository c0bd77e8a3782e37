"""The terms of the ELBO and the active units of a model with a latent variable."""

from __future__ import annotations

from typing import NamedTuple

from vaeflow.evaluation.elbo import ACTIVE, ACTIVE_KL, prepare_latent_terms
from vaeflow.evaluation.measures.measure import Evaluation, Finding, MeasureFn, findings
from vaeflow.model import Array, Params


class ElboSettings(NamedTuple):
    """No settings."""


WHAT = {
    "neg_elbo": "-ELBO = reconstruction + KL, nats per example",
    "recon": "-E log p(x|z), the distortion",
    "kl": "KL(q(z|x) || p(z)), the rate",
    "kl_kind": "of the KL",
    "kl_per_dim": "per latent dimension",
    "kl_per_level": "per level of a hierarchy, from the data up",
    "kl_active_units": f"latent dimensions with a KL above {ACTIVE_KL:g} nats",
    "active_units": f"latent units whose posterior mean varies by more than {ACTIVE:g}",
    "latent_units": "all of them",
    "unit_variance": "variance of the posterior mean over the examples",
    "active_per_level": "active units per level",
    "units_per_level": "units per level",
}


def prepare(run: Evaluation, settings: ElboSettings) -> MeasureFn:
    """See `evaluation.elbo.latent_terms`."""
    del settings
    terms = prepare_latent_terms(run.model, run.params, run.split, run.key, **run.options)

    def measure(params: Params, key: Array) -> dict[str, Finding]:
        return findings(terms(params, key), WHAT)

    return measure

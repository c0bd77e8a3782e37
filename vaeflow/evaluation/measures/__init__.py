"""Measures: one a file, one line here. `evaluate` stores those of eval.measures in results.json, `diagnose` any in diagnostics.json.

To add one: write a file with its settings (a NamedTuple of annotated fields with defaults), `needs(run, settings)`, which raises a
UserError where the measure does not apply, and `prepare(run, settings)`, which compiles once and returns (params, key) -> {name: Finding};
then add its line. The command's flags, its --list, the tables and results.json follow from that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from vaeflow.build import call
from vaeflow.config import plain
from vaeflow.errors import UserError, unknown_kind
from vaeflow.evaluation.measures import (
    ais,
    anomaly,
    class_agreement,
    density_grid,
    elbo,
    hmc,
    information,
    iwae,
    likelihood,
    mode_coverage,
    probes,
    refine,
    sample_quality,
    sampling,
    stored_features,
    terms,
    transport,
)
from vaeflow.evaluation.measures.measure import Evaluation, Finding, Measure, needs_latent, once

__all__ = ["MEASURES", "Evaluation", "Finding", "Measure", "applicable", "known", "lacking", "once", "settings_of"]

MEASURES: dict[str, Measure] = {
    "elbo": Measure(
        elbo.prepare, needs_latent, "the ELBO's terms and active units", elbo.ElboSettings(), {"neg_elbo": "low", "recon": "low"}
    ),
    "information": Measure(
        once(information.check),
        needs_latent,
        "mutual information, aggregate posterior, reconstruction error",
        information.InformationSettings(),
    ),
    "likelihood": Measure(likelihood.prepare, likelihood.needs, "negative log-likelihood", likelihood.LikelihoodSettings(), {"nll": "low"}),
    "terms": Measure(terms.prepare, terms.needs, "the model's own terms", terms.TermsSettings()),
    "density_grid": Measure(
        once(density_grid.check), density_grid.needs, "a two-dimensional density on a grid", density_grid.DensityGridSettings()
    ),
    "iwae": Measure(once(iwae.check), iwae.needs, "log p(x) by importance weighting", iwae.IWAESettings()),
    "ais": Measure(once(ais.ais), ais.needs, "log p(x) by annealed importance sampling with HMC transitions", ais.AISSettings()),
    "bdmc": Measure(
        once(ais.bdmc),
        ais.needs_exact_draws,
        "bidirectional Monte Carlo: log p(x) from both sides, on data from the model",
        ais.AISSettings(),
    ),
    "hmc": Measure(once(hmc.check), hmc.needs, "log p(x) of small latents by HMC samples and a fitted density", hmc.HMCSettings()),
    "refine": Measure(
        once(refine.check), refine.needs, "amortisation and approximation gap of a diagonal Gaussian q(z|x)", refine.RefineSettings()
    ),
    "probes": Measure(
        once(probes.check), probes.needs, "labels from latents: a linear probe and nearest neighbours", probes.ProbesSettings()
    ),
    "anomaly": Measure(
        once(anomaly.check), anomaly.needs, "telling another set from the data: AUROC of the model's scores", anomaly.AnomalySettings()
    ),
    "sample_quality": Measure(
        sample_quality.prepare,
        sample_quality.needs,
        "samples against held-out data: distances with floors, precision, recall, memorisation",
        sample_quality.SampleQualitySettings(),
        sample_quality.BETTER,
        sample_quality.for_selection,
        sample_quality.provides,
        noisy=True,
    ),
    "mode_coverage": Measure(
        mode_coverage.prepare,
        mode_coverage.needs,
        "the modes of a mixture that samples reach",
        mode_coverage.ModeCoverageSettings(),
        mode_coverage.BETTER,
        noisy=True,
    ),
    "class_agreement": Measure(
        class_agreement.prepare,
        class_agreement.needs,
        "samples of a class: how often they are of it",
        class_agreement.ClassAgreementSettings(),
        class_agreement.BETTER,
        noisy=True,
    ),
    "sampling": Measure(sampling.prepare, sampling.needs, "what draws cost: evaluations and seconds", sampling.SamplingSettings()),
    "transport": Measure(
        transport.prepare,
        transport.needs,
        "trajectories from the source to data: straightness, transport cost, kinetic energy",
        transport.TransportSettings(),
    ),
    "stored_features": Measure(
        once(stored_features.check),
        stored_features.needs,
        "Frechet distance of features that another program computed",
        stored_features.StoredFeaturesSettings(),
    ),
}

# What eval.measures=() stands for: those of them that apply, and sample_quality for a model that draws samples and has neither a density
# nor a latent.
DEFAULT = ("elbo", "information", "likelihood", "terms", "density_grid")


def known(names: Iterable[str], key: str) -> None:
    """UserError: `names`, the value of the config key or flag `key`, has no measure."""
    for name in names:
        if name not in MEASURES:
            raise unknown_kind(key, name, MEASURES)


def settings_of(name: str, evaluation: Any, changed: Mapping[str, Any] | None = None) -> Any:
    """The checked settings of a measure: its defaults, eval.k and eval.chunk of the likelihood, eval.settings[name], then `changed`."""
    measure = MEASURES[name]
    values = dict(measure.defaults._asdict())
    if name == "likelihood":
        values |= {"k": evaluation.k, "chunk": evaluation.chunk}
    given = plain(evaluation.get("settings", {})).get(name, {})
    if not isinstance(given, Mapping):
        raise UserError(f"eval.settings.{name}={given!r} has the wrong type; it must be a group of values")
    own = {**given, **(changed or {})}
    for key, value in own.items():  # the command line gives a list as text: it does not know the type of a key that it adds
        own[key] = tuple(value.split(",")) if isinstance(value, str) and isinstance(values.get(key), tuple) else value
    return call(type(measure.defaults), values | own, f"eval.settings.{name}")


def lacking(name: str, run: Evaluation, settings: Any) -> str:
    """Why a measure does not apply; "" if it does."""
    try:
        MEASURES[name].needs(run, settings)
    except UserError as error:
        return str(error)
    return ""


def applicable(run: Evaluation, names: Iterable[str] = ()) -> dict[str, Any]:
    """{measure: settings} of an evaluation.

    Args:
        names: eval.measures; (): those of DEFAULT that apply.

    Raises:
        UserError: a named measure is unknown, does not apply, or has an invalid setting.
    """
    names = tuple(names)
    known(names, "eval.measures")
    unmeasured = run.model.log_prob is None and run.model.latent is None
    wanted = names or (*DEFAULT, *(("sample_quality",) if unmeasured else ()))
    found = {name: settings_of(name, run.config.eval) for name in wanted}
    why = {name: lacking(name, run, settings) for name, settings in found.items()}
    for name in names:
        if why[name]:
            raise UserError(f"eval.measures: {name!r} does not apply: {why[name]}")
    return {name: settings for name, settings in found.items() if not why[name]}

"""results.json as a person reads it. Imports no jax: a finished run answers at once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from vaeflow.evaluation.reliability import PARETO_LIMIT, nll_is_bound
from vaeflow.runs.metrics import aligned_table

# (key, title, decimals); a row appears where results.json has its key, with its standard error where that is there too.
_ROWS = (
    ("neg_elbo", "-ELBO", 2),
    ("recon", "  reconstruction, the distortion", 2),
    ("kl", "  KL ({kl_kind}), the rate", 2),
    ("information", "    mutual information I(x; z)", 3),
    ("aggregate_kl", "    KL(q(z) || p(z))", 3),
    ("total_correlation", "      total correlation of q(z)", 3),
    ("dimension_kl", "      sum of KL(q(z_d) || p(z_d))", 3),
    ("nll", "{likelihood}", 3),
    ("bits_per_dim", "  in bits/dim{bound}", 4),
    ("bits_per_character", "  in bits/character{bound}", 4),
    ("true_nll", "NLL of the true density", 3),
    ("kl_to_truth", "KL(truth || model)", 4),
    ("integral", "integral over the grid", 4),
    ("nll_grid", "NLL, normalised on the grid", 3),
    ("kl_grid", "KL(truth || model), on the grid", 4),
    ("recon_mse", "squared error of an element", 5),
)
# Measures whose findings are rows of the summary; all others have a table of their own.
SUMMARISED = ("elbo", "information", "likelihood", "density_grid")
_DENSITY = {
    "exact": "exact log-likelihood",
    "weight": "estimated by importance weighting",
    "weight, bound": "a lower bound on log p(x) by importance weighting; the weights are too uneven for an estimate",
    "bound": "a lower bound of the log-likelihood",
    "estimate": "an unbiased estimate of the log-likelihood",
    "none": "no density",
}


def flat(results: Mapping[str, Any]) -> dict[str, Any]:
    """{name: value, name_se: standard error} of a results file, and the entries that are not findings.

    The findings are stored under "measures"; a name that two measures have is the first one's, and "measure.name" is always there. Files
    written before measures existed are flat already.
    """
    out = {name: value for name, value in results.items() if name != "measures"}
    for measure, entry in results.get("measures", {}).items():
        for name, finding in entry["numbers"].items():
            for key in (f"{measure}.{name}", *((name,) if name not in out else ())):
                out[key] = finding["value"]
                if "se" in finding:
                    out[f"{key}_se"] = finding["se"]
    return out


def findings_table(entries: Mapping[str, Mapping[str, Any]]) -> str:
    """The aligned table of {measure: {numbers, settings, seconds}}; NAME_floor stands beside NAME, lists are left out."""
    rows: list[tuple[Any, ...]] = []
    for measure, entry in entries.items():
        numbers = {name: finding for name, finding in entry["numbers"].items() if not isinstance(finding["value"], list)}
        shown = {name: finding for name, finding in numbers.items() if name.removesuffix("_floor") == name or name[:-6] not in numbers}
        for i, (name, finding) in enumerate(shown.items()):
            own, floor = (rounded(one.get("value"), one.get("se")) for one in (finding, numbers.get(f"{name}_floor", {})))
            rows.append(("" if i else measure, None if i else entry["seconds"], name, *own, *floor, finding.get("what", "")))
    titles = ("measure", "seconds", "number", "value", "± s.e.", "floor", "± s.e. ", "what it is")
    kept = [i for i in range(len(titles)) if any(row[i] for row in rows)]
    return aligned_table([titles[i] for i in kept], [[row[i] for i in kept] for row in rows], {"seconds": 1})


def rounded(value: Any, se: float | None) -> tuple[str, str]:
    """A number with the decimals that its standard error supports (two digits of it), else with four digits; and the error."""
    if not isinstance(value, float) or not math.isfinite(value):
        return "" if value is None else str(value), ""
    if not se or not math.isfinite(se):
        return f"{value:.4g}", "0" if se == 0 else ""
    decimals = min(max(1 - math.floor(math.log10(se)), 0), 12)
    return f"{value:.{decimals}f}", f"{se:.{decimals}f}"


def format_results(found: Mapping[str, Any], sampling: str = "") -> str:
    """The text of a results file: the known numbers with their standard errors over examples, then the findings of other measures.

    sampling: what is printed of sampling options that are not the run's own (runs/overrides.py:sampled_with).
    """
    results = flat(found)
    examples = f"{results['examples']:,}" + (f" of {results['split_examples']:,}" if "split_examples" in results else "")
    lines = [f"{results['split']} split: {examples} examples, {results['units']} (± standard error over examples)", ""]
    bound = nll_is_bound(results)
    words = {"kl_kind": results.get("kl_kind", ""), "likelihood": likelihood_title(results), "bound": ", upper bound" * bound}
    table = []
    for key, title, decimals in _ROWS:
        if key in results:
            table.append((title.format(**words), f"{results[key]:.{decimals}f}", _error(results, key, decimals)))
            if key == "kl" and "kl_per_level" in results:
                table.append(("    by level, from the data up", "", " + ".join(f"{kl:.2f}" for kl in results["kl_per_level"])))
    if "active_units" in results:
        table.append(("active units", f"{results['active_units']}", f"of {results['latent_units']}{_by_level(results)}"))
    if table:
        first, second = (max(len(row[i]) for row in table) for i in (0, 1))
        lines += [f"  {title:<{first}}   {value:>{second}}   {error}".rstrip() for title, value, error in table]
    if others := {name: entry for name, entry in found.get("measures", {}).items() if name not in SUMMARISED}:
        lines += ["", findings_table(others)]
    remarks = [f"warning: {line}" for line in results.get("warnings", ())]
    remarks.append(f"density: {', '.join([_DENSITY[results['density'] + ', bound' * bound], *_of(results)])}")
    if results.get("note"):
        remarks.append(f"note: {results['note']}")
    if sampling:
        remarks.append(f"samples drawn with {sampling}")
    if "k" in results:
        remarks.append(_diagnostics(results))
    if "information" in results:
        remarks.append(_information(results))
    if "information_note" in results:
        remarks.append(f"note: {results['information_note']}")
    if "params" in results:
        remarks.append(_provenance(results))
    where = f"{results['device_count']} x {results['device']}" if results["device_count"] > 1 else results["device"]
    remarks.append(f"evaluated in {results['seconds']:.1f} s on {where}")
    return "\n".join([*lines, "", *(f"  {remark}" for remark in remarks)])


def _by_level(results: Mapping[str, Any]) -> str:
    """Of a hierarchy the active units and all units of each level, as the IWAE paper has them: 16+5 of 100+50."""
    if "units_per_level" not in results:
        return ""
    active, units = ("+".join(map(str, results[key])) for key in ("active_per_level", "units_per_level"))
    return f"; by level {active} of {units}"


def likelihood_title(results: Mapping[str, Any]) -> str:
    """Title of the number under "nll".

    NLL (exact), NLL (IWAE-1000); "NLL, upper bound (IWAE-1000)" if the weights support only a bound; "negative log-weight" for the
    NLL if the weights are not those of a likelihood.
    """
    if results["density"] == "bound":
        return f"upper bound on the NLL{''.join(f' ({remark})' for remark in _of(results))}"
    return f"{_name(results)}{', upper bound' * nll_is_bound(results)} ({results.get('estimator', '')})"


def _of(results: Mapping[str, Any]) -> list[str]:
    """What the density is of, where it is not of the data themselves (`Model.remark`)."""
    return [results["remark"]] if results.get("remark") else []


def _name(results: Mapping[str, Any]) -> str:
    return "negative log-weight" if results.get("note") else "NLL"


def _error(results: Mapping[str, Any], key: str, decimals: int) -> str:
    return f"± {results[f'{key}_se']:.{decimals}f}" if f"{key}_se" in results else ""


def _provenance(results: Mapping[str, Any]) -> str:
    commit = f"{results['commit'][:10]}{' with changes' if results['changed'] else ''}" if results["commit"] else "unknown"
    devices = f"{len(results['trained_on'])} x {results['trained_on'][0]}" if results["trained_on"] else "unknown devices"
    params = f"{results['params']} parameters, of step {results['params_step']:,}{' (moving average)' if results['ema'] else ''}"
    budget = f"{results['steps']:,} steps in {results['seconds_trained']:.0f} s on {devices}"
    return f"{results['config'] or 'run'}, seed {results['seed']}: {budget}; {params}; commit {commit}"


def _information(results: Mapping[str, Any]) -> str:
    n = results["information_examples"]
    text = f"q(z), the aggregate posterior, of {n:,} examples: I is at most their log {math.log(n):.2f}; an example's own posterior is"
    text += f" {results['own_share']:.1%} of q(z)"
    if results["saturated"]:
        text += ": saturated, so I may be larger, KL(q(z) || p(z)) and total correlation smaller"
    if results.get("marginal_examples", n) < n:
        text += f"; q(z_d) of {results['marginal_examples']:,}"
    return text


def _diagnostics(results: Mapping[str, Any]) -> str:
    if results["density"] in ("bound", "estimate"):
        return f"the mean of {results['k']} draws: Monte Carlo s.e. {results['nll_mc_se']:.4f}"
    bound, error = nll_is_bound(results), f"Monte Carlo s.e. {results['nll_mc_se']:.4f}"
    parts = [] if bound else [error]
    if "ess" in results:
        parts.append(f"mean effective sample size {results['ess']:.1f}")
    if "pareto_k_median" in results:
        share = f"{results['pareto_k_bad_share']:.0%} of the examples above {PARETO_LIMIT:g} (unreliable)"
        parts.append(f"Pareto-k median {results['pareto_k_median']:.2f}, {share}")
    text = f"the {results['k']} weights: {', '.join(parts)}"
    if bound:
        text += f"\n  {results['estimator']} is here a lower bound on log p(x), in expectation, and no estimate of it: the {_name(results)}"
        text += f" is at most the value above. The weights' {error} is too small to be its error"
    return text

"""Checks of a finished run: one a file, one line here. `diagnose` runs them and writes diagnostics.json.

To add one: write a file with its settings (a NamedTuple of annotated fields with defaults), `needs(run, settings)`, which raises a
UserError where the check does not apply, and `check(run, settings) -> {name: Finding}`, and add its line. The command's flags, its
--list and the table follow from that.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from vaeflow.build import call, describe, signature
from vaeflow.config import Overrides, override, plain
from vaeflow.data import named_split
from vaeflow.errors import UserError, unknown_kind
from vaeflow.evaluation.checks import ais, anomaly, hmc, iwae, probes, quality, refine
from vaeflow.evaluation.checks.check import Check, Finding, Run
from vaeflow.evaluation.evaluate import map_options
from vaeflow.evaluation.information import evenly
from vaeflow.evaluation.measure import restore
from vaeflow.rng import eval_key
from vaeflow.runs import guard, workdir
from vaeflow.runs.files import write_json
from vaeflow.runs.metrics import aligned_table
from vaeflow.runs.progress import phase
from vaeflow.training import devices

__all__ = ["CHECKS", "Check", "Finding", "Run", "diagnose", "listing"]

CHECKS: dict[str, Check] = {
    "iwae": Check(iwae.check, iwae.needs, "log p(x) by importance weighting", iwae.IWAESettings()),
    "ais": Check(ais.ais, ais.needs, "log p(x) by annealed importance sampling with HMC transitions", ais.AISSettings()),
    "bdmc": Check(
        ais.bdmc, ais.needs_exact_draws, "bidirectional Monte Carlo: log p(x) from both sides, on data from the model", ais.AISSettings()
    ),
    "hmc": Check(hmc.check, hmc.needs, "log p(x) of small latents by HMC samples and a fitted density", hmc.HMCSettings()),
    "refine": Check(
        refine.check, refine.needs, "amortisation and approximation gap of a diagonal Gaussian q(z|x)", refine.RefineSettings()
    ),
    "probes": Check(probes.check, probes.needs, "labels from latents: a linear probe and nearest neighbours", probes.ProbesSettings()),
    "anomaly": Check(
        anomaly.check, anomaly.needs, "telling another set from the data: AUROC of the model's scores", anomaly.AnomalySettings()
    ),
    "quality": Check(quality.check, quality.needs, "samples against held-out data: MMD and Frechet distance", quality.QualitySettings()),
}


def listing() -> str:
    """Every check with its settings, their defaults and their types."""
    lines = []
    for name, check in CHECKS.items():
        hints = signature(type(check.defaults))
        lines.append(f"{name:<10} {check.title}")
        lines += [f"  --{name}.{key}={value}  ({describe(hints[key])})" for key, value in check.defaults._asdict().items()]
    return "\n".join(lines)


def diagnose(directory: Path, checks: Sequence[str], examples: int, split: str = "", overrides: Overrides = ()) -> None:
    """experiments.diagnose: run `checks` on a run's workdir, merge what they find into its diagnostics.json and print one table.

    examples   of the split `split`, evenly spaced; all where it has fewer
    overrides  ("ais.chains", "16"): settings of the checks; ("config.eval.batch", "50"): as in experiments.evaluate
    """
    settings = _settings(checks, [(key, text) for key, text in overrides if not key.startswith("config.")])
    if examples < 2:  # a standard error over examples needs two
        raise UserError(f"--examples={examples} is invalid; it must be >= 2")
    config = [(key.removeprefix("config."), text) for key, text in overrides if key.startswith("config.")]
    guard.check_links(directory, ("diagnostics*.json",))
    run = load(directory, examples, split, config)
    for name, own in settings.items():
        try:
            CHECKS[name].needs(run, own)
        except UserError as error:
            raise UserError(f"--checks={name} does not apply to {directory}: {error}") from None
    rows = []
    for name, own in settings.items():
        started = time.perf_counter()
        with phase(f"{name}, {len(run.split.x):,} examples"):
            found = CHECKS[name].run(run, own)
        seconds = time.perf_counter() - started
        write(run, name, own, found, seconds)
        rows += _rows(name, found, seconds)
    size, chosen = len(run.source.split(run.name).x), len(run.split.x)
    print(f"{run.name} split: {chosen:,} of {size:,} examples; log-densities in nats per example (± standard error over examples)\n")
    print(aligned_table(("check", "seconds", "number", "value", "what it is"), rows, {"seconds": 1}))
    if run.model.note:
        print(f"\nnote: {run.model.note}")
    print(f"\n{path_of(run)}")


def load(directory: Path, examples: int, split: str = "", overrides: Overrides = ()) -> Run:
    """A run from its workdir, with at most `examples` evenly spaced examples of a split ("": the one that `named_split` gives)."""
    model, params, config, source, *_ = restore(directory, overrides=overrides)
    name = named_split(source, split)
    chosen = evenly(source.split(name), examples)
    options = map_options(source, config, devices.for_evaluation(config.devices.mapping))
    return Run(model, params, config, source, chosen, name, eval_key(config.seed), options, directory)


def path_of(run: Run) -> Path:
    """diagnostics.json, or diagnostics_SPLIT.json of another split than the run's own."""
    own = run.name == named_split(run.source)
    return run.directory / ("diagnostics.json" if own else f"diagnostics_{run.name}.json")


def write(run: Run, name: str, settings: Any, found: dict[str, Finding], seconds: float) -> None:
    """Put one check's numbers, and what they stand on, beside those of the checks that ran before."""
    path = path_of(run)
    before = workdir.read_json(path) if path.is_file() else {}
    device = jax.devices()[0]
    entry = {
        "numbers": {key: {k: v for k, v in finding._asdict().items() if v is not None} for key, finding in found.items()},
        **{"settings": plain(settings._asdict()), "split": run.name, "examples": len(run.split.x), "units": "log-densities: nats"},
        **{"note": run.model.note, "device": device.device_kind, "platform": device.platform, "seconds": seconds},
    }
    write_json(path, before | {name: entry | workdir.provenance(run.directory, run.config)})


def _settings(checks: Sequence[str], overrides: Overrides) -> dict[str, Any]:
    """{check: its checked settings}. UserError: an unknown check, a setting of a check that does not run, an impossible value."""
    for name in checks:
        if name not in CHECKS:
            raise unknown_kind("--checks", name, CHECKS)
    trees = {name: ConfigDict(CHECKS[name].defaults._asdict()) for name in checks}
    for key, text in overrides:
        name, _, setting = key.partition(".")
        if name not in CHECKS:
            raise unknown_kind(f"--{key}: the check", name, CHECKS)
        if name not in trees:
            raise UserError(f"--{key}={text} is a setting of a check that does not run; --checks={','.join(checks)}")
        override(trees[name], setting, text, name)
    return {name: call(type(CHECKS[name].defaults), plain(tree), name) for name, tree in trees.items()}


def _rows(name: str, found: dict[str, Finding], seconds: float) -> list[tuple[Any, ...]]:
    """The table's rows of a check; its name and seconds stand in the first one."""
    shown = {key: finding for key, finding in found.items() if not isinstance(finding.value, list)}
    rows = []
    for key, finding in shown.items():
        value = finding.value if finding.se is None or math.isnan(finding.se) else (finding.value, finding.se)
        rows.append(("" if rows else name, None if rows else seconds, key, value, finding.what))
    return rows

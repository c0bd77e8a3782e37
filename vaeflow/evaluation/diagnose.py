"""`diagnose`: measures of a finished run on some examples of a split, stored in diagnostics.json beside those of earlier calls.

Findings with other values of the sections eval and sample than the run's own have a file of their own, such as
diagnostics+sample.temperature=0.7.json. Settings of measures are recorded with each finding and name no file.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from vaeflow.build import call, describe, signature
from vaeflow.config import Overrides, plain
from vaeflow.data import named_split
from vaeflow.errors import UserError, unknown_kind
from vaeflow.evaluation.evaluate import entry_of, map_options
from vaeflow.evaluation.information import evenly
from vaeflow.evaluation.measures import MEASURES, Evaluation, known, settings_of
from vaeflow.evaluation.results import findings_table
from vaeflow.evaluation.store import restore
from vaeflow.override import override
from vaeflow.rng import eval_key
from vaeflow.runs import guard, workdir
from vaeflow.runs.files import write_json
from vaeflow.runs.overrides import file_name, read_overridden, sampled_with
from vaeflow.runs.progress import phase
from vaeflow.schema import arguments
from vaeflow.training import devices


def listing() -> str:
    """Every measure with its settings, their defaults and their types."""
    lines = []
    for name, measure in MEASURES.items():
        hints = signature(type(measure.defaults))
        lines.append(f"{name:<10} {measure.title}")
        lines += [f"  --{name}.{key}={value}  ({describe(hints[key])})" for key, value in measure.defaults._asdict().items()]
    return "\n".join(lines)


def diagnose(directory: Path, measures: Sequence[str], examples: int, split: str = "", overrides: Overrides = ()) -> None:
    """experiments.diagnose: apply `measures` to a run, merge their findings into its diagnostics.json and print one table.

    examples   of the split `split`, evenly spaced; all where it has fewer
    overrides  ("ais.chains", "16"): settings of the measures; ("config.eval.batch", "50"): as in experiments.evaluate
    """
    config = [(key.removeprefix("config."), text) for key, text in overrides if key.startswith("config.")]
    settings = _settings(directory, measures, [(key, text) for key, text in overrides if not key.startswith("config.")], config)
    if examples < 2:  # a standard error over examples needs two
        raise UserError(f"--examples={examples} is invalid; it must be >= 2")
    guard.check_links(directory, ("diagnostics*.json",))
    run = load(directory, examples, split, config)
    for name, chosen in settings.items():
        try:
            MEASURES[name].needs(run, chosen)
        except UserError as error:
            raise UserError(f"--measures={name} does not apply to {directory}: {error}") from None
    own = workdir.read_config(directory)
    path = directory / f"{file_name(_stem(run), own, run.config)}.json"
    entries = {}
    for name, chosen in settings.items():
        started = time.perf_counter()
        with phase(f"{name}, {len(run.split.x):,} examples"):
            found = MEASURES[name].prepare(run, chosen)(run.params, run.key)
        entries[name] = entry_of(found, chosen, time.perf_counter() - started)
        before = workdir.read_json(path) if path.is_file() else {}
        stands_on = {"split": run.name, "examples": len(run.split.x), "units": "log-densities: nats", "note": run.model.note}
        stands_on |= {"sample": plain(run.config.sample)}
        write_json(path, before | {name: entries[name] | stands_on | workdir.provenance(directory, run.config)})
    n, size = len(run.split.x), len(run.source.split(run.name).x)
    print(f"{run.name} split: {n:,} of {size:,} examples; log-densities in nats per example (± standard error over examples)\n")
    print(findings_table(entries))
    if run.model.note:
        print(f"\nnote: {run.model.note}")
    if sampling := sampled_with(own, plain(run.config.sample)):
        print(f"\nsamples drawn with {sampling}")
    print(f"\n{path}")


def load(directory: Path, examples: int, split: str = "", overrides: Overrides = ()) -> Evaluation:
    """A run from its workdir, with at most `examples` evenly spaced examples of a split ("": the one that `named_split` gives)."""
    model, params, config, source, *_ = restore(directory, overrides=overrides)
    name = named_split(source, split)
    chosen = evenly(source.split(name), examples)
    options = map_options(source, config, devices.for_evaluation(config.devices.mapping))
    return Evaluation(model, params, config, source, chosen, name, eval_key(config.seed), options)


def _stem(run: Evaluation) -> str:
    """diagnostics, or diagnostics_SPLIT of another split than the run's own."""
    return "diagnostics" if run.name == named_split(run.source) else f"diagnostics_{run.name}"


def _settings(directory: Path, measures: Sequence[str], overrides: Overrides, config: Overrides) -> dict[str, Any]:
    """{measure: its checked settings}: those of the run's config (eval.settings, eval.k) with `config`'s values, then `overrides`.

    Raises:
        UserError: an unknown measure, a setting of a measure that is not asked for, an invalid value.
    """
    known(measures, "--measures")
    own: Any = read_overridden(directory, config) if (directory / "config.json").is_file() else None
    starts = {name: MEASURES[name].defaults if own is None else settings_of(name, own.eval) for name in measures}
    trees = {name: ConfigDict(start._asdict()) for name, start in starts.items()}
    for key, text in overrides:
        name, _, setting = key.partition(".")
        if name not in MEASURES:
            raise unknown_kind(f"--{key}: the measure", name, MEASURES)
        if name not in trees:
            raise UserError(f"--{key}={text} is a setting of a measure that is not asked for; --measures={','.join(measures)}")
        override(trees[name], setting, text, name, arguments(type(starts[name])))
    return {name: call(type(MEASURES[name].defaults), plain(tree), name) for name, tree in trees.items()}

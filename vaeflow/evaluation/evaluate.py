"""The numbers of a whole split: likelihood estimates with their standard errors, the ELBO's terms, active units.

Every number is per example in nats, an average over the examples of one split, and is stored with what it is: the
estimator, k, the split, the number of examples. Standard errors are over examples unless they are called `mc`.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from vaeflow.config import plain
from vaeflow.data import Source, Split, named_split
from vaeflow.errors import UserError, unknown
from vaeflow.evaluation.elbo import elbo_terms, gaussian
from vaeflow.evaluation.information import collapse_warnings, evenly
from vaeflow.evaluation.likelihood import average
from vaeflow.evaluation.map_split import Example, gather, map_split
from vaeflow.evaluation.measures import MEASURES, Evaluation, Finding, applicable, known, lacking, settings_of
from vaeflow.evaluation.results import flat
from vaeflow.model import Array, Model, Params
from vaeflow.rng import eval_key
from vaeflow.runs.progress import phase
from vaeflow.training.devices import Devices
from vaeflow.training.recorder import Validation
from vaeflow.training.setup import Experiment, first_batch


def validator(x: Experiment) -> Callable[..., Validation]:
    """(params, another key or None) -> Validation, of a run that has a validation split; compiled once.

    Its values are those of `make_validate` and, with eval.select = "measure.finding", that finding under this name.
    """
    assert x.source.val is not None
    plain_values = make_validate(x.model, x.source.val, x.source.levels, x.config.data.binarize, x.config.seed, x.eval.batch, x.devices)
    if x.eval.select == "loss":

        def by_loss(params: Params, key: Array | None = None) -> Validation:
            values = plain_values(params, key)
            return Validation(values, values.get("loss"))

        return by_loss
    run, name, finding, settings, sign = selecting(x)
    measure = MEASURES[name].prepare(run, settings)

    def by_measure(params: Params, key: Array | None = None) -> Validation:
        found = measure(params, run.key if key is None else key)[finding]
        values = plain_values(params, key) | {x.eval.select: float(found.value)}
        return Validation(values, sign * float(found.value), (found.se or 0.0) if MEASURES[name].noisy else 0.0)

    return by_measure


def selecting(x: Experiment) -> tuple[Evaluation, str, str, Any, int]:
    """(what the measure is applied to, measure, finding, settings, 1 where lower is better or -1) of eval.select = "measure.finding".

    Raises:
        UserError: unknown names, a finding that cannot select, a measure that does not apply, no validation split.
    """
    name, _, finding = x.eval.select.partition(".")
    choices = [f"{measure}.{own}" for measure, entry in MEASURES.items() for own in entry.better]
    if x.eval.select not in choices:
        raise unknown("eval.select", x.eval.select, ["loss", *choices])
    if x.source.val is None:
        raise UserError(f"eval.select={x.eval.select!r} needs a validation split: set data.val or data.val_fraction")
    first = first_batch(x)
    shapes = jax.eval_shape(x.model.init, jax.random.key(0), first)
    options = map_options(x.source, x.config, x.devices)
    run = Evaluation(x.model, shapes, x.config, x.source, x.source.val, "val", eval_key(x.config.seed), options)
    settings = settings_of(name, x.config.eval, {**MEASURES[name].selecting(run, finding), **plain(x.config.eval.validate)})
    if why := lacking(name, run, settings):
        raise UserError(f"eval.select={x.eval.select!r} does not apply: {why}")
    provides = MEASURES[name].provides
    if provides is not None and finding not in (given := provides(run, settings)):
        raise UserError(
            f"eval.select={x.eval.select!r} does not apply: {name} gives, with these data and settings, {', '.join(sorted(given))}"
        )
    return run, name, finding, settings, 1 if MEASURES[name].better[finding] == "low" else -1


def check_eval(x: Experiment) -> None:
    """UserError: the section eval of the config names an unknown measure, an invalid setting or a selection that does not apply."""
    known(x.eval.measures, "eval.measures")
    known(x.eval.settings, "eval.settings")
    for name in x.eval.settings:
        settings_of(name, x.config.eval)
    if x.eval.measures:
        of = named_split(x.source)
        split = x.source.split(of)
        n = min(x.eval.examples or len(split.x), len(split.x))
        shapes = jax.eval_shape(x.model.init, jax.random.key(0), first_batch(x))
        options = map_options(x.source, x.config, x.devices)
        applicable(Evaluation(x.model, shapes, x.config, x.source, evenly(split, n), of, eval_key(x.config.seed), options), x.eval.measures)
    if x.eval.select != "loss":
        selecting(x)
    elif x.eval.validate:
        raise UserError(f"eval.validate={plain(x.config.eval.validate)} is for eval.select='measure.finding'; here it is 'loss'")


def make_validate(
    model: Model, split: Split, levels: int, binarize: str, seed: int, batch: int, devices: Devices | None = None
) -> Callable[..., dict[str, float]]:
    """params -> {"loss", "recon", "kl"}: what `best` is selected by, as ONE compiled function over data that stay on the device. (A
    second argument takes the place of the seed's key.)

    loss = -mean log_prob (one draw at fixed keys, beta 1; absent without a density); recon and kl where there is a latent. The
    draws of loss and of recon are different ones, so loss = recon + kl only in expectation. A model's `terms` come before -log_prob.
    """
    levels = levels if binarize == "dynamic" else 0
    fn = _validation(model)
    run = map_split(fn, split, eval_key(seed), batch=batch, levels=levels, devices=devices, resident=True)

    def validate(params: Params, key: Array | None = None) -> dict[str, float]:
        return {name: float(values.mean(dtype=np.float64)) for name, values in gather(run(params, key)).items()}

    return validate


@functools.lru_cache(maxsize=16)
def _validation(model: Model) -> Example:
    """One example -> the numbers of `make_validate`."""
    parts: dict[str, Example] = {}
    if model.log_prob is not None:
        parts["loss"] = average(model, 1)
    if model.latent is not None:
        parts["terms"] = elbo_terms(model)

    def fn(params, key, one):
        out: dict[str, Array] = {}
        first, second = jax.random.split(key)
        if model.terms is not None:
            out |= {name: values[0] for name, values in model.terms(params, jax.random.fold_in(key, 1), one).items()}
        if "loss" in parts and "loss" not in out:
            out["loss"] = -parts["loss"](params, first, one)["log_prob"]
        if "terms" in parts:
            terms = parts["terms"](params, second, one)
            out |= {"recon": terms["recon"], "kl": terms["kl"]}
        return out

    return fn


def encode(
    model: Model, params: Params, split: Split, source: Source, config: Any, devices: Devices | None = None
) -> dict[str, np.ndarray]:
    """Per-example arrays: posterior `mean` and `std` [N, *latent] (or one draw `z` when q is no Gaussian; a flow's z), and
    `log_prob` [N], one draw of the model's estimator."""
    return gather(map_split(encoder(model), split, eval_key(config.seed), **map_options(source, config, devices))(params))


@functools.lru_cache(maxsize=16)
def encoder(model: Model) -> Example:
    """One example -> the arrays of `encode`."""

    def fn(params, key, one):
        out: dict[str, Array] = {}
        first, second = jax.random.split(key)
        if model.log_prob is not None:
            out["log_prob"] = model.log_prob(params, first, one)[0]
        if model.latent is not None:
            q = model.latent.posterior(params, one["x"], one.get("context"))
            known = gaussian(q)
            out |= {"z": q.sample(seed=second)[0]} if known is None else {"mean": known[0][0], "std": known[1][0]}
        elif model.encode is not None:
            out["z"] = model.encode(params, second, one)[0]
        return out

    return fn


def results(model: Model, params: Params, source: Source, name: str, config: Any, devices: Devices | None = None) -> dict[str, Any]:
    """The numbers of `measured` as {name: value, name_se: standard error}."""
    return flat(measured(model, params, source, name, config, devices)[0])


def measured(
    model: Model, params: Params, source: Source, name: str, config: Any, devices: Devices | None = None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The measures of eval.measures on the split `name`, or on eval.examples of it.

    Args:
        config: the run's; its sections eval and data, its seed and model.kind are read.

    Returns:
        (what results.json contains: plain numbers, strings and lists, the findings under "measures"; the findings' arrays by name).

    Raises:
        UserError: a measure is unknown, does not apply or has an invalid setting; nothing has been compiled then.
    """
    started = time.perf_counter()
    split, size = source.split(name), len(source.split(name).x)
    if 0 < config.eval.get("examples", 0) < size:
        split = shuffled(split, config.eval.examples)
    run = Evaluation(model, params, config, source, split, name, eval_key(config.seed), map_options(source, config, devices))
    known(config.eval.get("settings", {}), "eval.settings")
    wanted = applicable(run, config.eval.get("measures", ()))
    arrays: dict[str, np.ndarray] = {}
    entries: dict[str, Any] = {}
    for measure, settings in wanted.items():
        began = time.perf_counter()
        with phase(f"{MEASURES[measure].title}, {name} split"):
            found = MEASURES[measure].prepare(run, settings)(params, run.key)
        entries[measure] = entry_of(found, settings, time.perf_counter() - began)
        for finding in found.values():
            arrays |= finding.arrays or {}
    out: dict[str, Any] = {"split": name, "examples": len(split.x), "units": "nats per example", "binarize": config.data.binarize}
    out |= {"split_examples": size} if len(split.x) < size else {}
    out |= {"density": model.density, "note": model.note, **({"remark": model.remark} if model.remark else {}), "measures": entries}
    if "information" in entries and "elbo" in entries:
        out["warnings"] = collapse_warnings(flat(out))
    device = jax.devices()[0]
    out |= {"device": device.device_kind, "platform": device.platform, "device_count": 1 if devices is None else devices.count}
    return out | {"seconds": time.perf_counter() - started}, arrays


def entry_of(found: dict[str, Finding], settings: Any, seconds: float) -> dict[str, Any]:
    """The findings of one measure as JSON: numbers {name: {value, what, se}}, settings, seconds."""
    numbers = {
        key: {k: v for k, v in finding._asdict().items() if k != "arrays" and v is not None and v != ""} for key, finding in found.items()
    }
    return {"numbers": numbers, "settings": plain(settings._asdict()), "seconds": seconds}


def shuffled(split: Split, n: int) -> Split:
    """The first n examples of a split in one fixed order: the same ones for all runs and seeds."""
    rows = np.sort(np.random.default_rng(0).permutation(len(split.x))[:n])
    return Split(*(None if a is None else np.asarray(a[rows]) for a in split))  # type: ignore[arg-type]


def map_options(source: Source, config: Any, devices: Devices | None = None) -> dict[str, Any]:
    """The options of `map_split.map_split` that a run's config gives."""
    return dict[str, Any](batch=config.eval.batch, levels=source.levels if config.data.binarize == "dynamic" else 0, devices=devices)

"""fit, load, split, merge: see vaeflow/notebook/__init__.py."""

from __future__ import annotations

import functools
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from flax import traverse_util
from ml_collections import ConfigDict

from vaeflow import data
from vaeflow.config import GROUPS, Overrides
from vaeflow.data import kept
from vaeflow.data.from_arrays import arrays
from vaeflow.data.source import Source
from vaeflow.errors import Stopped, UserError
from vaeflow.evaluation import evaluate, store
from vaeflow.model import Model, Params, by_path, exactly, merge_params, split_params
from vaeflow.models.standardized import reason, standardized
from vaeflow.notebook.run import Run
from vaeflow.record import NoConfig, sections
from vaeflow.run import BY_HAND, load_run
from vaeflow.runs import progress, workdir
from vaeflow.runs.checkpoint_writer import stored_fixed
from vaeflow.runs.files import write_json
from vaeflow.runs.workdir import read_config
from vaeflow.schema import complete
from vaeflow.training import configure, frozen, loop, setup, warm_start
from vaeflow.training.warm_start import load_params

VALIDATIONS = 20  # evaluations of the validation split in a fit
PATIENCE = 5  # of them without improvement, before training stops
# Values of a config's section data that hold for arrays in place of its data.
KEPT = ("batch", "binarize", "augment", "place", "workers", "prefetch")


def fit(
    model: Model | Run | ConfigDict | str,
    x: Any = None,
    context: Any = None,
    *,
    label: Any = None,
    x0: Any = None,
    mask: Any = None,
    val: Any = 0.1,
    levels: int | None = None,
    steps: int | None = None,
    batch: int | None = None,
    optimizer: float | Mapping[str, Any] | optax.GradientTransformation | None = None,
    standardize: bool = True,
    seed: int | None = None,
    workdir: str | Path | None = None,
    init_from: Run | str | Path | None = None,
    fixed_from: Run | str | Path | None = None,
    options: Mapping[str, Any] | None = None,
) -> Run:
    """Train a model on arrays, or what a config describes.

    Args:
        model: a Model, as of vaeflow.flows.nsf(event=(2,)); a config, or its file "configs/digits_vae.py:conv"; a Run, which is trained on
            from its parameters.
        x: [N, *event]: numpy, jax, torch, pandas, polars, lists. uint8 has 256 grey values unless `levels` says otherwise, floats are
            continuous. None: the data of the config.
        context: [N, C], or class labels [N], of a conditional model.
        label: class labels [N] of a model that learns them.
        x0: [N, *event0], row by row the other half of pairs, of a model that maps x0 to x.
        mask: bool in the shape of x, True where an entry was observed, of a model that reads it; the other entries may be NaN.
        val: validation: a fraction of the rows, x_val, (x_val, context_val), a mapping such as {"x": x_val, "x0": x0_val}, or None. With
            it the parameters of the best evaluation are kept and training stops early; without it those of the last step are.
        levels: number of grey values of integers.
        steps: training steps; None: 3,000, or those of the config.
        batch: examples per step; None: 256, or the config's.
        optimizer: a learning rate, options of the section optim such as dict(name="adamw", weight_decay=1e-4), or an optax object. None:
            Adam at 1e-3 with a cosine schedule, or the config's; of a model of two players with its turns and its clipping (Model.optim).
        standardize: make mean and standard deviation of float data a layer of a flow or of a continuous-time model. A column of a table
            that has one value is an error for a flow, whose log p(x) would grow without end; of other models it keeps its scale.
        seed: of parameters, batches and noise; None: 0, or the config's.
        workdir: folder of the run; the same call with it resumes. None: a temporary one, see `Run.save`.
        init_from, fixed_from: a run whose parameters this one starts from, or keeps, where paths agree: those that a Run holds, or those
            that a workdir is evaluated with. The config has the workdir, or "sha256:..." of parameters whose folder is temporary.
        options: {config key: value} of other options, such as {"train.patience": 10, "optim.ema": 0.99}.

    Returns:
        The Run. Ctrl-C ends training after the newest checkpoint, and gives the Run of that.

    Raises:
        UserError: one line, before anything is compiled.

    Example:
        run = fit(flows.nsf(event=(2,), layers=8), x, steps=2_000)
    """
    if x is None and any(given is not None for given in (context, label, x0, mask)):
        raise UserError("context, label, x0 and mask belong to x, which is missing")
    constant = "refused" if isinstance(model, Model | Run) and _by_likelihood(model) else "kept"
    source = None if x is None else arrays(x, context, label=label, x0=x0, mask=mask, val=val, levels=levels, constant=constant)
    made, values = _described(model, standardize and (source is None or not source.levels))
    held = _held(model)
    if source is None and not isinstance(model, ConfigDict | str | Run):
        raise UserError("x is missing: a model is trained on arrays, or on the data of a config")
    if source is not None:
        classes = source.train.label is not None and label is None  # the context is class labels
        known = "none" if context is None else "label" if classes else "array"
        stays = {key: value for key, value in values["data"].items() if key in KEPT}
        values["data"] = stays | {"kind": "arrays", "context": known, "batch": min(stays.get("batch", 256), len(source.train.x))}
    elif isinstance(model, Run):
        source = model.source
    tx = optimizer if isinstance(optimizer, optax.GradientTransformation) else None
    own: dict[str, Any] = dict(optimizer) if isinstance(optimizer, Mapping) else {}
    if optimizer is not None and not isinstance(optimizer, Mapping):
        own = {"name": "custom"} if tx else {"learning_rate": float(optimizer)}  # type: ignore[arg-type]
    if own and values["optim"].get("name") == "custom":  # of a Run, whose object this call replaces
        own = {"name": "adam", **own}
    values["optim"] |= own
    if tx:  # which updates all parameters in every step, unless it says otherwise itself
        values["optim"] = {key: value for key, value in values["optim"].items() if key not in ("groups", "turns")}
    if isinstance(model, Model):
        known = made is not None and (made.log_prob is not None or made.terms is not None)
        values["train"] |= _every(3_000 if steps is None else steps, known and source is not None and source.val is not None)
    elif steps is not None:  # the config's own intervals, within the run
        values["train"] |= {"steps": steps} | {key: max(1, min(steps, values["train"][key])) for key in ("eval_every", "checkpoint_every")}
    if held:  # of a Run
        values |= {key: own.name for key, own in held.items()}
    for key, value in {"seed": seed, "data.batch": batch, "init_from": init_from, "fixed_from": fixed_from, **(options or {})}.items():
        if made is not None and key.partition(".")[0] in ("model", "parts", "sample"):
            raise UserError(f"options: {key} is an argument of the function that makes the model; give it there")
        if value is None:
            continue
        if key in warm_start.KEYS:
            held.pop(key, None)
            if isinstance(value, Run):
                held[key] = Held(value.named, value.params)
                value = value.named
        _set(values, key, str(value.directory) if isinstance(value, Run) else str(value) if isinstance(value, Path) else value)
    if x is not None and source is not None:
        source = data.configured(source, values["data"])
    keep = tempfile.TemporaryDirectory(prefix="vaeflow-") if workdir is None else None
    directory = Path(keep.name if keep else str(workdir)).expanduser().absolute()
    params = {key: own.params for key, own in held.items()}
    return _trained(complete(ConfigDict(values)), directory, source, made, tx, keep, params)


class Held(NamedTuple):
    """Parameters that init_from or fixed_from stand for, and what the config calls them."""

    name: str
    params: Params


def _held(model: Any) -> dict[str, Held]:
    """{init_from: the parameters of a Run, fixed_from: those of them that its training kept}; {} of other models."""
    if not isinstance(model, Run):
        return {}
    found = {"init_from": Held(model.named, model.params)}
    if name := model.config.fixed_from:
        kept, own = by_path(stored_fixed(model.directory)), by_path(model.params)
        found["fixed_from"] = Held(name, traverse_util.unflatten_dict({path: own[path] for path in kept}))
    return found


def _by_likelihood(model: Model | Run) -> bool:
    """True if the loss is -log p(x) itself, which has no minimum where a column is constant: of flows, not of VAEs and diffusions."""
    own = model.model if isinstance(model, Run) else model
    return own.log_prob is not None and own.latent is None and own.dynamics is None


def _described(model: Any, standardize: bool) -> tuple[Model | None, dict[str, Any]]:
    """(the model, or None where a config makes it; the values of its config) of the first argument of `fit`."""
    if isinstance(model, str):
        return None, configure.load(model).to_dict()
    if isinstance(model, ConfigDict):
        return None, complete(model).to_dict()
    if isinstance(model, Run):
        return model.model, model.config.to_dict()
    if not isinstance(model, Model):
        raise UserError(f"model={model!r} is invalid; it must be a Model, such as vaeflow.flows.nsf(event=(2,)), a config or a Run")
    values: dict[str, Any] = {section: {} for section in GROUPS} | {"optim": {"schedule": "cosine"}}
    for key, value in model.optim:
        _set(values, f"optim.{key}", value)
    model = model._replace(event=tuple(model.event)) if isinstance(model.event, list) else model
    standardize = standardize and not model.levels and not reason(model)
    made = _standardized(model) if standardize else model
    try:
        return _checked(made), values | sections(made)._asdict()
    except NoConfig:
        return _checked(made), values | {"model": {"kind": f"{BY_HAND}_standardized" if standardize else BY_HAND}}


@functools.lru_cache(maxsize=32)
def _standardized(model: Model) -> Model:
    return standardized(model=model)


@functools.lru_cache(maxsize=32)
def _checked(model: Model) -> Model:
    """The model with the `init` that models.build_model would give it: the same object for the same model, as programs are kept by it."""
    return model._replace(init=exactly(model.init))


def _every(steps: int, validates: bool) -> dict[str, Any]:
    """The section train of a fit."""
    every = max(1, steps // VALIDATIONS)
    return dict(
        steps=steps, log_every=every, eval_every=every if validates else steps, checkpoint_every=steps, patience=PATIENCE * validates
    )


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    """Set a key of a config, such as "optim.clip"; unknown keys are found by the checks of the sections."""
    *groups, name = key.split(".")
    for group in groups:
        values = values.setdefault(group, {})
        if not isinstance(values, dict):
            raise UserError(f"options: {key} has too many parts: {group} is one value")
    values[name] = value.item() if isinstance(value, np.generic) else value


def _trained(
    config: ConfigDict,
    directory: Path,
    source: Source | None,
    model: Model | None,
    tx: optax.GradientTransformation | None,
    keep: Any,
    held: Mapping[str, Params],
) -> Run:
    """Train in a workdir, as experiments.train does, and read the run back."""
    with progress.reporting():
        config = frozen.resolved(config, directory)
        same = (directory / "config.json").exists() and not workdir.differences(directory, config)
        x = setup.make_experiment(config, directory if same else None, source, model, tx, held)
        evaluate.check_eval(x)
        workdir.must_agree(directory, x.config)
        with workdir.lock(directory):
            store.check_data(directory, x.source)
            workdir.prepare(directory, x.config, "notebook")
            write_json(directory / "data.json", data.summary(x.source))
            if keep is None and x.config.data.kind == "arrays":
                kept.store(directory, x.source)
            print(setup.headline(x), flush=True)
            try:
                print(loop.fit(x, directory, evaluate.validator).reason, flush=True)
            except Stopped as stopped:
                if stopped.signal != signal.SIGINT:  # whoever ends the process means all of it
                    raise
                print(stopped, file=sys.stderr, flush=True)
        params = jax.device_put(load_params(directory, x.config.eval.params))
    return Run(x.model, params, x.config, directory, x.source, keep)


def load(directory: str | Path, overrides: Overrides | Mapping[str, Any] = (), *, model: Model | None = None) -> Run:
    """A run of the command line or of `fit`, from its workdir.

    Args:
        directory: the workdir, which is data: nothing in it is executed.
        overrides: {"eval.params": "last", "sample.temperature": 0.8, ...} in the sections eval and sample, and data.dir, data.path,
            data.cache_dir.
        model: of a run whose model was made by hand.

    Raises:
        UserError: the directory is not a workdir, it has no checkpoint, or a key is unknown.

    Example:
        run = load("runs/digits_vae")
    """
    where = Path(directory).expanduser().absolute()
    pairs = [(key, str(value)) for key, value in (overrides.items() if isinstance(overrides, Mapping) else overrides)]
    if model is not None:
        kind = str(read_config(where).model.kind)
        if not kind.startswith(BY_HAND):
            raise UserError(f"workdir={where} has its own model, of kind {kind!r}: leave out model=")
        model = _checked(model if kind == BY_HAND else _standardized(model))
    own, params, config = load_run(where, pairs, model)
    return Run(own, params, config, where)


def split(params: Params) -> tuple[Params, Params]:
    """(trained, rest) of a model's parameters: what a loop of one's own differentiates, and what it does not.

    Example:
        trained, rest = split(model.init(key, batch))
        grads = jax.grad(lambda t: model.loss(merge(t, rest), key, batch, step)[0])(trained)
    """
    trained, stats, fixed = split_params(params)
    return trained, merge_params(stats, fixed)


def merge(*trees: Params) -> Params:
    """The parameters of the parts that `split` gives."""
    return merge_params(*trees)

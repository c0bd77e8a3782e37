"""Model families: one a file, one line here. The law tests (tests/test_models.py) run over every entry.

To add one: write a file with a maker (keyword-only, annotated arguments -> Model) and the EXAMPLES at which the laws try it,
and add its line. The maker's annotations are the schema of config.model (without `kind`) and config.sample (without `n`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, get_args

from vaeflow.build import call, check, maker, part_kind, read_by, signature
from vaeflow.config import is_frozen
from vaeflow.errors import UserError, unknown, unknown_kind
from vaeflow.model import Frozen, Model, exactly
from vaeflow.models import classifier, contrastive, discrete, distill, flow, flow_mixture, ladder, layered, vae, vq


class ModelEntry(NamedTuple):
    """A registered model family and how the laws try it.

    make      keyword-only arguments -> Model
    examples  arguments at which the laws try it, on random data of the model's event and levels, with labels where it has classes and a
              context for the families with `context`; the parts "net", "conv", "deconv", "causal" (networks), "layer" and "norm" (a layer
              that keeps statistics; both act on vectors), models for Frozen arguments (tests/model_cases.py), and a base of every kind
              that has arguments, called as its kind, exist there
    context   whether the family models p(x|c)
    traced    (section model) -> its keys whose values may be tracers: cells of a table that differ in them train in one program
    """

    make: Callable[..., Model]
    examples: tuple[dict[str, Any], ...]
    context: bool = True
    traced: Callable[[Mapping[str, Any]], tuple[str, ...]] = lambda section: ()


MODELS: dict[str, ModelEntry] = {
    "vae": ModelEntry(vae.vae, vae.EXAMPLES, traced=vae.traced),
    "vq": ModelEntry(vq.vq, vq.EXAMPLES),
    "layered": ModelEntry(layered.layered, layered.EXAMPLES, traced=vae.traced),
    "ladder": ModelEntry(ladder.ladder, ladder.EXAMPLES, traced=lambda section: ("beta",)),
    "flow": ModelEntry(flow.flow, flow.EXAMPLES),
    "flow_mixture": ModelEntry(flow_mixture.flow_mixture, flow_mixture.EXAMPLES),
    "distill": ModelEntry(distill.distill, distill.EXAMPLES),
    "contrastive": ModelEntry(contrastive.contrastive, contrastive.EXAMPLES),
    "discrete_vae": ModelEntry(discrete.discrete_vae, discrete.EXAMPLES),
    "classifier": ModelEntry(classifier.classifier, classifier.EXAMPLES, context=False),
}

# A model as a part of another one: all of its maker's keys stand there, those of sampling too.
part_kind(Model, "model", MODELS)


def frozen_model(key: str, group: Mapping[str, Any]) -> Model:
    """The model of a Frozen argument's group, see vaeflow/training/frozen.py. `key` is its config key, for the errors."""
    try:
        return build_model(group["config"])
    except UserError as error:
        raise UserError(f"{key}.config: {error}") from error


def _frozen(value: Any, key: str) -> Frozen:
    if not is_frozen(value) or not value.get("config"):
        raise UserError(
            f"{key}={value!r} is not resolved: training/frozen.py puts a run's group in its place. A run that has it so in its config.json"
            " is of an older version, and must be trained again"
        )
    return Frozen(frozen_model(key, value), key.rpartition(".")[2], bool(value.get("train", False)))


read_by(Frozen, "the workdir of a trained run, or a config row", _frozen)


def frozen_arguments(config: Any) -> list[tuple[str, str]]:
    """(section, key) of the arguments of a config's model that are annotated `Frozen`, in the sections model and sample."""
    entry = MODELS.get(config["model"].get("kind", ""))
    hints = {} if entry is None else signature(maker(entry))
    frozen = [name for name, hint in hints.items() if Frozen in (hint, *get_args(hint))]
    return [(section, name) for section in ("model", "sample") for name in frozen if name in config[section]]


def build_model(config: Any, traced: Mapping[str, Any] | None = None) -> Model:
    """The model of a whole config (a ConfigDict or a dict): sections `model` (its `kind` is the family), `parts` and `sample`, checked.
    traced: values of the section `model` that take the places of the checked ones, and may be tracers (vaeflow/training/many_seeds.py).
    The result's `init` has the leaves of `given` exactly, whatever the family does with them."""
    model, sampling = _plain(config["model"]), _plain(config["sample"])
    kind = model.pop("kind", None)
    sampling.pop("n", None)
    if kind is None:
        raise UserError(f"model.kind is missing; known: {', '.join(sorted(MODELS))}")
    if kind not in MODELS:
        raise unknown_kind("model.kind", kind, MODELS)
    make = maker(MODELS[kind])
    known = signature(make)
    for key in sampling:
        if key not in known or key in model:
            raise unknown("sample: the key", key, ["n", *(k for k in known if k not in model)])
    parts = _plain(config["parts"])
    values = check(_only(make, [k for k in known if k not in sampling]), model, "model", parts)
    made = make(**values | dict(traced or {}), **call(_only(make, list(sampling)), sampling, "sample", parts))
    return made._replace(init=exactly(made.init))


def traced(section: Mapping[str, Any]) -> tuple[str, ...]:
    """The keys of a config's section `model` that its family can be trained with as tracers, see ModelEntry."""
    entry = MODELS.get(section["kind"])
    return getattr(entry, "traced", ModelEntry._field_defaults["traced"])(section)


def _plain(section: Any) -> dict[str, Any]:
    """A config section as a dict of plain values."""
    return dict(section.to_dict() if hasattr(section, "to_dict") else section)


def _only(make: Callable[..., Any], keys: list[str]) -> Callable[..., dict[str, Any]]:
    """The maker's schema cut down to `keys`: training and sampling values come from two sections, each named in its errors."""
    hints = signature(make)

    def values(**kwargs):
        return kwargs

    values.__annotations__ = {key: hints[key] for key in keys}
    values.__signature__ = inspect.Signature([inspect.Parameter(k, inspect.Parameter.KEYWORD_ONLY) for k in keys])  # type: ignore[attr-defined]
    return values

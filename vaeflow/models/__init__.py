"""Model families: one a file, one line here. The law tests (tests/test_models.py) run over every entry.

To add one: write a file with a maker (keyword-only, annotated arguments -> Model) and the EXAMPLES at which the laws try it,
and add its line. The maker's annotations are the schema of config.model (without `kind`), those marked SAMPLING that of config.sample.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, get_args

from vaeflow.build import SAMPLING, check, maker, marked, part_kind, read_by, registry, signature
from vaeflow.config import OF_FROZEN, is_frozen
from vaeflow.errors import UserError, unknown, unknown_kind
from vaeflow.model import Frozen, Model, exactly
from vaeflow.models import (
    autoencoder,
    autoregressive,
    categorical,
    classifier,
    contrastive,
    dae,
    diffusion,
    discrete,
    distill,
    flow,
    flow_map,
    flow_mixture,
    gan,
    ladder,
    layered,
    standardized,
    two_stage,
    vae,
    vq,
)
from vaeflow.schema import FROM_DATA, passed_on


class ModelEntry(NamedTuple):
    """A registered model family and how the laws try it.

    make      keyword-only arguments -> Model
    examples  arguments at which the laws try it, on random data of the model's event and levels, with labels where it has classes and a
              context for the families with `context`; the parts "net", "conv", "deconv", "causal", "token_net" (networks), "layer" and
              "norm" (a layer that keeps statistics; both act on vectors), models for Frozen arguments (tests/model_cases.py), and a base
              of every kind, called as its kind, exist there
    context   whether the family models p(x|c)
    """

    make: Callable[..., Model]
    examples: tuple[dict[str, Any], ...]
    context: bool = True


MODELS: dict[str, ModelEntry] = {
    "vae": ModelEntry(vae.vae, vae.EXAMPLES),
    "vq": ModelEntry(vq.vq, vq.EXAMPLES),
    "layered": ModelEntry(layered.layered, layered.EXAMPLES),
    "ladder": ModelEntry(ladder.ladder, ladder.EXAMPLES),
    "flow": ModelEntry(flow.flow, flow.EXAMPLES),
    "standardized": ModelEntry(standardized.standardized, standardized.EXAMPLES),
    "flow_mixture": ModelEntry(flow_mixture.flow_mixture, flow_mixture.EXAMPLES),
    "diffusion": ModelEntry(diffusion.diffusion, diffusion.EXAMPLES),
    "flow_map": ModelEntry(flow_map.flow_map, flow_map.EXAMPLES),
    "dae": ModelEntry(dae.dae, dae.EXAMPLES, context=False),
    "two_stage": ModelEntry(two_stage.two_stage, two_stage.EXAMPLES),
    "autoencoder": ModelEntry(autoencoder.autoencoder, autoencoder.EXAMPLES),
    "gan": ModelEntry(gan.gan, gan.EXAMPLES),
    "distill": ModelEntry(distill.distill, distill.EXAMPLES),
    "contrastive": ModelEntry(contrastive.contrastive, contrastive.EXAMPLES),
    "discrete_vae": ModelEntry(discrete.discrete_vae, discrete.EXAMPLES),
    "categorical": ModelEntry(categorical.categorical, categorical.EXAMPLES),
    "autoregressive": ModelEntry(autoregressive.autoregressive, autoregressive.EXAMPLES),
    "classifier": ModelEntry(classifier.classifier, classifier.EXAMPLES, context=False),
}

# A model as a part of another one has its maker's keys there, except for those of sampling: they are keys of the section sample
# (schema.passed_on). The functions below read the kinds by `registry(Model)`, which has the premade models too once vaeflow/flows is
# imported.
part_kind(Model, "model", MODELS)


# The sections of a config that build a model.
BUILDING = ("model", "parts", "sample")


def check_group(key: str, group: Any) -> None:
    """UserError: `group`, the value of the config key `key`, is not the whole group of a Frozen argument (training/frozen.py)."""
    if not is_frozen(group):
        raise UserError(
            f"{key}={group!r} must be the group that training stores in config.json: after training it cannot name another run, and a "
            "run that has it so is of an older version and must be trained again"
        )
    types = {"from": str, "sha256": str, "config": Mapping} | {name: type(value) for name, value in OF_FROZEN.items()}
    for name in group:
        if name not in types:
            raise unknown(f"{key}: the key", name, ["from", *OF_FROZEN])
    for name, kind in types.items():
        if not isinstance(group.get(name), kind):
            raise UserError(f"{key}.{name}={group.get(name)!r} has the wrong type; it must be {kind.__name__.lower()}")
    if group["which"] not in (choices := ("auto", "best", "last")):
        raise unknown(f"{key}.which", group["which"], choices)
    if set(group["config"]) != set(BUILDING) or not all(isinstance(section, Mapping) for section in group["config"].values()):
        raise UserError(f"{key}.config must have the groups {', '.join(BUILDING)} and nothing else")


def frozen_model(key: str, group: Mapping[str, Any]) -> Model:
    """The model of a Frozen argument's group, see vaeflow/training/frozen.py. `key` is its config key, for the errors."""
    try:
        return build_model(group["config"])
    except UserError as error:
        raise UserError(f"{key}.config: {error}") from error


def _frozen(value: Any, key: str) -> Frozen:
    if value == "":
        raise UserError(f"{key}='' is invalid; it must be the workdir of a trained run, or a config row")
    group = _plain(value) if is_frozen(value) else value
    check_group(key, group)
    return Frozen(frozen_model(key, group), key.rpartition(".")[2], group["train"])


read_by(Frozen, "the workdir of a trained run, or a config row", _frozen)


def frozen_arguments(config: Any) -> list[tuple[str, str]]:
    """(section, key) of the arguments of a config's model that are annotated `Frozen`, in the sections model and sample."""
    kind = config["model"].get("kind", "")
    kinds = registry(Model)
    hints = signature(maker(kinds[kind])) if isinstance(kind, str) and kind in kinds else {}
    frozen = [name for name, hint in hints.items() if Frozen in (hint, *get_args(hint))]
    return [(section, name) for section in ("model", "sample") for name in frozen if name in config[section]]


def build_model(config: Any, traced: Mapping[str, Any] | None = None) -> Model:
    """The model of a whole config (a ConfigDict or a dict): sections `model` (its `kind` is the family), `parts` and `sample`, checked.

    traced: {"parts.objective.beta": value} for arguments that are marked TRACED; the values may be tracers (training/stacked.py).
    The result's `init` has the leaves of `given` exactly, whatever the family does with them."""
    sections = {name: _plain(config[name]) for name in BUILDING}
    for key, value in (traced or {}).items():
        *groups, name = key.split(".")
        if groups[0] == "parts":
            sections["parts"] = sections["parts"] | {groups[1]: {**sections["parts"][groups[1]], name: value}}
        else:
            sections[groups[0]] = sections[groups[0]] | {name: value}
    arguments = _checked(sections)
    made = maker(registry(Model)[sections["model"]["kind"]])(**arguments)
    return made._replace(init=exactly(made.init))


def check_model(config: Any) -> None:
    """UserError: a value that `build_model` rejects before it builds the model. Values that are taken from the data may be missing."""
    sections = {name: _plain(config[name]) for name in BUILDING}
    rows = [name for section, name in frozen_arguments(sections) if is_frozen(own := sections[section][name]) and not own.get("sha256")]
    _checked(sections, without=[*rows, *(key for key in FROM_DATA if key not in sections["model"])])


def with_data(config: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """A config as plain values with `found`, values of its model that are known from the data, where the model does not name them."""
    model, kinds = dict(config["model"]), registry(Model)
    known = signature(maker(kinds[model["kind"]])) if model.get("kind") in kinds else {}
    return {**config, "model": model | {key: value for key, value in found.items() if key in known and key not in model}}


def _checked(sections: Mapping[str, Any], without: Sequence[str] = ()) -> dict[str, Any]:
    """The checked arguments of a model's maker from the sections of BUILDING. without: arguments that are not asked for."""
    model, sampling = dict(sections["model"]), dict(sections["sample"])
    kind, kinds = model.pop("kind", None), registry(Model)
    sampling.pop("n", None)
    if kind is None:
        raise UserError(f"model.kind is missing; known: {', '.join(sorted(kinds))}")
    if kind not in kinds:
        raise unknown_kind("model.kind", kind, kinds)
    for section, name in frozen_arguments(sections):  # before a stored model of an older version fails at another key
        if (value := sections[section][name]) != "":
            check_group(f"{section}.{name}", _plain(value) if is_frozen(value) else value)
    model = {key: value for key, value in model.items() if key not in without}
    make = maker(kinds[kind])
    sampled = [key for key, hint in signature(make).items() if marked(hint, SAMPLING)]
    inner, parts = passed_on(sections), sections["parts"]
    known = ["n", *sampled, *(key for options in inner.values() for key in options)]
    for key in sampling:
        if key not in known:
            raise unknown("sample: the key", key, known)
    for name, options in inner.items():
        given, own = {key: sampling.pop(key) for key in options if key in sampling}, parts.get(name, {"kind": name})
        if both := next((key for key in given if key in own), ""):
            raise UserError(f"parts.{name}.{both} and sample.{both} are the same option: leave out parts.{name}.{both}")
        if given:
            check(_only(maker(kinds[own["kind"]]), list(given)), given, "sample", parts)  # whose errors name the section
            parts = {**parts, name: {**own, **given}}
    asked = [key for key in signature(make) if key not in sampled and key not in without]
    values = check(_only(make, asked), model, "model", parts)
    return values | check(_only(make, sampled), sampling, "sample", parts)


def _plain(section: Any) -> dict[str, Any]:
    """A config section as a dict of plain values."""
    return dict(section.to_dict() if hasattr(section, "to_dict") else section)


def _only(make: Callable[..., Any], keys: list[str]) -> Callable[..., dict[str, Any]]:
    """The maker's schema cut down to `keys`: training and sampling values come from two sections, each named in its errors."""
    hints, own = signature(make), inspect.signature(make).parameters

    def values(**kwargs):
        return kwargs

    values.__annotations__ = {key: hints[key] for key in keys}
    values.__signature__ = inspect.Signature([own[key] for key in keys])  # type: ignore[attr-defined]
    return values

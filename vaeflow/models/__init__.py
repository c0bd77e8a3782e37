"""Model families: one a file, one line here. The law tests (tests/test_models.py) run over every entry.

To add one: write a file with a maker (keyword-only, annotated arguments -> Model) and the EXAMPLES at which the laws try it,
and add its line. The maker's annotations are the schema of config.model (without `kind`) and config.sample (without `n`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from vaeflow.build import call, check, maker, part_kind, signature
from vaeflow.errors import UserError, unknown, unknown_kind
from vaeflow.model import Model, exactly
from vaeflow.models import classifier, contrastive, discrete, distill, flow, flow_mixture, ladder, layered, vae, vq


class ModelEntry(NamedTuple):
    """A registered model family and how the laws try it.

    make      keyword-only arguments -> Model
    examples  arguments at which the laws try it, on random data of `event` and `levels` (0: real numbers), with labels where it has
              `classes` and a context for the families with `context`; the parts "net", "conv", "deconv", "causal" (networks), "layer" and
              "norm" (a layer that keeps statistics; both act on vectors), "frozen_vae" and "frozen_flow_prior" (models), and a base of
              every kind that has arguments, called as its kind, exist there
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

# A model as a part of another one (a VAE below a second stage): all of its maker's keys stand there, those of sampling too.
part_kind(Model, "model", MODELS)


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

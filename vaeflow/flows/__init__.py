"""Premade models: the field's named architectures as functions, whose defaults are good on this repository's own data.

    from vaeflow import flows
    model = flows.nsf(event=(2,), layers=8)                              # a Model (vaeflow/model.py): pure functions
    model = flows.vae(event=(8, 8, 1), levels=17, latent=8)

A config names a premade model by the name that it has in Python, so that what a config runs a notebook can call:

    c.model = dict(kind="flows.nsf", layers=8)                           # event and levels are taken from the data

The prefix tells a premade model, such as flows.vae, from the family of the same name (MODELS), whose networks are parts of their own. A
premade model is one call of a family's maker: what it does not offer, the family does.

To add one: a function with keyword-only, annotated arguments in one of the files here, and a line in that file's EXAMPLES: arguments at
which the law tests (tests/test_flows.py) try it.
"""

from __future__ import annotations

from collections import ChainMap

from vaeflow.build import part_kind
from vaeflow.flows import autoregressive, categorical, continuous, couplings, flow_maps, free_form, gans, images, ladders, patches, vaes
from vaeflow.flows.autoregressive import gaussianization, iaf, maf, naf, nsf_ar
from vaeflow.flows.categorical import d3pm, masked_diffusion
from vaeflow.flows.continuous import edm, flow_matching, rectified_flow, score
from vaeflow.flows.couplings import nice, nsf, realnvp
from vaeflow.flows.flow_maps import consistency, mean_flow, shortcut
from vaeflow.flows.free_form import ffjord, residual_flow
from vaeflow.flows.gans import gan, wgan_gp
from vaeflow.flows.images import flowpp, glow, jet, mintnet, realnvp_multiscale
from vaeflow.flows.ladders import ladder, vdvae
from vaeflow.flows.patches import tarflow
from vaeflow.flows.vaes import iwae, vae, vq
from vaeflow.model import Model
from vaeflow.models import MODELS, ModelEntry

FLOWS: dict[str, ModelEntry] = {
    f"flows.{make.__name__}": ModelEntry(make, (example,), context=make is not gaussianization)
    for file in (couplings, autoregressive, free_form, images, patches, vaes, ladders, continuous, flow_maps, gans, categorical)
    for make, example in file.EXAMPLES.items()
}

part_kind(Model, "model", ChainMap(MODELS, FLOWS))

__all__ = [
    "FLOWS",
    "consistency",
    "d3pm",
    "edm",
    "ffjord",
    "flow_matching",
    "flowpp",
    "gan",
    "gaussianization",
    "glow",
    "iaf",
    "iwae",
    "jet",
    "ladder",
    "maf",
    "masked_diffusion",
    "mean_flow",
    "mintnet",
    "naf",
    "nice",
    "nsf",
    "nsf_ar",
    "realnvp",
    "realnvp_multiscale",
    "rectified_flow",
    "residual_flow",
    "score",
    "shortcut",
    "tarflow",
    "vae",
    "vdvae",
    "vq",
    "wgan_gp",
]

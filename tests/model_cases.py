"""The models that the law tests try, and what they compute; see tests/test_models.py."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from ml_collections import ConfigDict

from vaeflow.build import SAMPLING, marked, signature
from vaeflow.config import OF_FROZEN
from vaeflow.flows import FLOWS
from vaeflow.model import Batch, Model, Params, merge_params, split_params
from vaeflow.models import MODELS, build_model

MLP = dict(kind="mlp", hidden=(16,), activation="tanh")
PARTS = dict(
    net=MLP,
    conv=dict(kind="conv", channels=(4,)),
    deconv=dict(kind="deconv", channels=(4,)),
    causal=dict(kind="causal_transformer", width=4, depth=1, activation="relu"),
    layer=dict(kind="repeat", of="unit", n=2),
    unit=dict(kind="chain", of=("coupling", "flip")),
    coupling=dict(kind="affine_coupling", net="net", mask="half"),
    flip=dict(kind="permutation"),
    student_t=dict(kind="student_t", df=3.0),
    uniform=dict(kind="uniform", low=-50.0, high=50.0),
    gaussian_mixture=dict(kind="gaussian_mixture", components=3),
    made=dict(kind="made", hidden=(8,), activation="tanh"),
    norm=dict(kind="chain", of=("statistics", "layer")),
    statistics=dict(kind="batch_norm", momentum=0.9),
    token_net=dict(kind="transformer", width=4, depth=1, heads=1),
    unet=dict(kind="unet", channels=4, multipliers=(1,), blocks=1),
    # of standardized
    plain_flow=dict(kind="flow", event=(4,), layer="layer"),
    plain_diffusion=dict(kind="diffusion", event=(4,), net="net", steps=4, solver="rk4", solver_steps=4),
    patches=dict(kind="patch_autoregressive", width=4, depth=1, heads=1, flip=True),
    # of latent
    latent_diffusion=dict(kind="diffusion", event=(2, 2, 2), net="unet", layer="scaled", steps=2, solver="rk4", solver_steps=2),
    latent_unet=dict(kind="diffusion", event=(2, 2, 2), net="unet_beside", steps=2),
    latent_flow=dict(kind="flow", event=(3,), layer="layer"),
    unet_beside=dict(kind="beside", of="unet", channels=2),
    scaled=dict(kind="actnorm"),
    downsample=dict(kind="downsample", channels=(4,)),
    upsample=dict(kind="upsample", channels=(4,)),
    # of diffusions
    cosine_gamma=dict(kind="cosine", gamma=0.5),
    points_rising=dict(kind="points", count="rising"),
    rising=dict(kind="root", steps=10),
    target_decay=dict(kind="root_decay", steps=10),
    sde_sigma=dict(kind="sde", diffusion="sigma"),
    # schedules and objectives
    rise=dict(kind="linear", steps=10),
    double=dict(kind="linear", steps=10, end=2.0),
    cyclical=dict(kind="cyclical", steps=10, start=0.5),
    cooling=dict(kind="geometric", steps=10, start=2.0, end=0.5),
    monte_carlo=dict(kind="elbo", k=3, kl="monte_carlo"),
    two_draws=dict(kind="elbo", k=2),
    half=dict(kind="elbo", beta=0.5),
    cycles=dict(kind="elbo", beta="cyclical"),
    warm_up=dict(kind="elbo", beta="double"),
    free_bits=dict(kind="free_bits", nats=0.01),
    capacity=dict(kind="capacity", nats=2.0, steps=10, k=2),
    iwae_one=dict(kind="iwae_one", k=3),
    iwae_path=dict(kind="iwae_path", k=3),
    iwae=dict(kind="iwae", k=3),
    dreg=dict(kind="dreg", k=3),
    renyi=dict(kind="renyi", alpha=0.5, k=3),
    tc=dict(kind="tc", weight=4.0),
    mmd=dict(kind="mmd", weight=10.0, of="capacity"),
    adversarial=dict(kind="adversarial", critic="net", weight=1.0, of="half"),
    baseline=dict(kind="reinforce", baseline="net", beta=0.5),
    leave_one_out=dict(kind="leave_one_out", k=3, beta="rise"),
    vimco=dict(kind="vimco", k=3),
    wake_sleep=dict(kind="wake_sleep", k=3, sleep_q=True),
    gumbel_softmax=dict(kind="gumbel_softmax", k=2, temperature="cooling"),
    straight_through=dict(kind="straight_through", beta=0.5, temperature=0.5),
)
VAE, FLOW = MODELS["vae"].examples[0], MODELS["flow"].examples[0]
GREY = dict(event=(4, 4, 1), levels=17, likelihood="discretized_logistic", grid=(2, 2), encoder="downsample", decoder="upsample")
# Values of Frozen arguments in examples: untrained models.
FROZEN = {
    "frozen_dynamics": ("diffusion", MODELS["diffusion"].examples[0] | dict(layer="layer")),
    "frozen_classifier": ("classifier", MODELS["classifier"].examples[2]),
    "frozen_vae": ("vae", VAE),
    "frozen_flow_prior": ("vae", VAE | dict(levels=0, likelihood="gaussian", likelihood_std=0.3, prior="layer")),
    "frozen_grid": ("autoencoder", GREY | dict(latent=2)),
    "frozen_codes": ("vq", GREY | dict(codes=5, width=2, prior="causal", decay=0.9, restart=0.0)),
    "frozen_flow": ("flow", FLOW),
    "frozen_diffusion": ("diffusion", MODELS["diffusion"].examples[0]),
    "frozen_grey_flow": ("flow", FLOW | dict(event=(2, 2, 1), levels=17, layer="norm", base="logistic")),
}
ENTRIES = MODELS | FLOWS
CASES = [(name, i) for name, entry in MODELS.items() for i in range(len(entry.examples))]
CONTEXT, BATCH, DRAWS = 3, 32, 5
KEY = jax.random.key(0)
# Compiled functions here run once or twice: XLA's optimisations would take longer than they save.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True})


def config(name: str, values: dict[str, Any]) -> Any:
    values = {key: group(*FROZEN[v]) if isinstance(v, str) and v in FROZEN else v for key, v in values.items()}
    sampled = [key for key, hint in (signature(ENTRIES[name].make) if name in ENTRIES else {}).items() if marked(hint, SAMPLING)]
    sample = dict(n=DRAWS) | {key: values.pop(key) for key in sampled if key in values}
    return ConfigDict(dict(model=dict(kind=name, **values), parts=PARTS, sample=sample)).lock()


def group(name: str, values: dict[str, Any]) -> dict[str, Any]:
    """The group of a Frozen argument, of an untrained model."""
    return {"from": name, **OF_FROZEN, "sha256": "", "config": config(name, values).to_dict()}


def flat(tree: Params) -> dict[tuple[str, ...], Any]:
    return traverse_util.flatten_dict(tree)  # type: ignore[return-value]


def make_batch(model: Model, context: bool) -> Batch:
    assert model.event is not None
    shape, levels = (BATCH, *model.event), model.levels
    x = jnp.asarray(np.random.default_rng(0).integers(0, levels, shape), jnp.uint8) if levels else draws(0, shape)
    other = {"label": jnp.asarray(np.arange(BATCH) % model.classes, jnp.int32)} if model.classes else {}
    other |= {"x0": draws(3, shape)} if model.paired else {}
    return {"x": x} | other | ({"context": draws(1, (BATCH, CONTEXT))} if context else {})


def draws(seed: int, shape: tuple[int, ...]) -> jax.Array:
    """Normal numbers, by numpy: jax would compile a program for every shape."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


class Case(NamedTuple):
    values: dict[str, Any]
    model: Model
    batch: Batch
    params: Params
    out: dict[str, Any]


@functools.cache
def case(name: str, i: int) -> Case:
    """The model, its perturbed parameters and everything that it computes, from one compiled function."""
    entry = ENTRIES[name]
    values = dict(entry.examples[i])
    model = build_model(config(name, values))
    batch = make_batch(model, entry.context)
    trained, stats, fixed = split_params(quick(model.init)(KEY, batch))
    noise = np.random.default_rng(2)
    trained = jax.tree.map(lambda a: jnp.asarray(np.asarray(a) + 0.02 * noise.normal(size=a.shape), a.dtype), trained)
    params = merge_params(trained, stats, fixed)

    @quick
    def everything(params, key, batch):
        trained, stats, fixed = split_params(params)

        def objective(trained):
            return model.loss(merge_params(trained, stats, fixed), key, batch, 3)

        (loss, metrics), grads = jax.value_and_grad(objective, has_aux=True)(trained)
        out = dict(loss=loss, metrics=metrics, grads=grads)
        context = batch.get("context")
        if model.sample is not None:
            given = {name: batch[name][:DRAWS] for name in ("context", "x0") if name in batch}
            given |= {"reference": batch["x"][:DRAWS]} if model.edits else {}
            out["sample"] = model.sample(params, key, DRAWS, **given)
        if model.terms is not None:
            out["terms"] = model.terms(params, key, batch)
        if model.encode is not None:
            out["encode"] = model.encode(params, key, batch)
        log_prob = model.log_prob
        if log_prob is not None and context is None:
            out["log_prob"] = log_prob(params, key, batch)
        elif log_prob is not None and context is not None:
            both = jnp.stack([context, context[::-1]])
            out["log_prob"], out["other"] = jax.vmap(lambda c: log_prob(params, key, {**batch, "context": c}))(both)
        if model.update is not None:  # on other rows than init's
            out["update"] = model.update(params, key, {k: v[:10] for k, v in batch.items()}, 3)
        if model.latent is not None:
            q, p = model.latent.posterior(params, batch["x"], context), model.latent.prior(params, context)
            z, log_q = q.sample_and_log_prob(seed=jax.random.split(key, 3)[0])  # log_prob's draw
            px = model.latent.likelihood(params, z, context)
            out["latent"] = dict(log_w=px.log_prob(batch["x"]) + p.log_prob(z) - log_q, log_q=log_q, inverted=q.log_prob(z), mean=px.mean())
        return out

    return Case(values, model, batch, params, everything(params, KEY, batch))

"""Latent models: any model of real numbers, on the latents of a trained autoencoder (Rombach et al. 2022, "High-resolution image synthesis
with latent diffusion models", 2112.10752).

    stage 1, `frozen`   q(z|x), p(x|z): a vae on a grid or a vq, trained before and kept as it is
    stage 2, `model`    p(y|c) of y = embed(z) [h, w, c], z ~ q(z|x): a diffusion, a flow map, a flow, ...
    sampling            y ~ p(y|c), z = embed^-1(y), x from p(x|z) as stage 1 shows it

    log p(x|c) >= E_q[log p(x|z) + log p(z|c) - log q(z|x)]

a bound where z is real-valued and `model` has a density. Codes have none: y is the vector of a code, and a y is read as its nearest code.
The scale of y is the second stage's concern: `layer: actnorm` of a diffusion takes it from the first batch and applies it to samples.

With a `condition` the second stage models p(y | y'), y' = embed(z') of what is known of x, such as its left half (inpainting) or the
means of its patches (super-resolution): z' ~ q(z|x'), x' being x with zeros in the coordinates that are not known. The network gets y' as
the last h w c entries of its context, behind the data's own context: see the network `beside`.
"""

from __future__ import annotations

from typing import Annotated, Any

import jax
import jax.numpy as jnp
from flax import errors as flax_errors

from vaeflow.build import SAMPLING, Count
from vaeflow.diffusion.edits import Edit, replaced
from vaeflow.errors import UserError
from vaeflow.model import NO_PARAMS, Frozen, Model, overlay
from vaeflow.models.parts.embed import Embed
from vaeflow.record import recorded


@recorded
def two_stage(*, frozen: Frozen, model: Model, condition: Edit | None = None, size: Annotated[tuple[Count, ...], SAMPLING] = ()) -> Model:
    """See the module's docstring. Parameters: model; those of stage 1, a trained run, as fixed["frozen"].

    Args:
        frozen: stage 1, trained without a context.
        model: stage 2, of continuous data; its event is the shape of y.
        condition: what is known of x; samples are given references then. A second stage with label_drop hides it with the class.
        size: height and width of y in sampling, where they differ from those of training; (): these. All networks must be convolutional.

    Returns: `sample` gives {x, z, and what the second stage gives (nfe), known: with a condition}. The density is a bound, a log-weight
        where that of the second stage is exact; none of codes, with a condition or without a second stage's. `encode` gives y.

    Raises:
        UserError: stage 1 has no latent that can be embedded or is trained on; stage 2 does not fit it.

    Example:
        --config=configs/digits_latent.py --config.model.frozen=runs/digits_autoencoder
    """
    stage = frozen.model
    if frozen.train:
        raise UserError("model.frozen.train=True is invalid: the second stage's loss would train the encoder to shrink its latents")
    if stage.latent is None or stage.latent.embed is None or stage.event is None:
        raise UserError("model.frozen must have a latent that a second stage can model: a vae or a vq")
    vae, embed, event = stage.latent, stage.latent.embed, stage.event
    if model.event != embed.shape or model.levels:
        has = f"event={model.event}, levels={model.levels or 0}"
        raise UserError(f"model.model has {has}, but the latents of model.frozen are real numbers of the shape {embed.shape}")
    if model.paired or model.edits or model.masked or model.optim or model.sample is None:
        raise UserError("model.model must be a model of one player that samples without pairs, edits and masks")
    try:
        known = None if condition is None else condition.on(event)
    except UserError as error:
        raise UserError(f"model.condition: {error}") from error
    drawn, into = _resized(stage, model, embed, size) if size else (model, stage)
    if size and condition is not None:
        raise UserError(f"sample.size={size} needs a model without model.condition, whose references have the size of the data")
    assert into.latent is not None and into.latent.embed is not None
    shown, back = into.latent, into.latent.embed.back
    bounded = model.log_prob is not None and not vae.discrete and known is None

    def embedded(params, key, x):
        """(y [B, *shape], z [B, ...], log q(z|x) [B])."""
        z, log_q = vae.posterior(frozen.of(params), x).sample_and_log_prob(seed=key)
        return embed.into(frozen.of(params), z), z, log_q

    def partial_x(x):
        """What is known of x [B, *event], 0 in its other coordinates."""
        kept = known
        assert kept is not None
        return jax.vmap(lambda x: replaced(kept, jnp.zeros_like(x), x))(jnp.asarray(x, jnp.result_type(float)))

    def context_of(params, key, x, context):
        """The second stage's context [B, C] or None."""
        if known is None:
            return context
        y = embedded(params, key, partial_x(x))[0].reshape(len(x), -1)
        return y if context is None else jnp.concatenate([context, y], -1)

    def inner(params, key, batch):
        """The second stage's batch, and (z, log q(z|x)) of its y."""
        key_z, key_c = jax.random.split(key)
        y, z, log_q = embedded(params, key_z, batch["x"])
        context = context_of(params, key_c, batch["x"], batch.get("context"))
        return {**batch, "x": y} | ({} if context is None else {"context": context}), z, log_q

    def init(key, batch, given=NO_PARAMS):
        key_f, key_y, key_m = jax.random.split(key, 3)
        held = frozen.init(key_f, {name: a for name, a in batch.items() if name != "context"}, given)
        own = model.init(key_m, inner(held, key_y, batch)[0], given.get("model", NO_PARAMS))
        return overlay({"model": own, **held}, given)

    def loss(params, key, batch, step):
        key_y, key_m = jax.random.split(key)
        return model.loss(params["model"], key_m, inner(params, key_y, batch)[0], step)

    def log_prob(params, key, batch):
        assert model.log_prob is not None
        key_y, key_m = jax.random.split(key)
        below, z, log_q = inner(params, key_y, batch)
        of_x = vae.likelihood(frozen.of(params), z).log_prob(batch["x"])
        return of_x + model.log_prob(params["model"], key_m, below) - log_q

    def terms(params, key, batch):
        assert model.terms is not None
        key_y, key_m = jax.random.split(key)
        return model.terms(params["model"], key_m, inner(params, key_y, batch)[0])

    def update(params, key, batch, step):
        assert model.update is not None
        key_y, key_m = jax.random.split(key)  # the loss's noise
        return params | {"model": model.update(params["model"], key_m, inner(params, key_y, batch)[0], step)}

    def encode(params, key, batch):
        return embedded(params, key, batch["x"])[0]

    def sample(params, key, n, context=None, reference=None):
        assert drawn.sample is not None
        key_y, key_c, key_x = jax.random.split(key, 3)
        if known is not None:
            context = context_of(params, key_c, reference, context)
        try:
            found = dict(drawn.sample(params["model"], key_y, n, context))
            z = back(frozen.of(params), found.pop("x"))
            x = shown.show(key_x, shown.likelihood(frozen.of(params), z))
        except flax_errors.ScopeParamShapeError as error:
            raise UserError(f"sample.size={size} needs convolutional networks: unet, downsample, upsample") from error
        found = {name: a for name, a in found.items() if name != "x0"}  # of y, not of x
        return {**found, "x": x, "z": z} | ({} if known is None else {"known": partial_x(reference)})

    return Model(
        init=init,
        loss=loss,
        sample=sample,
        log_prob=log_prob if bounded else None,
        density="none" if not bounded else "weight" if model.density == "exact" else "bound",
        encode=encode,
        update=update if model.update is not None else None,
        terms=terms if model.terms is not None else None,
        note=stage.note if bounded else "" if model.log_prob is None else "codes and conditional latents have no density here",
        remark=f"with the latents' density {model.remark}" if bounded and model.remark else "",
        event=event,
        levels=stage.levels,
        edits=known is not None,
        init_examples=model.init_examples,
        one_device=model.one_device,
    )


def _resized(stage: Model, model: Model, embed: Embed, size: tuple[int, ...]) -> tuple[Model, Model]:
    """Stage 2 and stage 1 for y of `size` [h, w], of the same parameters.

    Raises:
        UserError: the latents are on no grid, or one of the models cannot be made at this size.
    """
    *grid, channels = embed.shape
    if len(grid) != 2 or len(size) != 2 or stage.event is None or len(stage.event) != 3:
        raise UserError(f"sample.size={size} must be (height, width) of latents on a grid of images; these have the shape {embed.shape}")
    pixels = [side * new / old for side, new, old in zip(stage.event, size, grid, strict=False)]
    if any(side % 1 for side in pixels):
        raise UserError(f"sample.size={size}: images would have {pixels[0]:g} x {pixels[1]:g} pixels, not whole numbers")
    event = (int(pixels[0]), int(pixels[1]), stage.event[2])
    try:
        unused = {name: None for name in ("perceptual", "critic", "adversarial") if name in stage.spec.arguments}  # terms of the loss
        unused |= {"patches": ()} if unused else {}
        return _again(model, event=(*size, channels)), _again(stage, event=event, grid=size, **unused)
    except UserError as error:
        raise UserError(f"sample.size={size}: {error}") from error


def _again(model: Model, **changed: Any) -> Model:
    """The model that its maker returns for other arguments."""
    return model.spec.make(**{**model.spec.arguments, **changed})


_EXAMPLE = dict(frozen="frozen_grid", model="latent_diffusion")
EXAMPLES = (
    _EXAMPLE,
    dict(frozen="frozen_codes", model="latent_unet", condition="left"),
    dict(frozen="frozen_vae", model="latent_flow"),
)

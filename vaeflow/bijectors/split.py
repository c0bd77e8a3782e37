"""Factor-out: half of the event leaves the flow, the other half goes on (RealNVP, Dinh et al. 2016, section 3.6; Glow 2018)."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from vaeflow.bijectors.affine import affine
from vaeflow.bijectors.core.layer import Bijection, Layer, at_rank, sum_event
from vaeflow.bijectors.squeeze import check_event
from vaeflow.build import Count, Positive
from vaeflow.errors import UserError
from vaeflow.model import Params
from vaeflow.nets.net import Net
from vaeflow.record import recorded


@recorded
def split(*, event: tuple[Count, ...], inner: Layer, net: Net | None = None, cap: Positive = 2.0) -> Layer:
    """Multi-scale as one bijector between data and a flat latent vector; the last axis C of `event` is cut at C // 2:

        x = [kept, out],    z_out = (out - t) * exp(-s),    (t, s) = net(kept, context),    |s| < cap
        z = [flat(inner^-1(kept)), flat(z_out)],    log |dz/dx| = inner's - sum(s)

    Glow's learned prior N(out; t, exp(s)^2) of what leaves, given what goes on, is written as this affine map, so the base stays
    N(0, I). Without `net` s = t = 0, as in RealNVP. The net starts at zero.

    Params: {"inner": ..., "net": ...}, either only where it has parameters.

    Args:
        event: what reaches this layer: an image [H, W, C] or a vector [D]; the way back from a flat latent needs it.
        inner: the rest of the flow, on the kept half; its latent may be an image or a vector.
        net: gives (t, s) of what leaves; None: both are 0.
        cap: bound of the log-scales.
    """
    rank, transformer = len(event), affine(cap)
    if rank not in (1, 3) or event[-1] < 2:
        raise UserError(f"split: event={tuple(event)} is invalid; it must be [H, W, C] with C >= 2 or [D] with D >= 2")
    kept_event, out_event = (*event[:-1], event[-1] // 2), (*event[:-1], event[-1] - event[-1] // 2)
    kept_size, out_size = math.prod(kept_event), math.prod(out_event)

    def module():
        return net.module((transformer.size, *out_event), rank, True)  # type: ignore[union-attr]

    def halves(x):
        return jnp.split(x, [event[-1] // 2], axis=-1)

    def init(key, x, context=None):
        check_event("split", event, x)
        kept, _ = halves(x)
        key_inner, key_net = jax.random.split(key)
        params: Params = {"inner": inner.init(key_inner, kept, context)}
        if net is not None:
            params["net"] = module().init(key_net, kept[:1], None if context is None else context[:1])["params"]
        return {name: own for name, own in params.items() if own}

    def bijector(params, context=None, key=None, train=False, **options):
        rest = at_rank(inner.bijector(params.get("inner", {}), context=context, key=key, train=train, **options), rank)

        def prior(function, kept, h):
            if net is None:
                return h, jnp.zeros(h.shape[: h.ndim - rank], h.dtype)
            theta = jnp.asarray(module().apply({"params": params["net"]}, kept, context))
            h, log_det = function(jnp.moveaxis(theta, theta.ndim - 1 - rank, 0), h)
            return h, sum_event(log_det, rank)

        def inverse(x):
            kept, out = halves(x)
            z_kept, log_det = rest.inverse_and_log_det(kept)
            z_out, log_det_out = prior(transformer.inverse, kept, out)
            lead = z_out.shape[: z_out.ndim - rank]
            flat = (z_kept.reshape(*lead, kept_size), z_out.reshape(*lead, out_size))
            return jnp.concatenate(flat, axis=-1), log_det + log_det_out

        def forward(z):
            lead = z.shape[:-1]
            z_kept, z_out = jnp.split(z, [kept_size], axis=-1)
            latent = (kept_size,)
            if rest.event_ndims_in != 1:
                found = jax.eval_shape(rest.inverse, jnp.zeros((*lead, *kept_event), z.dtype))  # the context has these rows
                latent = found.shape[-rest.event_ndims_in :]
            kept, log_det = rest.forward_and_log_det(z_kept.reshape(*lead, *latent))
            out, log_det_out = prior(transformer.forward, kept, z_out.reshape(*lead, *out_event))
            return jnp.concatenate([kept, out], axis=-1), log_det + log_det_out

        return Bijection(forward, inverse, event_ndims_in=1, event_ndims_out=rank)

    def update(params, x, context=None):
        return {**params, "inner": inner.update(params["inner"], halves(x)[0], context)}  # type: ignore[misc]

    return Layer(init, bijector, update if inner.update else None, inner.guided)

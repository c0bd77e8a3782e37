"""Transformer autoregressive flow (Zhai et al. 2024, "Normalizing flows are capable generative models", 2412.06329, TarFlow)."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from vaeflow.bijectors.affine import affine
from vaeflow.bijectors.core.layer import Bijection, Layer, sum_event
from vaeflow.bijectors.core.solve import fixed_point, solve
from vaeflow.build import Count, Natural, NonNegative, Positive
from vaeflow.errors import UserError
from vaeflow.nets.causal_pixels import CausalPixels
from vaeflow.nets.net import Activation, Dtype, compute_dtype
from vaeflow.record import recorded


@recorded
def patch_autoregressive(
    *,
    width: Count = 64,
    depth: Count = 2,
    heads: Count = 4,
    flip: bool = False,
    cap: Positive = 4.0,
    inversion: Literal["jacobi", "sequential"] = "jacobi",
    tolerance: NonNegative = 1e-5,
    iterations: Natural = 0,
    activation: Activation = "gelu",
    dtype: Dtype = "float32",
) -> Layer:
    """x_i = z_i exp(s_i) + t_i,    (t_i, s_i) = transformer(x_0 .. x_(i-1), c),    |s_i| < cap;    log_det = sum s

    x_i [C] is a pixel of an image [H, W, C], in raster order; after a `squeeze` layer it is a patch. `inverse` is one evaluation of the
    network. `forward` solves for x in one of two ways, both exact after H W evaluations:

        jacobi       all pixels at once, x <- z exp(s(x)) + t(x), until none moves by more than the tolerance (Song et al. 2021, 2002.03629)
        sequential   one pixel after the other

    With guidance w, an option of sampling, both numbers are (t, s)_u + w ((t, s)_c - (t, s)_u), of the context c and of the dropped one u,
    which is zero and 1 in its last entry (the option `label_drop` of a flow). It starts as the identity.

    Args:
        width, depth, heads: of the transformer's tokens, its blocks and their attention.
        flip: whether the order is reversed; layers in a chain alternate.
        cap: bound of the log-scales.
        inversion: how `forward` solves.
        tolerance: of jacobi, relative to 1 + |x|.
        iterations: of jacobi, at most; 0: as many as there are pixels, with which it is exact. With fewer, log_det is that of no inverse.
        activation: of the blocks.
        dtype: of the network's computation; parameters are float32.

    Raises:
        UserError: the events are not images, or the heads do not divide the width.
    """
    if width % heads:
        raise UserError(f"patch_autoregressive: heads={heads} does not divide width={width}")
    scalar_map = affine(cap)
    net = CausalPixels(scalar_map.size, width, depth, heads, activation, compute_dtype(dtype))

    def tokens(x):
        flat = x.reshape(*x.shape[:-3], -1, x.shape[-1])
        return flat[..., ::-1, :] if flip else flat

    def pixels(h, like):
        return (h[..., ::-1, :] if flip else h).reshape(like.shape)

    def init(key, x, context=None):
        if x.ndim != 4:
            raise UserError(f"a patch_autoregressive layer needs events that are images [H, W, C]; here they have the shape {x.shape[1:]}")
        return {"net": net.init(key, tokens(x[:1]), None if context is None else context[:1])["params"]}

    def bijector(params, context=None, guidance: float = 1.0, **_):
        def numbers(given, x):
            """(t, raw s), each [..., N, C], on the leading axis."""

            def of(context):
                return jnp.moveaxis(jnp.asarray(net.apply({"params": given["params"]}, x, context)), -3, 0)

            c = given.get("context")
            if guidance == 1 or c is None:
                return of(c)
            dropped = of(jnp.zeros_like(c).at[..., -1].set(1))
            return dropped + guidance * (of(c) - dropped)

        def at_once(given, x):
            return scalar_map.inverse(numbers(given, x), x)

        def pass_on(given, x, z):
            return scalar_map.forward(numbers(given, x), z)[0]

        def one_by_one(given, z):
            def step(i, x):
                return x.at[..., i, :].set(pass_on(given, x, z)[..., i, :])

            return jax.lax.fori_loop(0, z.shape[-2], step, jnp.zeros_like(z))

        given = {"params": params["net"]} if context is None else {"params": params["net"], "context": context}

        def inverse(x):
            z, log_det = at_once(given, tokens(x))
            return pixels(z, x), sum_event(log_det, 2)

        def forward(z):
            h = tokens(z)
            steps = iterations or h.shape[-2] + 1
            solver = one_by_one if inversion == "sequential" else fixed_point(pass_on, tolerance, steps)
            x, log_slope = solve(at_once, solver, tolerance, steps, given, h)
            return pixels(x, z), -sum_event(log_slope, 2)

        return Bijection(forward, inverse, 3)

    return Layer(init, bijector, guided=True)

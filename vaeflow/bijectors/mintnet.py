"""Mint layers (Song, Meng, Ermon 2019, "MintNet: Building Invertible Neural Networks with Masked Convolutions").

    z = t x + sum_i W3_i h(sum_j W2_ij h(W1_j x + V_j c + b1_j) + b2_i) + b3,        i, j = 1..K,    h = tanh,    c the context

on images [H, W, C]. All W are masked convolutions (nets/masked_conv.py): lower triangular in raster order, their diagonals positive, and
t > 0, so the Jacobian is triangular and its diagonal positive, a closed form of what the pass computes anyway (B_j and A_i the
derivatives of the inner and the outer h):

    slope = t + sum_i diag(W3_i) A_i sum_j diag(W2_ij) B_j diag(W1_j),        log_det = sum(log slope)

h is odd, so the signs of W1 and W3 can be taken positive without loss, and the paper's condition is that of W2. t and the diagonals
are exp of bounded numbers: least <= slope <= most, both known before anything is evaluated. That makes the inverse safe: the
paper's step x + (z - f(x)) / slope can overshoot a tanh for ever; here it stays within the interval where the bounds say that the
solution is. Every entry is right soon after those before it are, and mostly all are after few steps.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vaeflow.bijectors.core.layer import Bijection, Layer, sum_event
from vaeflow.bijectors.core.scalar_map import bounded
from vaeflow.bijectors.core.solve import Function, Solver, solve
from vaeflow.build import Count, NonNegative, Positive
from vaeflow.errors import UserError
from vaeflow.model import Array
from vaeflow.nets.convolve import convolve, images
from vaeflow.nets.masked_conv import pads, raw_kernel, triangular
from vaeflow.record import recorded

MORE_STEPS = 100  # of the inversion, beyond one for every entry of the event


class Weights(NamedTuple):
    """What the map needs, masks and bounds applied; a tree of arrays.

    kernels    of W1 [., ., C, K C], W2 [., ., K C, K C], W3 [., ., K C, C];  diagonals: their diagonal taps as matrices
    shifts     b1 + V c [..., 1, 1, K C], b2 [K C], b3 [C];  scale: t [C]
    """

    kernels: tuple[Array, ...]
    diagonals: tuple[Array, ...]
    shifts: tuple[Array, ...]
    scale: Array

    def bounds(self) -> tuple[Array, Array]:
        """(least, most) [C]: bounds of the slope, since 0 < h' <= 1."""
        first, second, third = self.diagonals
        return self.scale, self.scale + jnp.sum(first, 0) @ second @ third


@recorded
def mintnet(*, copies: Count, kernel: Count = 3, flip: bool = False, cap: Positive = 2.0, tolerance: NonNegative = 1e-6) -> Layer:
    """See the module's docstring.

    Args:
        copies: K: a hidden layer has K C channels.
        kernel: size of the convolutions, odd.
        flip: the reverse of the raster order, for every other layer.
        cap: |log t| < cap, and the diagonals of the W are e^(-cap) to e^cap, divided by the number of copies that are summed.
        tolerance: of the inversion, on its last step relative to 1 + |x|; 0: that of the arithmetic.
    """
    if kernel % 2 == 0:
        raise UserError(f"mintnet: kernel={kernel} is invalid; it must be odd")

    def positive(raw):
        return jnp.exp(bounded(raw, cap))

    pairs = ((1, copies), (copies, copies), (copies, 1))

    def init(key, x, context=None):
        if x.ndim != 4:
            raise UserError(f"a mintnet layer needs events that are images [H, W, C]; here they have the shape {x.shape[1:]}")
        channels = x.shape[-1]
        keys = jax.random.split(key, 4)
        params = {f"conv_{i}": _conv(k, kernel, pair, channels) for i, (k, pair) in enumerate(zip(keys[:3], pairs, strict=True))}
        if context is not None:
            if context.ndim != 2:
                raise UserError(f"a mintnet layer takes contexts that are vectors; here they have the shape {context.shape[1:]}")
            size = context.shape[-1]
            params["context"] = {"kernel": jax.random.normal(keys[3], (size, copies * channels)) / size**0.5}
        return params | {"log_scale": jnp.zeros(channels)}

    def weights(params: Any, context: Array | None, dtype: Any) -> Weights:
        params = jax.tree.map(lambda a: a.astype(dtype), params)
        channels = params["log_scale"].shape[0]
        layers = [params[f"conv_{i}"] for i in range(3)]
        masked = [triangular(p["kernel"], pair, channels, positive) for p, pair in zip(layers, pairs, strict=True)]
        kernels, diagonals = zip(*masked, strict=True)
        first, second, third = (p["bias"] for p in layers)
        if context is not None:
            first = (first + context.astype(dtype) @ params["context"]["kernel"])[..., None, None, :]
        return Weights(kernels, diagonals, (first, second, third), positive(params["log_scale"]))

    def mapped(conv):
        """f (weights, x) -> (z, log slope), by this convolution."""

        def apply(h, w):
            y = conv(images(h), w, 1, pads(kernel))
            return y.reshape(*h.shape[:-3], *y.shape[1:])

        def f(given: Weights, x: Array) -> tuple[Array, Array]:
            inner = jnp.tanh(apply(x, given.kernels[0]) + given.shifts[0])
            outer = jnp.tanh(apply(inner, given.kernels[1]) + given.shifts[1])
            first, second, third = given.diagonals
            slope = given.scale + ((1 - outer**2) * (((1 - inner**2) * jnp.sum(first, 0)) @ second)) @ third
            return given.scale * x + apply(outer, given.kernels[2]) + given.shifts[2], jnp.log(slope)

        return f

    fast, plain = mapped(convolve), mapped(_plain)

    def bijector(params, context=None, **_):
        def inverse(x):
            z, log_slope = fast(weights(params, context, x.dtype), x)
            return z, sum_event(log_slope, 3)

        def forward(z):
            steps = math.prod(z.shape[-3:]) + MORE_STEPS
            given = weights(params, context, z.dtype)
            x, log_slope = solve(plain, guarded(plain, tolerance, steps), tolerance, steps, given, z)
            return x, -sum_event(log_slope, 3)

        if not flip:
            return Bijection(forward, inverse, 3)
        return Bijection(lambda z: _turned(*forward(_turn(z))), lambda x: _turned(*inverse(_turn(x))), 3)

    return Layer(init, bijector)


def guarded(f: Function, tolerance: float, max_steps: int) -> Solver:
    """x <- x + (z - f(x)) / slope from x = z, until no entry moves by more than tolerance * (1 + |x|), at most max_steps times.

    least <= slope <= most puts the solution, the entries before it given, into [x + r / most, x + r / least] (r = z - f(x) > 0;
    exchanged for r < 0). A step that leaves what this interval and the earlier ones share goes to its middle; where they share
    nothing the entries before have moved the solution, and the intervals start again from this one. After max_steps the last x is
    returned as it is: badly conditioned layers show in forward(inverse(x)) - x.
    """

    def solver(given: Weights, z: Array) -> Array:
        limit = max(tolerance, 4 * float(jnp.finfo(z.dtype).eps))
        least, most = given.bounds()

        def more(carry):
            i, *_, moving = carry
            return moving & (i < max_steps)

        def body(carry):
            i, x, low, high, _ = carry
            y, log_slope = f(given, x)
            short, far = x + (z - y) / most, x + (z - y) / least
            near_low, near_high = jnp.minimum(short, far), jnp.maximum(short, far)
            low, high = jnp.maximum(low, near_low), jnp.minimum(high, near_high)
            shared = low <= high
            low, high = jnp.where(shared, low, near_low), jnp.where(shared, high, near_high)
            new = x + (z - y) * jnp.exp(-log_slope)
            new = jnp.where((new >= low) & (new <= high), new, 0.5 * (low + high))
            return i + 1, new, low, high, jnp.any(jnp.abs(new - x) > limit * (1 + jnp.abs(new)))

        everywhere = jnp.full_like(z, jnp.inf)
        return jax.lax.while_loop(more, body, (0, z, -everywhere, everywhere, jnp.array(True)))[1]

    return solver


def _conv(key: Array, size: int, pair: tuple[int, int], channels: int) -> dict[str, Array]:
    return {"kernel": raw_kernel(key, size, pair, channels), "bias": jnp.zeros(pair[1] * channels)}


def _plain(x: Array, kernel: Array, stride: int, around: Any) -> Array:
    """`convolve` with derivatives in forward mode too, which the rule of `solve` needs."""
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), around, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _turn(h: Array) -> Array:
    return h[..., ::-1, ::-1, ::-1]


def _turned(h: Array, log_det: Array) -> tuple[Array, Array]:
    return _turn(h), log_det

"""The two paths of a ladder VAE: a deterministic one up from the data, a stochastic one down to them (Sonderby et al. 2016; Child 2021).

A scale s = 0, 1, ... is a grid [H_s, W_s] with `width` features a pixel; scale s is `strides[s]` times coarser than scale s - 1, scale 0
than the data. Up and down in size the paths go by patches: stride x stride pixels are one vector of the coarser scale, or come of one. A
grid of one pixel is a vector: there every convolution is a matrix, so that images with strides (28, 1, 1), or vectors with strides
(1, 1, 1), have a ladder of fully connected networks.

    up, at every scale      h = patches of the scale below (of the data),  h = h + branch(h) for each block;     d_s = h
    down, at every scale    h = patches to pixels of the scale above,      for each block, one level z_l:

        (m_p, s_p, e) = branch(h)                 p(z_l | z above) = N(m_p, diag s_p^2)
        (m_q, s_q) = branch(h, d_s)               q(z_l | z above, x) = N(m_q, diag s_q^2);  or precision-weighted, from branch(d_s) alone:
                                                  1/s_q^2 = 1/s^2 + 1/s_p^2,  m_q = s_q^2 (m/s^2 + m_p/s_p^2)
        h = h + e + W z_l,   h = h + branch(h)

    branch(a, b, ..) = W f(conv(f(a)) + conv(f(b)) + ..) with the activation f and a W that starts the smaller the more levels there are:
    the paths start near the identity. The levels of a scale are one scan over stacked parameters: compile time grows with the scales alone.

Levels are counted from the data: the first `blocks[0]` stand at scale 0, and of those the last is drawn first. All of them are one vector
z = [z_1 | ... | z_L] of Gaussian conditionals; what is made of their moments (densities, divergences) is models/ladder.py's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from vaeflow.model import Array
from vaeflow.nets.convolve import Convolution
from vaeflow.nets.net import compute_dtype, inits

Moments = tuple[Array, Array]  # mean, standard deviation


class LadderSizes(NamedTuple):
    """Sizes and kinds of both paths.

    image                     (H, W, C) of the data; a vector is (1, 1, C)
    strides, blocks, latents  one a scale; latents: the channels of a level at a pixel
    std                       the network's output -> standard deviations
    weighted                  whether q is precision-weighted
    """

    image: tuple[int, int, int]
    strides: tuple[int, ...]
    blocks: tuple[int, ...]
    latents: tuple[int, ...]
    width: int
    kernel: int
    activation: str
    dtype: str
    std: Callable[[Array], Array]
    weighted: bool

    def grids(self) -> list[tuple[int, int]]:
        """(H_s, W_s) of every scale."""
        sizes = [self.image[:2]]
        for stride in self.strides:
            height, width = sizes[-1]
            sizes.append((-(-height // stride), -(-width // stride)))
        return sizes[1:]

    def sizes(self) -> tuple[int, ...]:
        """The sizes of z_1, ..., z_L."""
        per_scale = zip(self.grids(), self.latents, self.blocks, strict=True)
        return tuple(height * width * c for (height, width), c, n in per_scale for _ in range(n))


class Pass(NamedTuple):
    """One way down: the likelihood's output, z [..., D], the moments of every level's conditional p and q (None without features) at z."""

    out: Array
    z: Array
    p: Moments
    q: Moments | None


def to_patches(h: Array, stride: int) -> Array:
    """[..., H, W, C] -> [..., ceil(H/s), ceil(W/s), s s C], padded with zeros below and to the right."""
    *lead, height, width, channels = h.shape
    rows, columns = -(-height // stride), -(-width // stride)
    pad = [(0, 0)] * len(lead) + [(0, rows * stride - height), (0, columns * stride - width), (0, 0)]
    h = jnp.pad(h, pad).reshape(*lead, rows, stride, columns, stride, channels)
    return jnp.moveaxis(h, -4, -3).reshape(*lead, rows, columns, stride**2 * channels)


def to_pixels(h: Array, stride: int, grid: tuple[int, int]) -> Array:
    """The inverse of `to_patches`: [..., H, W, s s C] -> [..., *grid, C], grid at most (s H, s W)."""
    *lead, rows, columns, _ = h.shape
    h = jnp.moveaxis(h.reshape(*lead, rows, columns, stride, stride, -1), -3, -4)
    return h.reshape(*lead, rows * stride, columns * stride, -1)[..., : grid[0], : grid[1], :]


class _Path(nn.Module):
    """What both paths and their blocks are made of."""

    plan: LadderSizes

    def dense(self, n: int, name: str, scale: float = 1.0, bias: bool = True) -> nn.Module:
        options: dict[str, Any] = inits() | dict(kernel_init=nn.initializers.variance_scaling(scale, "fan_in", "truncated_normal"))
        return nn.Dense(n, use_bias=bias, name=name, dtype=compute_dtype(self.plan.dtype), **options)

    def branch(self, n: int, name: str, *inputs: Array) -> Array:
        """See the module's docstring: inputs [..., H, W, width] -> [..., H, W, n], in the inputs' dtype."""
        plan, f = self.plan, getattr(nn, self.plan.activation)
        total = 0.0
        for i, a in enumerate(inputs):
            if plan.kernel == 1 or a.shape[-3:-1] == (1, 1):
                conv: Any = self.dense(plan.width, f"{name}_{i}")
            else:
                conv = Convolution(plan.width, plan.kernel, 1, compute_dtype(plan.dtype), **inits(), name=f"{name}_{i}")
            total = total + conv(f(a))
        return self.dense(n, name, 1 / sum(plan.blocks))(f(total)).astype(inputs[0].dtype)


class _Residual(_Path):
    """h -> h + branch(h), with the signature of a scan's body."""

    @nn.compact
    def __call__(self, h: Array, _: None) -> tuple[Array, None]:
        return h + self.branch(self.plan.width, "residual", h), None


class Up(_Path):
    """x [B, H, W, C], context [B, C'] or None -> (d_0, d_1, ...), d_s [B, H_s, W_s, width]."""

    @nn.compact
    def __call__(self, x: Array, context: Array | None) -> tuple[Array, ...]:
        h, found = x, []
        for s, (stride, n) in enumerate(zip(self.plan.strides, self.plan.blocks, strict=True)):
            h = self.dense(self.plan.width, f"patches_{s}")(to_patches(h, stride)).astype(x.dtype)
            if s == 0 and context is not None:
                h = h + self.dense(self.plan.width, "context", bias=False)(context)[..., None, None, :].astype(x.dtype)
            stack = nn.scan(_Residual, variable_axes={"params": 0}, split_rngs={"params": True}, length=n)
            h, _ = stack(self.plan, name=f"blocks_{s}")(h, None)
            found.append(h)
        return tuple(found)


class _Level(_Path):
    """One level, with the signature of a scan's body; value is z_l, or the standard noise that draws it from q, or from p without d."""

    latents: int
    noise: bool

    @nn.compact
    def __call__(self, h: Array, value: Array, d: Array | None) -> tuple[Array, tuple[Array, Moments, Moments | None]]:
        plan, c = self.plan, self.latents
        mean, raw, extra = jnp.split(self.branch(2 * c + plan.width, "prior", h), (c, 2 * c), axis=-1)
        p = q = (mean, plan.std(raw))
        if d is not None:
            mean, raw = jnp.split(self.branch(2 * c, "posterior", *((d,) if plan.weighted else (h, d))), 2, axis=-1)
            q = _product((mean, plan.std(raw)), p) if plan.weighted else (mean, plan.std(raw))
        z = q[0] + q[1] * value if self.noise else value
        h = h + extra + self.dense(plan.width, "latent", 1 / sum(plan.blocks))(z).astype(h.dtype)
        return h + self.branch(plan.width, "residual", h), (z, p, q if d is not None else None)


def _product(a: Moments, b: Moments) -> Moments:
    """The moments of the normalised product of two Gaussian densities."""
    precisions = a[1] ** -2, b[1] ** -2
    variance = 1 / (precisions[0] + precisions[1])
    return variance * (precisions[0] * a[0] + precisions[1] * b[0]), jnp.sqrt(variance)


class Down(_Path):
    """value [*lead, D] and the way up's features, or None -> Pass with out [*lead, *parameters, H, W, C].

    noise: value is N(0, I), and z is drawn from q, or from p without features; else value is z. The context [B, C'] and the features
    broadcast against `lead`. parameters: of the likelihood at a pixel, () or (P,).
    """

    parameters: tuple[int, ...]

    @nn.compact
    def __call__(self, value: Array, features: tuple[Array, ...] | None, context: Array | None, noise: bool) -> Pass:
        plan, lead, grids = self.plan, value.shape[:-1], self.plan.grids()
        h = self.param("start", nn.initializers.zeros_init(), (*grids[-1], plan.width)).astype(value.dtype)
        if context is not None:
            h = h + self.dense(plan.width, "context", bias=False)(context)[..., None, None, :].astype(value.dtype)
        h = jnp.broadcast_to(h, (*lead, *h.shape[-3:]))
        levels = [n * math.prod(grid) * c for n, grid, c in zip(plan.blocks, grids, plan.latents, strict=True)]
        parts, found = jnp.split(value, np.cumsum(levels)[:-1], axis=-1), []
        for s, (n, grid, c) in reversed(list(enumerate(zip(plan.blocks, grids, plan.latents, strict=True)))):
            if s + 1 < len(grids):
                stride = plan.strides[s + 1]
                h = to_pixels(self.dense(stride**2 * plan.width, f"pixels_{s}")(h), stride, grid).astype(value.dtype)
            axes: Any = (0, nn.broadcast)
            stack = nn.scan(_Level, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=axes, length=n, reverse=True)
            own = jnp.moveaxis(parts[s].reshape(*lead, n, *grid, c), len(lead), 0)
            h, level = stack(plan, c, noise, name=f"levels_{s}")(h, own, None if features is None else features[s])
            found.insert(0, level)
        stride, (height, width, channels), p = plan.strides[0], plan.image, math.prod(self.parameters)
        out = self.dense(stride**2 * p * channels, "head")(getattr(nn, plan.activation)(h))
        out = to_pixels(out, stride, (height, width)).astype(value.dtype).reshape(*lead, height, width, p, channels)
        out = jnp.moveaxis(out, -2, -4).reshape(*lead, *self.parameters, height, width, channels)

        def vector(scales: tuple[Array, ...]) -> Array:
            """[n, *lead, H, W, c] of every scale -> [*lead, D]."""
            return jnp.concatenate([jnp.moveaxis(a, 0, len(lead)).reshape(*lead, -1) for a in scales], axis=-1)

        def moments(scales: tuple[Moments, ...]) -> Moments:
            mean, std = zip(*scales, strict=True)
            return vector(mean), vector(std)

        zs, ps, qs = zip(*found, strict=True)
        return Pass(out, vector(zs), moments(ps), None if features is None else moments(qs))

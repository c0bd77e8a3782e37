"""Diffusion transformer with adaLN-zero blocks, on images and on vectors (Peebles and Xie 2022, "Scalable diffusion models with
transformers", 2212.09748)."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from vaeflow.build import Count, Decay, Natural
from vaeflow.errors import UserError
from vaeflow.model import Array
from vaeflow.nets.attention import Attention, ContextEmbedding, common_lead, context_parts, dropped, needs_heads, needs_token_width
from vaeflow.nets.conv import Convolutional, image_out
from vaeflow.nets.net import Activation, Dtype, Net, compute_dtype, inits
from vaeflow.record import recorded


@recorded
def dit(
    *,
    patch: Count = 2,
    width: Count = 128,
    depth: Count = 4,
    heads: Count = 4,
    dropout: Decay = 0.0,
    tokens: Natural = 0,
    token_width: Natural = 0,
    activation: Activation = "gelu",
    dtype: Dtype = "float32",
) -> Net:
    """x [..., H, W, C] -> [..., *out], out [H, W, C'] or [P, H, W, C'];  or x [..., D] -> [..., *out] of any shape.

    A token is a patch of `patch` x `patch` pixels, or of `patch` entries of a vector (1: each entry is a token; D: the vector is one):

        h = W x + position,    h = h + g_1 attention(m_1(h)), h = h + g_2 W_2 f(W_1 m_2(h)) `depth` times,    output W m(h)
        m_i(h) = (1 + a_i) norm(h) + b_i,    (a_i, b_i, g_i) = V c

    with `width` numbers per token, 4 `width` within f, LayerNorm without parameters, fixed sinusoidal positions (one half of the numbers
    for the row, the other for the column). c is the context's embedding. V starts at zero, so that blocks start as the identity
    (adaLN-zero). Without a context, (a, b, g) are learned constants. The head is linear in a token for an image, in all tokens for a
    vector. The blocks are one scan over stacked parameters [depth, ...]. Class labels are one-hot vectors in the context, beside the time's
    features.

    Args:
      dropout: rate behind the attention and the MLP; it acts only where the module is applied with rngs={"dropout": key}.
      tokens, token_width: the last tokens * token_width entries of the context are vectors that every block attends to, between its
        self-attention and its MLP (Chen et al. 2023, PixArt-alpha).

    DiT-S/2 has patch=2, width=384, depth=12, heads=6; DiT-B width=768, depth=12, heads=12.

    Raises: UserError if the patches do not divide the event.
    """
    needs_token_width("dit", tokens, token_width)
    needs_heads("dit", heads, width, "width")
    if width % 4:
        raise UserError(f"dit: width={width} is invalid; it must be divisible by 4 (sines and cosines of rows and columns)")

    def module(out: tuple[int, ...], event_ndims: int = 3, zero_head: bool = False) -> nn.Module:
        if event_ndims not in (1, 3):
            raise UserError(f"a dit network reads images [H, W, C] or vectors [D], here it is given events of rank {event_ndims}")
        if event_ndims == 3:
            image_out("dit", out)
        own = (event_ndims, patch, depth, heads, dropout, tokens, token_width)
        return Dit((width,), 1, activation, tuple(out), zero_head, compute_dtype(dtype), *own)

    return Net(module)


def positions(counts: tuple[int, ...], width: int) -> np.ndarray:
    """Sines and cosines [number of tokens, width] of the tokens' positions on a grid, width / len(counts) numbers for each axis."""
    own = width // len(counts)
    frequencies = 10_000.0 ** -(np.arange(own // 2) / (own // 2))
    angles = [grid.reshape(-1, 1) * frequencies for grid in np.meshgrid(*map(np.arange, counts), indexing="ij")]
    return np.concatenate([f(angle) for angle in angles for f in (np.sin, np.cos)], axis=-1)


def plain_norm(h: Array, dtype: Any) -> Array:
    """LayerNorm without parameters."""
    return nn.LayerNorm(epsilon=1e-6, use_bias=False, use_scale=False, dtype=dtype)(h)


def modulation(c: Array | None, size: int, count: int, dtype: Any) -> list[Array]:
    """`count` vectors [..., 1, size] of c, zero at first; without c, learned constants. Called inside a compact method."""
    options = dict(dtype=dtype, name="modulation", **inits(zero=True))
    own = nn.Dense(count * size, **options)(c) if c is not None else Constant(count * size, dtype, name="modulation")()
    return jnp.split(own[..., None, :], count, axis=-1)


class Constant(nn.Module):
    """A learned vector, zero at first."""

    size: int
    dtype: Any

    @nn.compact
    def __call__(self) -> Array:
        value = self.param("value", nn.initializers.zeros_init(), (self.size,))
        return value.astype(self.dtype or value.dtype)


class DitBlock(nn.Module):
    """h [..., tokens, width] -> (the next h, None), with the signature of a scan's body; conditions: (c, memory), either may be None."""

    activation: str
    heads: int
    dropout: float
    dtype: Any

    @nn.compact
    def __call__(self, h: Array, conditions: tuple[Array | None, Array | None]) -> tuple[Array, None]:
        c, memory = conditions
        width, kind, dtype = h.shape[-1], h.dtype, self.dtype
        shift_0, scale_0, gate_0, shift_1, scale_1, gate_1 = modulation(c, width, 6, dtype)
        inner = Attention(self.heads, dtype, name="attention")(plain_norm(h, dtype) * (1 + scale_0) + shift_0)
        h = h + gate_0 * dropped(self, inner, self.dropout)
        if memory is not None:
            h = h + Attention(self.heads, dtype, zero=True, name="cross_attention")(plain_norm(h, dtype), memory)
        inner = nn.Dense(4 * width, name="up", dtype=dtype, **inits())(plain_norm(h, dtype) * (1 + scale_1) + shift_1)
        inner = nn.Dense(width, name="down", dtype=dtype, **inits())(getattr(nn, self.activation)(inner))
        return (h + gate_1 * dropped(self, inner, self.dropout)).astype(kind), None


class Dit(Convolutional):
    """See `dit`."""

    event_ndims: int
    patch: int
    depth: int
    heads: int
    dropout: float
    tokens: int
    token_width: int

    @nn.compact
    def __call__(self, x: Array, context: Array | None = None) -> Array:
        width, image = self.channels[0], self.event_ndims == 3
        x = common_lead(x, self.event_ndims, context)
        c, memory = context_parts("dit", context, self.tokens, self.token_width)
        c = None if c is None else ContextEmbedding(width, "silu", name="embedding")(c)
        patches, counts = self.patches(x)
        h = nn.Dense(width, name="embed", **self.options())(patches)
        h = h + jnp.asarray(positions(counts, width), h.dtype)
        rngs = {"params": True, "dropout": True}
        stack = nn.scan(DitBlock, variable_axes={"params": 0}, split_rngs=rngs, in_axes=nn.broadcast, length=self.depth)  # type: ignore[arg-type]
        h, _ = stack(self.activation, self.heads, self.dropout, self.dtype, name="blocks")(h, (c, memory))
        shift, scale = modulation(c, width, 2, self.dtype)
        h = plain_norm(h, self.dtype) * (1 + scale) + shift
        if image:
            h = nn.Dense(self.patch**2 * self.map_channels(), name="head", **self.options(head=True))(h)
            return self.maps(self.pixels(h, counts)).astype(jnp.result_type(x))
        h = nn.Dense(math.prod(self.out), name="head", **self.options(head=True))(h.reshape(*h.shape[:-2], -1))
        return h.reshape(*h.shape[:-1], *self.out).astype(jnp.result_type(x))

    def patches(self, x: Array) -> tuple[Array, tuple[int, ...]]:
        """x -> (patches [..., tokens, entries], tokens along each axis)."""
        p, lead = self.patch, x.shape[: x.ndim - self.event_ndims]
        sides = x.shape[-3:-1] if self.event_ndims == 3 else x.shape[-1:]
        if any(side % p for side in sides):
            raise UserError(f"dit: patch={p} does not divide an event of {'x'.join(map(str, sides))} entries")
        counts = tuple(side // p for side in sides)
        if len(counts) == 1:
            return x.reshape(*lead, counts[0], p), counts
        grid = x.reshape(*lead, counts[0], p, counts[1], p, x.shape[-1]).swapaxes(-4, -3)
        return grid.reshape(*lead, counts[0] * counts[1], -1), counts

    def pixels(self, h: Array, counts: tuple[int, ...]) -> Array:
        """The inverse: [..., tokens, patch^2 N] -> [..., H, W, N]."""
        p, lead = self.patch, h.shape[:-2]
        rows, columns = counts
        grid = h.reshape(*lead, rows, columns, p, p, -1).swapaxes(-4, -3)
        return grid.reshape(*lead, rows * p, columns * p, grid.shape[-1])

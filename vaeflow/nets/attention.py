"""What networks with a context vector for every block share: the context's two parts, its embedding, attention to tokens or to itself."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from vaeflow.errors import UserError
from vaeflow.model import Array
from vaeflow.nets.net import inits


def needs_token_width(kind: str, tokens: int, token_width: int) -> None:
    """UserError: only one of the two is 0."""
    if bool(tokens) != bool(token_width):
        raise UserError(f"{kind}: tokens={tokens} and token_width={token_width} are invalid; both must be >= 1, or both 0 (no tokens)")


def needs_heads(kind: str, heads: int, width: int, key: str) -> None:
    """UserError: the heads do not divide the width, which is the argument `key`."""
    if width % heads:
        raise UserError(f"{kind}: heads={heads} does not divide {key}={width}")


def context_parts(kind: str, context: Array | None, tokens: int, token_width: int) -> tuple[Array | None, Array | None]:
    """context [..., C] -> (vector [..., C - N M] or None, tokens [..., N, M] or None): its last N M entries are N tokens of M numbers.

    Raises: UserError if the context is shorter than its tokens.
    """
    if not tokens:
        return context, None
    title = f"{kind}: tokens={tokens}, token_width={token_width}"
    given, size = 0 if context is None else context.shape[-1], tokens * token_width
    if context is None or given < size:
        raise UserError(f"{title} requires a context of at least {size} entries, not {given}")
    vector, rest = context[..., : given - size], context[..., given - size :]
    return vector if given > size else None, rest.reshape(*rest.shape[:-1], tokens, token_width)


def common_lead(x: Array, event_ndims: int, context: Array | None) -> Array:
    """x, broadcast to the leading axes that it has together with its context."""
    lead = x.shape[: x.ndim - event_ndims]
    if context is not None:
        lead = jnp.broadcast_shapes(lead, context.shape[:-1])
    return jnp.broadcast_to(x, (*lead, *x.shape[x.ndim - event_ndims :]))


class ContextEmbedding(nn.Module):
    """c -> f(W_2 f(W_1 c)), which every block reads; in the context's precision, not in bfloat16: it is computed once per example."""

    width: int
    activation: str

    @nn.compact
    def __call__(self, c: Array) -> Array:
        f = getattr(nn, self.activation)
        for i in range(2):
            c = f(nn.Dense(self.width, name=f"dense_{i}", **inits())(c))
        return c


class Attention(nn.Module):
    """h [..., N, width] -> W softmax(q k / sqrt(width / heads)) v: to h itself, or to `tokens` [..., M, any width].

    zero: W starts at zero.
    """

    heads: int
    dtype: Any
    zero: bool = False

    @nn.compact
    def __call__(self, h: Array, tokens: Array | None = None) -> Array:
        width, options = h.shape[-1], dict(dtype=self.dtype, **inits())
        if tokens is None:
            tokens = h
        tokens = jnp.broadcast_to(tokens, (*h.shape[:-2], *tokens.shape[-2:]))
        q = nn.Dense(width, name="query", **options)(h)
        k, v = jnp.split(nn.Dense(2 * width, name="key_value", **options)(tokens), 2, axis=-1)
        q, k, v = (a.reshape(*a.shape[:-1], self.heads, -1) for a in (q, k, v))
        mixed = nn.dot_product_attention(q, k, v, dtype=self.dtype, force_fp32_for_softmax=True).reshape(h.shape)
        return nn.Dense(width, name="mix", dtype=self.dtype, **inits(zero=self.zero))(mixed)


def dropped(module: nn.Module, h: Array, rate: float) -> Array:
    """h with dropout if `module` is applied with rngs={"dropout": key}; h itself otherwise, as in evaluation and sampling."""
    return nn.Dropout(rate, deterministic=not module.has_rng("dropout"))(h)

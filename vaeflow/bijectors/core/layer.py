"""Layer: an invertible layer with parameters, and the three ways to combine layers: chain, repeat, inverse.

A Layer is a pair of pure functions and an optional third:

    init      (key, x, context=None) -> params     x [B, *event] at the DATA end: data-dependent initialisation
    bijector  (params, context=None, key=None, train=False, **_) -> distrax.Bijector
    update    (params, x, context=None) -> params, or None      sets "stats" leaves from a batch at the data end

`forward` goes from the latent z to the data x; a density needs `inverse_and_log_det`. The bijector has the event rank that
is natural to it (0 elementwise, 1 vectors, 3 images); `chain` and the models promote it (`at_rank`). Context [B, C]
broadcasts against leading axes. A bijector is built inside the function that uses it, never passed through jit or scan.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol

import distrax
import jax
import jax.numpy as jnp

from vaeflow.bijectors.core.memory import Repetition, invertible_scan, layer_scan
from vaeflow.build import Count
from vaeflow.errors import UserError
from vaeflow.model import Array, Params
from vaeflow.record import recorded


class LayerInitFn(Protocol):
    """Parameters from a key and a batch x [B, *event] at the data end."""

    def __call__(self, key: Array, x: Array, /, context: Array | None = None) -> Params: ...


class BijectorFn(Protocol):
    """The bijector with these parameters. A layer names the keywords that it uses and takes the others as **_; guidance is an option of
    sampling (patches.py)."""

    def __call__(
        self, params: Params, /, *, context: Array | None = None, key: Array | None = None, train: bool = False, guidance: float = 1.0
    ) -> distrax.Bijector: ...


class LayerUpdateFn(Protocol):
    """Parameters with new "stats" leaves from a batch x [B, *event] at the data end."""

    def __call__(self, params: Params, x: Array, /, context: Array | None = None) -> Params: ...


class Layer(NamedTuple):
    """An invertible layer; see the module's docstring."""

    init: LayerInitFn
    bijector: BijectorFn
    update: LayerUpdateFn | None = None
    guided: bool = False  # whether `bijector` reads guidance
    spec: Any = None  # how it was made, see record.py


class Bijection(distrax.Bijector):
    """A distrax bijector made of its two functions, each input -> (output, log_det summed over the event)."""

    def __init__(self, forward: Callable, inverse: Callable, event_ndims_in: int, event_ndims_out: int | None = None):
        self._functions = (forward, inverse)
        super().__init__(event_ndims_in=event_ndims_in, event_ndims_out=event_ndims_out)

    def forward_and_log_det(self, x: Any) -> tuple[Any, Any]:
        return self._functions[0](x)

    def inverse_and_log_det(self, y: Any) -> tuple[Any, Any]:
        return self._functions[1](y)


def sum_event(log_det: Array, event_ndims: int) -> Array:
    """The sum over the last `event_ndims` axes: from elementwise terms to one log_det per event."""
    return jnp.sum(log_det, axis=tuple(range(-event_ndims, 0))) if event_ndims else log_det


def at_rank(bijector: distrax.Bijector, event_ndims_out: int) -> distrax.Bijector:
    """The bijector with its data-side event rank raised to `event_ndims_out`: log_det is summed over the new axes."""
    extra = event_ndims_out - bijector.event_ndims_out
    if extra < 0:
        raise UserError(f"a layer on events of rank {bijector.event_ndims_out} cannot act on events of rank {event_ndims_out}")
    return distrax.Block(bijector, extra) if extra else bijector


def chain(*layers: Layer) -> Layer:
    """Layers listed from the data to the latent, as in distrax.Chain: x = f_1(f_2(... f_n(z)))."""
    return chain_of(of=layers)


@recorded
def chain_of(*, of: tuple[Layer, ...]) -> Layer:
    """Layers in turn. of: from the data end to the latent one."""
    layers = of
    names = [f"{i:02d}" for i in range(len(layers))]

    def init(key, x, context=None):
        params, h = {}, x
        for name, layer, k in zip(names, layers, jax.random.split(key, max(len(layers), 1)), strict=False):
            own = layer.init(k, h, context)
            h: Any = layer.bijector(own, context=context).inverse(h)
            if own:  # no empty branch: splitting and merging the tree would lose it
                params[name] = own
        return params

    def bijector(params, context=None, key=None, train=False, **options):
        keys = [None] * len(layers) if key is None else list(jax.random.split(key, len(layers)))
        built = [
            layer.bijector(params.get(name, {}), context=context, key=k, train=train, **options)
            for name, layer, k in zip(names, layers, keys, strict=True)
        ]
        return _compose(built)

    def update(params, x, context=None):
        params, h = dict(params), x
        for name, layer in zip(names, layers, strict=True):
            before = params.get(name, {})
            if layer.update is not None:
                params[name] = layer.update(before, h, context)
            # The next layer's statistics are those of its input in training, so this layer runs in training mode.
            h: Any = layer.bijector(before, context=context, train=True).inverse(h)
        return params

    guided = any(layer.guided for layer in layers)
    return Layer(init, bijector, update if any(layer.update for layer in layers) else None, guided)


def _compose(bijectors: list[distrax.Bijector]) -> distrax.Bijector:
    """Composition that promotes every bijector to the rank that the widest of them needs."""
    shifts, rank, shift = [], 0, 0  # rank at the data end such that every layer sees at least its own
    for b in bijectors:
        shifts.append(shift)
        rank = max(rank, b.event_ndims_out - shift)
        shift += b.event_ndims_in - b.event_ndims_out
    promoted = [at_rank(b, rank + s) for b, s in zip(bijectors, shifts, strict=True)]

    def run(h, method, order, event_ndims):
        total = jnp.zeros(h.shape[: h.ndim - event_ndims], h.dtype)
        for b in order:
            h, log_det = getattr(b, method)(h)
            total += log_det
        return h, total

    return Bijection(
        lambda z: run(z, "forward_and_log_det", promoted[::-1], rank + shift),
        lambda x: run(x, "inverse_and_log_det", promoted, rank),
        event_ndims_in=rank + shift,
        event_ndims_out=rank,
    )


Memory = Literal["store", "remat", "invert"]


def repeat(layer: Layer, n: int, memory: Memory = "store") -> Layer:
    """`repeat_of` without the names of its arguments."""
    return repeat_of(of=layer, n=n, memory=memory)


@recorded
def repeat_of(*, of: Layer, n: Count, memory: Memory = "store") -> Layer:
    """n copies of a shape-preserving layer with stacked parameters [n, ...]: ONE lax.scan in each direction, and in init,
    so compile time does not grow with n. Put the flip or the linear layer that alternates into the repeated unit.

    memory, what the backward pass of training keeps:
        store   every activation of every layer
        remat   the n inputs of the layers; what one layer computes is computed again
        invert  the last output; inputs are recovered by inversion (memory.py). Not for layers with statistics, which are no
                bijection while training: an error
    """
    layer = of
    if memory == "invert" and layer.update is not None:
        raise UserError("memory='invert' needs a layer without batch statistics, which is a bijection in training too; take store or remat")

    def init(key, x, context=None):
        def step(h, k):
            params = layer.init(k, h, context)
            out = layer.bijector(params, context=context).inverse(h)
            if out.shape != h.shape:
                raise UserError(f"repeat needs a layer that keeps the shape; this one maps {h.shape[1:]} to {out.shape[1:]}")
            return out, params

        return jax.lax.scan(step, x, jax.random.split(key, n))[1]

    def bijector(params, context=None, key=None, train=False, **options):
        stacked = (params, None if key is None else jax.random.split(key, n))

        def build(p, context):
            return layer.bijector(p[0], context=context, key=p[1], train=train, **options)

        def forward(p, context, z):
            return build(p, context).forward_and_log_det(z)

        def backward(p, context, x):
            return build(p, context).inverse_and_log_det(x)

        # Only the rank is read: XLA drops the slices.
        rank = build(jax.tree.map(lambda a: a[0], stacked), context).event_ndims_out

        def run(h, there, back, reverse):
            how = Repetition(n, rank, reverse)
            if memory == "invert":
                return invertible_scan(there, back, how, stacked, context, h)
            return layer_scan(there, how, stacked, context, h, remat=memory == "remat")

        return Bijection(
            lambda z: run(z, forward, backward, reverse=True),
            lambda x: run(x, backward, forward, reverse=False),
            event_ndims_in=rank,
        )

    def update(params, x, context=None):
        def step(h, p):
            new = layer.update(p, h, context)  # type: ignore[misc]
            return layer.bijector(p, context=context, train=True).inverse(h), new

        return jax.lax.scan(step, x, params, length=n)[1]

    return Layer(init, bijector, update if layer.update else None, layer.guided)


def inverse(layer: Layer) -> Layer:
    """`inverse_of` without the name of its argument."""
    return inverse_of(of=layer)


@recorded
def inverse_of(*, of: Layer) -> Layer:
    """The layer `of` with its directions exchanged: MAF <-> IAF. It is initialised on noise, so only for layers that keep the
    shape; its statistics are those of its own latent end."""
    layer = of

    def init(key, x, context=None):
        key, noise = jax.random.split(key)
        return layer.init(key, jax.random.normal(noise, x.shape, x.dtype), context)

    def bijector(params, context=None, key=None, train=False, **options):
        return distrax.Inverse(layer.bijector(params, context=context, key=key, train=train, **options))

    def update(params, x, context=None):
        z = layer.bijector(params, context=context, train=True).forward(x)
        return layer.update(params, z, context)  # type: ignore[misc]

    return Layer(init, bijector, update if layer.update else None, layer.guided)

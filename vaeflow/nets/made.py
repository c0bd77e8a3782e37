"""MADE (Germain et al. 2015): a masked network whose output i depends on x_0 .. x_(i-1) only; the conditioner of MAF and IAF.

A unit of degree d sees the first d inputs (and the context), and is seen by units of degree >= d and by the outputs i >= d.
Units are ordered by degree, so every masked matrix is block-triangular: `masked_dense` skips the blocks of zeros, and
bijectors/core/incremental.py computes one degree after another. Degrees are spread evenly over 1 .. D-1; with a context over
0 .. D-1, since output 0 sees it only through units of degree 0.

    h_1 = f(M_1 x + V c + b_1), h_l = f(M_l h_(l-1) + b_l), theta = M h_L + b,        M masked; theta [..., size, D]
"""

from __future__ import annotations

import itertools
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vaeflow.build import Count, NonNegative
from vaeflow.model import Array
from vaeflow.nets.net import Activation, Dtype, compute_dtype, inits
from vaeflow.record import recorded

# Blocks of columns that a masked product is cut into on a CPU: with 4 it does 5/8 of the multiplications, and the log-density of a MAF of
# 5 layers of 512 x 2 takes 0.82 to 0.94 of the time (three runs in turns, two cores). Where launches and passes over memory cost more than
# products, it is one.
_BLOCKS = 4
# Below this many multiplications per row the pieces cost more than they save.
_LEAST = 1 << 17


class Made(NamedTuple):
    """The options of a masked network.

    hidden      sizes of the hidden layers; with fewer units than D - 1 some inputs are seen by none; (): theta is affine in x
    activation  of the hidden layers
    order       in which the inputs are ordered: natural (x_0 first), reverse, random (drawn at init)
    inversion   of the sequential direction: incremental (exact, one input after the other) or jacobi (all at once until
                nothing moves by more than tolerance * (1 + |x|); at most D passes; gradients through it have that tolerance, too)
    dtype       of the parallel direction; the sequential one computes in float32
    """

    hidden: tuple[int, ...]
    activation: str
    order: str
    inversion: str
    tolerance: float
    dtype: Any
    spec: Any = None  # how it was made, see record.py


@recorded
def made(
    *,
    hidden: tuple[Count, ...],
    activation: Activation = "relu",
    order: Literal["natural", "reverse", "random"] = "natural",
    inversion: Literal["incremental", "jacobi"] = "incremental",
    tolerance: NonNegative = 0.0,
    dtype: Dtype = "float32",
) -> Made:
    """A masked network for an autoregressive layer.

    Args:
        hidden: sizes of the hidden layers; (): theta is affine in x.
        activation: of the hidden layers.
        order: in which the inputs are ordered: natural, reverse or random, see `Made`.
        inversion: of the sequential direction: incremental or jacobi, see `Made`.
        tolerance: of jacobi, relative to 1 + |x|; 0: that of the arithmetic.
        dtype: of the parallel direction; parameters are float32.
    """
    return Made(tuple(hidden), activation, order, inversion, tolerance, compute_dtype(dtype))


def degrees(units: int, inputs: int, context: bool) -> np.ndarray:
    """[units] ascending: 1 .. inputs - 1 in equal shares, 0 among them with a context (or a single input)."""
    low = 0 if context or inputs == 1 else 1
    return low + np.arange(units) * (inputs - low) // units


class MadeNet(nn.Module):
    """x [..., D], context [..., C] or None -> theta [..., size, D]."""

    made: Made
    size: int

    @nn.compact
    def __call__(self, x: Array, context: Array | None = None) -> Array:
        d, f = x.shape[-1], getattr(nn, self.made.activation)
        dtype = self.made.dtype or jnp.result_type(x)
        h, seen = x.astype(dtype), np.arange(1, d + 1)  # input j is seen by degree j + 1
        for i, units in enumerate(self.made.hidden):
            own = degrees(units, d, context is not None)
            kernel, bias = self.weights(f"dense_{i}", seen[:, None] <= own)
            h = masked_dense(h, kernel.astype(dtype), seen, own) + bias.astype(dtype)
            if i == 0 and context is not None:
                h = h + nn.Dense(units, use_bias=False, name="context", dtype=self.made.dtype, **inits())(context)
            h, seen = f(h), own
        own = np.arange(d)
        kernel, bias = self.weights("head", seen[:, None] <= own, self.size)
        theta = masked_dense(h, kernel.astype(dtype).reshape(-1, self.size, d), seen, own) + bias.astype(dtype).reshape(self.size, d)
        if context is not None and not self.made.hidden:
            theta += nn.Dense(self.size * d, use_bias=False, name="context", **inits(zero=True))(context).reshape(
                *context.shape[:-1], self.size, d
            )
        return theta.astype(jnp.result_type(x))

    def weights(self, name: str, mask: np.ndarray, copies: int = 0) -> tuple[Array, Array]:
        """Kernel [n, m] with variance 1 / (inputs that a unit sees) and a zero bias [m]; for the head, with `copies`, zeros
        [n, copies * m]. A kernel that is masked away as a whole (of a single input) is no parameter."""

        def kernel(key, shape, dtype=jnp.float32):
            normal = jax.random.normal(key, shape, dtype)
            return jnp.zeros(shape, dtype) if copies else normal / np.sqrt(np.maximum(mask.sum(0), 1))

        shape = (mask.shape[0], mask.shape[1] * max(copies, 1))
        found = _Weights(kernel, shape, bool(mask.any()), name=name)()
        return found if mask.any() else (jnp.zeros(shape), found[1])


class _Weights(nn.Module):
    """A named pair kernel, bias, as linen's Dense has it."""

    init_kernel: Any
    shape: tuple[int, int]
    has_kernel: bool

    @nn.compact
    def __call__(self) -> tuple[Any, Array]:
        kernel = self.param("kernel", self.init_kernel, self.shape) if self.has_kernel else None
        return kernel, self.param("bias", nn.initializers.zeros_init(), self.shape[1:])


def masked_dense(h: Array, kernel: Array, seen: np.ndarray, own: np.ndarray) -> Array:
    """h [..., n] times kernel [n, (size,) m] without the entries where seen[i] > own[j]; both ascending -> [..., (size,) m].

    A block of columns is multiplied with the rows up to the last one that any of its columns sees.
    """

    blocks = min(_BLOCKS, len(own)) if kernel.size >= _LEAST and jax.default_backend() == "cpu" else 1

    def product(h: Array, kernel: Array) -> Array:
        out = []
        for low, high in itertools.pairwise(np.linspace(0, len(own), blocks + 1).round().astype(int)):
            last = np.searchsorted(seen, own[high - 1], side="right")
            mask = (seen[:last, None] <= own[low:high]).reshape(last, *[1] * (kernel.ndim - 2), high - low)
            out.append(jnp.tensordot(h[..., :last], kernel[:last, ..., low:high] * mask.astype(kernel.dtype), 1))
        return jnp.concatenate(out, axis=-1)

    # The backward pass needs h and the masked kernel, which costs less to mask again than a scan's copy of those of all layers.
    return jax.checkpoint(product, prevent_cse=False)(h, kernel)

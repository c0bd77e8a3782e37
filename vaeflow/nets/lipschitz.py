"""A multi-layer perceptron whose Lipschitz constant is bounded by construction, for any values of its parameters.

    h_0 = W_0 x + b_0 + V c,    h_i = W_i f_i(h_(i-1)) + b_i,    g(x, c) = h_L,        i = 1 .. L, c the context
    W = K min(1, lip^(1/(L+1)) / bound(K)),    bound(K) >= ||K||_2,    |f_i'| <= 1   =>   |g(x, c) - g(y, c)| <= lip |x - y|

f is LipSwish, f(h) = h sigmoid(softplus(beta) h) / 1.1 (Chen et al. 2019, "Residual flows"): swish has a slope below 1.0999 for every
beta, and unlike relu a second derivative, which the gradient of a log-determinant needs.

Power iteration approaches ||K||_2 from BELOW and leans on a vector that fits the weights of the last step; `spectral_bound` is from
above, a function of K alone: averaged or restored weights are as invertible as trained ones.
"""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp

from vaeflow.model import Array, Params

SQUARINGS = 8
Weights = tuple[dict[str, Array], ...]


def spectral_bound(kernel: Array) -> Array:
    """The Schatten norm of order p = 2^(SQUARINGS + 1) of K [m, n], an upper bound of its largest singular value that is too large
    by a factor of at most min(m, n)^(1/p): 1.3% at 512. By Gram iteration (Delattre et al. 2023): G_0 = K, G_(i+1) = G_i^T G_i,
    ||K||_p = ||G_i||_F^(2^-i), rescaled in each step so that nothing overflows."""

    def gram(g):
        g = jnp.matmul(g.T, g, precision=jax.lax.Precision.HIGHEST)
        norm = jnp.sqrt(jnp.sum(g**2) + 1e-30)  # a zero kernel has a gradient, too
        return g / norm, jnp.log(norm)

    def step(carry, weight):
        g, log_norm = gram(carry[0])
        return (g, carry[1] + weight * log_norm), None

    g, log_norm = gram(kernel if kernel.shape[0] > kernel.shape[1] else kernel.T)  # G is then of the smaller side
    (_, log_bound), _ = jax.lax.scan(step, (g, log_norm / 2), 0.5 ** jnp.arange(2, SQUARINGS + 1, dtype=kernel.dtype))
    return jnp.exp(log_bound)


def lip_swish(h: Array, beta: Array) -> Array:
    """h sigmoid(softplus(beta) h) / 1.1, elementwise."""
    return h * jax.nn.sigmoid(jax.nn.softplus(beta) * h) / 1.1


def init(key: Array, size: int, hidden: tuple[int, ...], context: Array | None) -> Params:
    """Parameters of g: R^size -> R^size; context [..., C] or None.

    A kernel of norm 1 onto n units has entries of about n^(-1/2): with the usual start (zero biases, softplus(beta) about 1) LipSwish
    would work where it is nearly linear. So softplus(beta) = n^(1/2), and biases ~ N(0, 1/n) spread the bends over the inputs.
    """
    sizes = (size, *hidden, size)
    keys = jax.random.split(key, len(sizes))
    kernel = jax.nn.initializers.lecun_normal()
    params: Params = {}
    for i, (m, n) in enumerate(itertools.pairwise(sizes)):
        key_k, key_b = jax.random.split(keys[i])
        last = i == len(hidden)
        params[f"dense_{i}"] = {"kernel": kernel(key_k, (m, n)), "bias": jnp.zeros(n) if last else jax.random.normal(key_b, (n,)) / n**0.5}
        if i:
            params[f"dense_{i}"]["beta"] = jnp.array(math.log(math.expm1(m**0.5)))
    if context is not None:
        params["context"] = {"kernel": kernel(keys[-1], (context.shape[-1], sizes[1]))}
    return params


def weights(params: Params, lip: float, context: Array | None, dtype: jnp.dtype) -> Weights:
    """The layers' bounded kernels [m, n], biases and betas in `dtype`; the first bias [..., n] has the context's term in it."""
    params = jax.tree.map(lambda a: a.astype(dtype), params)
    names = sorted((name for name in params if name != "context"), key=lambda name: int(name.removeprefix("dense_")))
    coefficient = lip ** (1 / len(names))
    layers = []
    for name in names:
        kernel = params[name]["kernel"]
        layers.append(params[name] | {"kernel": kernel * jnp.minimum(1, coefficient / spectral_bound(kernel))})
    if context is not None:
        layers[0]["bias"] += context.astype(dtype) @ params["context"]["kernel"]
    return tuple(layers)


def apply(layers: Weights, x: Array) -> Array:
    """g(x) [..., D] with `weights`."""
    h = x @ layers[0]["kernel"] + layers[0]["bias"]
    for layer in layers[1:]:
        h = lip_swish(h, layer["beta"]) @ layer["kernel"] + layer["bias"]
    return h

"""Convolutions whose gradients are written out: JAX's own numbers, in the one layout that has fast kernels inside a loop."""

from __future__ import annotations

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaeflow.nets.convolve import convolve, same

CASES = {  # image, channels, kernel, features, stride, zeros around ("": SAME)
    "strided": ((7, 9), 3, (4, 4), 2, 2, ""),
    "same": ((6, 5), 2, (3, 3), 4, 1, ""),
    "larger_kernel": ((3, 3), 1, (5, 5), 2, 1, ((4, 4), (4, 4))),
    "uneven": ((8, 8), 2, (3, 2), 3, 3, ((0, 0), (1, 0))),
}


def case(name: str):
    """(x, kernel, stride, pads)."""
    size, channels, kernel, features, stride, pads = CASES[name]
    one, two = jax.random.split(jax.random.key(0))
    x, k = jax.random.normal(one, (2, *size, channels)), jax.random.normal(two, (*kernel, channels, features))
    return x, k, stride, pads or same(size, kernel[0], stride)


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_jax(name):
    x, kernel, stride, pads = case(name)
    names = ("NHWC", "HWIO", "NHWC")
    own = functools.partial(jax.lax.conv_general_dilated, window_strides=(stride,) * 2, padding=pads, dimension_numbers=names)

    @jax.jit
    def both(x, kernel):
        ours, back = jax.vjp(lambda x, k: convolve(x, k, stride, pads), x, kernel)
        theirs, back_ = jax.vjp(own, x, kernel)
        dy = jnp.sin(jnp.arange(ours.size, dtype=ours.dtype)).reshape(ours.shape)
        return (ours, *back(dy)), (theirs, *back_(dy))

    for ours, theirs in zip(*both(x, kernel), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="about XLA's CPU compiler")
@pytest.mark.parametrize("name", [name for name in CASES if name != "larger_kernel"])  # XLA exchanges its operands
def test_in_the_body_of_a_loop_every_convolution_has_the_fast_layout(name):
    x, kernel, stride, pads = case(name)

    def step(carry, _):
        grads = jax.grad(lambda pair: (convolve(*pair, stride, pads) ** 2).sum())(carry)
        return jax.tree.map(lambda a, g: a - 0.01 * g, carry, grads), None

    text = jax.jit(lambda pair: jax.lax.scan(step, pair, None, 3)[0]).lower((x, kernel)).compile().as_text()
    lines = re.findall(r".* convolution\(.*", text)
    assert len(lines) == 3
    assert all("dim_labels=b01f_01io->b01f" in line and "reversal" not in line for line in lines)

"""FLOPs of a function, counted in what jax traces: a multiplication and an addition are two.

XLA's own count (`compiled.cost_analysis()`) takes the body of a loop once, so a scan over layers or draws is missing in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr

# One operation for each element of the output.
_ELEMENTWISE = {
    *("abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "ceil", "clamp"),
    *("convert_element_type", "cos", "cosh", "digamma", "div", "eq", "erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "floor"),
    *("ge", "gt", "integer_pow", "is_finite", "le", "lgamma", "log", "log1p", "logistic", "lt", "max", "min", "mul", "ne", "neg"),
    *("nextafter", "not", "or", "pow", "rem", "round", "rsqrt", "select_n", "sign", "sin", "sinh", "sqrt", "square", "sub", "tan"),
    *("tanh", "xor"),
}
# One operation for each element of the input.
_REDUCTIONS = {"argmax", "argmin", "cummax", "cummin", "cumprod", "cumsum", "reduce_max", "reduce_min", "reduce_prod", "reduce_sum"}


def flops(fn: Callable[..., Any], *args: Any) -> float:
    """FLOPs of fn(*args), without running it. args: arrays, or ShapeDtypeStructs, in any tree.

    A matrix product [M, K] x [K, N] has 2 M N K, a convolution 2 (output elements) (kernel elements for each of them), a scan
    `length` times its body; a while loop counts once, of a cond the dearest branch. Moving data, indexing, random bits and
    factorisations (LU, Cholesky) count nothing. Inside a shard_map: those of one device.
    """
    return _jaxpr(jax.make_jaxpr(fn)(*args).jaxpr)


def _jaxpr(jaxpr: Jaxpr) -> float:
    return sum((_equation(e) for e in jaxpr.eqns), 0.0)


def _equation(e: Any) -> float:
    name, size = e.primitive.name, sum(v.aval.size for v in e.outvars if hasattr(v.aval, "size"))
    if name == "dot_general":
        (contracting, _), _ = e.params["dimension_numbers"]
        return 2.0 * size * math.prod(e.invars[0].aval.shape[i] for i in contracting)
    if name == "conv_general_dilated":
        kernel, dims = e.invars[1].aval, e.params["dimension_numbers"]
        # The input features of the kernel are those of one group; the zeros between the inputs of a transposed one are not multiplied.
        each = kernel.size / kernel.shape[dims.rhs_spec[0]] / math.prod(e.params["lhs_dilation"])
        return 2.0 * size * each
    if name == "cond":
        return max(_jaxpr(branch.jaxpr) for branch in e.params["branches"])
    if name in _ELEMENTWISE:
        return float(size)
    if name in _REDUCTIONS:
        return float(e.invars[0].aval.size)
    if name.startswith("scatter"):  # what it does with two values at one place is no loop
        return 0.0
    times = e.params["length"] if name == "scan" else 1
    return float(times * sum(_jaxpr(inner) for inner in _inner(e.params.values())))


def _inner(values: Any) -> Iterator[Jaxpr]:
    """The jaxprs among a primitive's parameters: of jit, remat, scan, while, custom_jvp, custom_vjp, shard_map ..."""
    for value in values:
        if isinstance(value, ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, Jaxpr):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _inner(value)

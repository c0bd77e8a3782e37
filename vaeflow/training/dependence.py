"""Which arguments a function of arrays reads, from its trace: nothing is compiled or run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend.core import Literal


def reads(fn: Callable[..., Any], args: Sequence[Any], index: int) -> bool:
    """True if an output of fn(*args) depends on args[index].

    Every output of an operation counts as depending on all of its inputs, and a function with side effects as reading all of its arguments,
    so True may be wrong; False never is.

    Args:
        fn: a function of trees of arrays that can be traced.
        args: arrays or ShapeDtypeStructs.
        index: the argument in question.

    Example:
        reads(lambda a, b: 2 * a, (1.0, 1.0), 1)  # False
    """
    jaxpr = jax.make_jaxpr(fn)(*args).jaxpr
    if jaxpr.effects:
        return True
    sizes = [len(jax.tree.leaves(arg)) for arg in args]
    start = sum(sizes[:index])
    reached = set(jaxpr.invars[start : start + sizes[index]])
    for equation in jaxpr.eqns:
        if any(not isinstance(var, Literal) and var in reached for var in equation.invars):
            reached.update(equation.outvars)
    return any(not isinstance(var, Literal) and var in reached for var in jaxpr.outvars)

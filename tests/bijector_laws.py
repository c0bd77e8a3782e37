"""The laws of a bijector as functions that return residuals, and `failures`, which says what they break.

One jitted function per (bijector, shape, dtype) returns all residuals. Trained leaves are perturbed by noise of 0.02.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vaeflow.bijectors import BIJECTORS, BijectorEntry, Layer
from vaeflow.bijectors.core.layer import at_rank
from vaeflow.build import build
from vaeflow.model import Params, merge_params, split_params

CONTEXT = 3


class Case(NamedTuple):
    """One registered bijector with its arguments at one event shape."""

    name: str
    number: int
    shape: tuple[int, ...]

    @property
    def entry(self) -> BijectorEntry:
        return BIJECTORS[self.name]

    def layer(self, dtype: str = "float32") -> Layer:
        parts = {**nets_and_layers(dtype), "it": {"kind": self.name, **self.entry.examples[self.number].arguments}}
        return build(parts, "it", Layer)

    def __str__(self) -> str:
        return f"{self.name}-{self.number}-{'x'.join(map(str, self.shape))}"


def nets_and_layers(dtype: str) -> dict[str, Any]:
    """The parts that examples may name."""
    net = {"activation": "tanh", "dtype": dtype}
    return {
        "mlp": {"kind": "mlp", "hidden": [8], **net},
        "convnet": {"kind": "convnet", "channels": [4], "kernel": 3, **net},
        **{
            name: {"kind": "made", "hidden": hidden, "order": order, "inversion": how, "tolerance": 0.0, **net}
            for name, hidden, order, how in (
                ("made", [9, 7], "natural", "incremental"),
                ("made_linear", [], "reverse", "incremental"),
                ("made_random", [9], "random", "jacobi"),
            )
        },
        "coupling": {"kind": "affine_coupling", "net": "mlp", "mask": "half", "flip": False, "cap": 2.0},
        "norm": {"kind": "batch_norm", "momentum": 0.9, "eps": 1e-5},
        "reverse": {"kind": "permutation", "order": "reverse"},
        "step": {"kind": "chain", "of": ["coupling", "norm", "reverse"]},
        "reversible": {"kind": "chain", "of": ["coupling", "reverse"]},
    }


CASES = [Case(name, i, shape) for name, entry in BIJECTORS.items() for i, ex in enumerate(entry.examples) for shape in ex.shapes]


def data(shape: tuple[int, ...], domain: str, n: int = 8, dtype: Any = jnp.float32) -> dict[str, jax.Array]:
    """x at the data end and z at the latent end [n + 3, *shape], the last three in the tails (of a spline: on the interval's end and
    far outside), and a context [n + 3, CONTEXT]."""
    draws = np.random.default_rng(0)
    x, z = draws.normal(size=(2, n + 3, *shape))
    if domain == "unit":
        x, z = 1 / (1 + np.exp(-x)), 2 * z
        x[n:] = np.where(x[n:] < 0.5, 1e-4, 1 - 1e-4)
    else:
        for h in (x, z):
            h[n:] *= 30
            h[-1] = 3 * np.sign(h[-1])
    values = {"x": x, "z": z, "context": draws.normal(size=(n + 3, CONTEXT))}
    return {key: jnp.asarray(value, dtype) for key, value in values.items()}


def ends(layer: Layer, params: Params, shape: tuple[int, ...], domain: str, dtype: Any = jnp.float32) -> dict[str, jax.Array]:
    """`data` with z [n + 3, *latent] in the shape that the layer maps x to."""
    found = data(shape, domain, dtype=dtype)

    def latent(params, x, context):
        return at_rank(layer.bijector(params, context=context), len(shape)).inverse(x)

    return found | {"z": found["z"].reshape(jax.eval_shape(latent, params, found["x"], found["context"]).shape)}


# Compile time counts here, speed does not.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@functools.cache
def start(case: Case, dtype: str = "float32"):
    """The initial parameters of a case, float32."""
    inputs = data(case.shape, case.entry.domain)
    return quick_jit(case.layer(dtype).init)(jax.random.key(1), inputs["x"], inputs["context"])


def perturbed(params, scale: float = 0.02):
    """params with normal noise of the given scale on the trained leaves."""
    trained, stats, fixed = split_params(params)
    noise = np.random.default_rng(7)
    noisy = jax.tree.map(lambda a: jnp.asarray(a + scale * noise.normal(size=a.shape), a.dtype), trained)
    return merge_params(noisy, stats, fixed)


def residuals(layer: Layer, rank: int, params: Params, inputs: dict[str, jax.Array]) -> dict[str, Any]:
    """To be jitted: {law: number that is about 0}, for the Jacobian (log_det, matrices), for "gradients" a tree. Every instance
    of the bijector costs compile time, so z and inverse(x) go forward at once, as leading draws [2, B, ...], and vjp gives value
    and gradient.
    """
    x, z, context = inputs["x"], inputs["z"], inputs["context"]
    trained, stats, fixed = split_params(params)

    def run(method, trained, h, context):
        params = merge_params(trained, stats, fixed)
        return getattr(at_rank(layer.bijector(params, context=context), rank), method)(h)

    forward, inverse = (functools.partial(run, f"{way}_and_log_det") for way in ("forward", "inverse"))
    (z2, log_det2), pull_inverse = jax.vjp(inverse, trained, x, context)
    ((x1, x2), (log_det, back2)), pull_forward = jax.vjp(forward, trained, jnp.stack([z, z2]), context)
    z1, back = inverse(trained, x1, context)

    def one(h, c):
        y, log_det = forward(trained, h, c)
        return y, (y, log_det)

    jacobian, (y, y_log_det) = jax.vmap(jax.jacrev(one, has_aux=True))(z, context)
    weights = jnp.cos(jnp.arange(z.size, dtype=z.dtype)).reshape(z.shape)  # of a scalar loss that mixes every output
    gradients = {
        "inverse": pull_inverse((weights, jnp.ones_like(log_det2))),
        "forward": pull_forward((jnp.stack([weights, weights]).reshape(2, *x.shape), jnp.ones((2, *log_det.shape), log_det.dtype))),
    }
    return {
        "inverse(forward(z)) = z": relative(z1, z),
        "forward(inverse(x)) = x": relative(x2, x),
        "inverse log_det = - forward log_det": jnp.maximum(relative(back, -log_det), relative(back2, -log_det2)),
        "log_det = slogdet of the Jacobian": (log_det, jacobian),
        "vmap = batch = leading draws": jnp.maximum(relative(y, x1), relative(y_log_det, log_det)),
        "gradients": {k: dict(zip(("params", "input", "context"), v, strict=True)) for k, v in gradients.items()},
    }


def relative(a: jax.Array, b: jax.Array) -> jax.Array:
    """max |a - b| / (1 + |b|); infinite where anything is not finite, or where the shapes differ."""
    if a.shape != b.shape:
        return jnp.array(jnp.inf)
    error = jnp.abs(a - b) / (1 + jnp.abs(b))
    return jnp.max(jnp.where(jnp.isfinite(error), error, jnp.inf))


def failures(found: dict[str, Any], tolerance: float, uses_context: bool) -> list[str]:
    """The laws that residuals break, each with its number."""
    bad = []
    for law, value in found.items():
        if isinstance(value, tuple):
            # By numpy: two batched LAPACK calls at once in a program of XLA's deadlock on 2 cores.
            log_det, jacobian = (np.asarray(v) for v in value)
            value = relative(log_det, np.linalg.slogdet(jacobian.reshape(len(log_det), -1, math.isqrt(jacobian[0].size)))[1])
        if law != "gradients":
            bad += [] if value <= tolerance else [f"{law}: {value}"]
            continue
        for path, leaf in jax.tree_util.tree_leaves_with_path(value):
            where = jax.tree_util.keystr(path)
            used = uses_context or "context" not in where
            if not np.all(np.isfinite(leaf)):
                bad.append(f"gradient {where} is not finite")
            elif bool(np.any(leaf)) != used:
                bad.append(f"gradient {where} is {'zero' if used else 'not zero, where no context is expected'}")
    return bad


def mass(layer: Layer, params: Params, shape: tuple[int, ...], points: int = 150) -> float:
    """The integral over a 2-D event of the density that N(0, I) gets; the grid covers the image of [-8, 8]^2."""

    @quick_jit
    def run(params):
        bijector = at_rank(layer.bijector(params, context=jnp.ones((1, CONTEXT))), len(shape))
        line = jnp.linspace(-8, 8, 33)
        image = bijector.forward(jnp.stack(jnp.meshgrid(line, line), -1).reshape(-1, *shape)).reshape(-1, 2)
        low, high = jnp.min(image, 0), jnp.max(image, 0)
        step = (high - low) / points
        axes = low[:, None] + step[:, None] * (jnp.arange(points) + 0.5)
        grid = jnp.stack(jnp.meshgrid(*axes), -1).reshape(-1, *shape)
        z, log_det = bijector.inverse_and_log_det(grid)
        log_p = jnp.sum(-0.5 * z.reshape(-1, 2) ** 2, -1) - math.log(2 * math.pi) + log_det
        return jnp.sum(jnp.exp(log_p)) * jnp.prod(step)

    return float(run(params))

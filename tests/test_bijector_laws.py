"""The laws of every registered bijector, and tests that a wrong one breaks them."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import pytest

from tests.bijector_laws import CASES, Case, data, ends, failures, mass, perturbed, quick_jit, relative, residuals, start
from vaeflow.bijectors import BIJECTORS
from vaeflow.bijectors.core.layer import Bijection, Layer, at_rank, chain, repeat
from vaeflow.errors import UserError
from vaeflow.model import split_params

# By default the last shape of every example; all of them in the long matrix. The shapes that are planes have a test of their own.
LAST = [c for c in CASES if c.shape == c.entry.examples[c.number].shapes[-1]]
FULL = [c if c in LAST else pytest.param(c, marks=pytest.mark.full) for c in CASES]
ONCE = [next(c for c in LAST if c.name == name) for name in BIJECTORS]
# One of each mechanism (networks, statistics, fixed leaves, sequential and numerical inverses); the others in the long matrix.
KINDS = ("chain", "inverse", "affine_coupling", "affine_autoregressive", "batch_norm", "permutation", "lu_linear", "planar", "split")


def full_unless_typical(case: Case):
    return case if case.name in KINDS else pytest.param(case, marks=pytest.mark.full)


TYPICAL = [full_unless_typical(c) for c in ONCE]
PLANES = [c for c in CASES if sum(c.shape) - len(c.shape) == 1]


def named(cases):
    return pytest.mark.parametrize("case", cases, ids=str)


def check64(layer: Layer, params, shape, domain: str, uses_context: bool) -> list[str]:
    with jax.enable_x64(True):
        inputs = ends(layer, params, shape, domain, jnp.float64)
        found = quick_jit(functools.partial(residuals, layer, len(shape)))(params, inputs)
        assert found["forward(inverse(x)) = x"].dtype == jnp.float64
        return failures(found, 1e-8, uses_context)


@functools.cache
def there_and_back(case: Case, dtype: str = "float32"):
    """params -> (x1, log_det, z2, log_det2), (z1, back, x2): z to x1 to z1, x to z2 to x2."""
    layer = case.layer(dtype)
    inputs = ends(layer, start(case, dtype), case.shape, case.entry.domain)

    def run(params, x, z, context):
        bijector = at_rank(layer.bijector(params, context=context), len(case.shape))
        z2, log_det2 = bijector.inverse_and_log_det(x)
        (x1, x2), (log_det, _) = bijector.forward_and_log_det(jnp.stack([z, z2]))
        z1, back = bijector.inverse_and_log_det(x1)
        return (x1, log_det, z2, log_det2), (z1, back, x2)

    return functools.partial(quick_jit(run), **inputs)


@named(FULL)
def test_laws_in_float64(case: Case):
    assert not check64(case.layer(), perturbed(start(case)), case.shape, case.entry.domain, case.entry.context)


@named(LAST)
def test_float32(case: Case):
    inputs, atol = ends(case.layer(), start(case), case.shape, case.entry.domain), case.entry.inverse_atol
    there, back = there_and_back(case)(perturbed(start(case)))
    assert {a.dtype for a in (*there, *back)} == {jnp.dtype(jnp.float32)}
    assert relative(back[0], inputs["z"]) < atol and relative(back[2], inputs["x"]) < atol
    assert relative(back[1], -there[1]) < 10 * atol


@named(TYPICAL)
def test_without_jit(case: Case):
    layer, params = case.layer(), perturbed(start(case))
    inputs = ends(layer, params, case.shape, case.entry.domain)
    bijector = at_rank(layer.bijector(params, context=inputs["context"]), len(case.shape))
    eager = (*bijector.forward_and_log_det(inputs["z"]), *bijector.inverse_and_log_det(inputs["x"]))
    jitted, _ = there_and_back(case)(params)
    assert max(relative(a, b) for a, b in zip(eager, jitted, strict=True)) < 1e-5


@named(ONCE)
def test_no_parameter_overflows(case: Case):
    """Trained leaves thrown off by noise of 100: log-scales are bounded by construction, so numbers and log_det stay finite."""
    there, _ = there_and_back(case)(perturbed(start(case), 100.0))
    assert all(bool(jnp.all(jnp.isfinite(a))) for a in there)


@named([c for c in LAST if c.entry.identity])
def test_starts_as_the_identity(case: Case):
    z = data(case.shape, case.entry.domain)["z"]
    (x, log_det, *_), _ = there_and_back(case)(start(case))
    assert relative(x, z) < 1e-6 and relative(log_det, jnp.zeros_like(log_det)) < 1e-5


@named([c for c in LAST if c.entry.context and c.number in (0, 2)])
def test_bfloat16_networks(case: Case):
    params = perturbed(start(case, "bfloat16"))
    inputs = ends(case.layer("bfloat16"), params, case.shape, case.entry.domain)
    there, back = there_and_back(case, "bfloat16")(params)
    assert {a.dtype for a in (*jax.tree.leaves(split_params(params)[0]), *there, *back)} == {jnp.dtype(jnp.float32)}
    assert jnp.median(jnp.abs(back[0] - inputs["z"])) < 1e-3
    assert jnp.median(jnp.abs(back[1] + there[1])) < 1e-3


@named([full_unless_typical(c) for c in ONCE if c.name != "chain" and c.entry.domain == "real"])
def test_repeat_is_a_chain_of_its_slices(case: Case):
    inputs, layer = data(case.shape, case.entry.domain), case.layer()
    copies, in_turn = repeat(layer, 2), chain(layer, layer)
    if ends(layer, start(case), case.shape, case.entry.domain)["z"].shape != inputs["x"].shape:
        with pytest.raises(UserError, match="repeat needs a layer that keeps the shape"):
            jax.eval_shape(copies.init, jax.random.key(0), inputs["x"], inputs["context"])
        return
    slices = {"00": perturbed(start(case)), "01": perturbed(start(case), 0.04)}
    stacked = jax.tree.map(lambda a, b: jnp.stack([a, b]), *slices.values())

    @quick_jit
    def both(stacked, slices, x, z, context):
        outputs = []
        for bijector in (copies.bijector(stacked, context=context), in_turn.bijector(slices, context=context)):
            outputs.append((*bijector.forward_and_log_det(z), *bijector.inverse_and_log_det(x)))
        if layer.update:
            after, after_in_turn = copies.update(stacked, x, context), in_turn.update(slices, x, context)
            outputs[0] += tuple(jax.tree.leaves(after))
            outputs[1] += tuple(jax.tree.leaves(jax.tree.map(lambda a, b: jnp.stack([a, b]), *after_in_turn.values())))
        return outputs

    shapes = jax.eval_shape(copies.init, jax.random.key(0), inputs["x"], inputs["context"])
    assert jax.tree.map(jnp.shape, stacked) == jax.tree.map(jnp.shape, shapes)
    scanned, unrolled = both(stacked, slices, **inputs)
    assert max(relative(a, b) for a, b in zip(scanned, unrolled, strict=True)) < 1e-5


@named(ONCE)
def test_update_sets_the_statistics_and_nothing_else(case: Case):
    layer, inputs, params = case.layer(), data(case.shape, case.entry.domain), start(case)
    trained, stats, fixed = split_params(params)
    assert bool(stats) == (layer.update is not None)
    if layer.update is None:
        return
    after = split_params(jax.jit(layer.update)(params, 2 * inputs["x"] + 1, inputs["context"]))
    assert jax.tree.structure(after) == jax.tree.structure((trained, stats, fixed))
    same = [jax.tree.map(lambda a, b: bool(jnp.all(a == b)), a, b) for a, b in zip(after, (trained, stats, fixed), strict=True)]
    assert all(jax.tree.leaves(same[0])) and all(jax.tree.leaves(same[2])) and not any(jax.tree.leaves(same[1]))


@named(PLANES)
def test_density_integrates_to_one(case: Case):
    assert abs(mass(case.layer(), perturbed(start(case)), case.shape) - 1) < 1e-3


def stretch(log_det_factor: float = 1.0, off: float = 0.0, root: bool = False) -> Layer:
    """x = z exp(s): right as it stands, wrong by a factor on its log_det, by an offset of its inverse, by a gradient at 0."""

    def bijector(params, **_):
        s = params["s"].astype(jnp.result_type(float))
        log_det = log_det_factor * jnp.sum(s)
        if root:
            s += jnp.sqrt(0 * s)

        def forward(z):
            return z * jnp.exp(s), jnp.broadcast_to(log_det, z.shape[:-1])

        return Bijection(forward, lambda x: (x * jnp.exp(-s) + off, jnp.broadcast_to(-log_det, x.shape[:-1])), 1)

    return Layer(lambda key, x, context=None: {"s": jnp.full(x.shape[-1], 0.3)}, bijector)


def test_a_wrong_bijector_breaks_the_laws():
    params = {"s": jnp.full(3, 0.3)}

    def broken(uses_context: bool = False, **wrong):
        return " ".join(check64(stretch(**wrong), params, (3,), "real", uses_context))

    assert broken() == ""
    assert broken(log_det_factor=1.001).startswith("log_det = slogdet")
    assert "inverse(forward(z)) = z" in broken(off=1e-6) and "forward(inverse(x)) = x" in broken(off=1e-6)
    assert "['params']['s'] is not finite" in broken(root=True)
    assert "['context'] is zero" in broken(uses_context=True)
    assert abs(mass(stretch(log_det_factor=2.0), {"s": params["s"][:2]}, (2,)) - 1) > 0.1

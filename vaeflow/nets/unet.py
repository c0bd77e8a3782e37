"""U-Net from image to image, conditioned in every block: DDPM++ and NCSN++ of Song et al. 2020, "Score-based generative modeling through
stochastic differential equations" (2011.13456, appendix H; Ho et al. 2020, DDPM; residual blocks of Brock et al. 2018, BigGAN)."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from vaeflow.build import Count, Decay, Natural
from vaeflow.errors import UserError
from vaeflow.model import Array
from vaeflow.nets.attention import Attention, ContextEmbedding, common_lead, context_parts, dropped, needs_heads, needs_token_width
from vaeflow.nets.conv import Convolutional, image_out, needs_image
from vaeflow.nets.convolve import Convolution, convolve, images
from vaeflow.nets.net import Activation, Dtype, Net, compute_dtype, inits
from vaeflow.nets.resample import double_fir, double_nearest, filtered, half_fir, half_mean
from vaeflow.record import recorded

Modulation = Literal["scale_shift", "shift"]
_GROUPS = 32


class UnetOptions(NamedTuple):
    """The arguments of `unet` that every block reads."""

    activation: str
    heads: int
    modulation: str
    skip_scale: bool
    fir: bool
    dropout: float
    dtype: Any

    def kernels(self, zero: bool = False) -> dict[str, Any]:
        """Precision and initialisers of a layer."""
        return dict(dtype=self.dtype, **inits(zero))

    def joined(self, h: Array, inner: Array) -> Array:
        """The sum of a block's input and its residual."""
        return (h + inner) * 0.5**0.5 if self.skip_scale else h + inner


@recorded
def unet(
    *,
    channels: Count = 64,
    multipliers: tuple[Count, ...] = (1, 2),
    blocks: Count = 2,
    attention: tuple[Count, ...] = (),
    heads: Count = 1,
    modulation: Modulation = "scale_shift",
    skip_scale: bool = True,
    fir: bool = False,
    progressive: bool = False,
    dropout: Decay = 0.0,
    tokens: Natural = 0,
    token_width: Natural = 0,
    activation: Activation = "silu",
    dtype: Dtype = "float32",
) -> Net:
    """x [..., H, W, C] -> [..., *out], out [H, W, C'] or [P, H, W, C']; context [..., K] conditions every block.

    Level i has `channels * multipliers[i]` channels on H / 2^i x W / 2^i pixels. Down: `blocks` residual blocks per level, then one
    that halves the image. In the middle: block, attention, block. Up: `blocks + 1` blocks per level, each on (h, the newest skip), then one
    that doubles the image. The head is a 3x3 convolution of f(norm(h)). With c the context's embedding, a block is

        h + conv(drop(f((1 + a) norm(conv(f(norm(h)))) + b)))    (a, b) = V c for "scale_shift" (Dhariwal and Nichol 2021)
        h + conv(drop(f(norm(conv(f(norm(h))) + b))))            b = V c for "shift" (DDPM++, NCSN++)

    Where the image changes size, h and f(norm(h)) are resampled; there, and where the channels change, h is projected by a 1x1
    convolution. The last convolution of a block starts at zero, and so does the last layer of an attention.

    Args:
      attention: image heights, in pixels, of the levels with self-attention; the middle always has it.
      heads: heads of the attention, a divisor of the channels.
      modulation: how the context enters a block, see above.
      skip_scale: sums are divided by sqrt(2).
      fir: images change size by the filter [1, 3, 3, 1] (resample.py), not by means and repetition.
      progressive: the input is added to every level, by a strided 3x3 convolution from the level above (NCSN++'s residual input).
      dropout: rate; it acts only where the module is applied with rngs={"dropout": key}.
      tokens, token_width: the last tokens * token_width entries of the context are vectors that every attention block attends to, too.

    On CIFAR-10 both of the paper's networks have channels=128, multipliers=(1, 2, 2, 2), blocks=4, attention=(16,), modulation="shift" and
    dropout=0.1. DDPM++ has a sinusoidal embedding; NCSN++ a Fourier embedding, fir=True and progressive=True. Kernels start LeCun normal.
    Group norms have the largest number of groups <= min(n / 4, 32) that divides the n channels. Class labels are one-hot vectors beside the
    time's features in the context, whose embedding is in at least float32.

    Raises: UserError if the images cannot be halved, or a height in `attention` is not that of a level.

    Example:
        net = unet(channels=32, multipliers=(1, 2), attention=(4,))       # 8x8 digits
        module = net.module((8, 8, 1), 3, True)
    """
    needs_token_width("unet", tokens, token_width)
    if not multipliers:
        raise UserError("unet: multipliers=() is invalid; it must have one number for each level")
    widths = tuple(channels * m for m in multipliers)
    for width in widths:
        needs_heads("unet", heads, width, "channels * multiplier")

    def module(out: tuple[int, ...], event_ndims: int = 3, zero_head: bool = False) -> nn.Module:
        needs_image("unet", event_ndims)
        image_out("unet", out)
        precision = compute_dtype(dtype)
        options = UnetOptions(activation, heads, modulation, skip_scale, fir, dropout, precision)
        own = (options, channels, blocks, tuple(attention), progressive, tokens, token_width)
        return Unet(widths, 3, activation, tuple(out), zero_head, precision, *own)

    return Net(module)


def group_norm(h: Array, dtype: Any, name: str) -> Array:
    """Group norm of h [..., H, W, C] over pixels and the channels of a group, with any number of leading axes."""
    n = h.shape[-1]
    groups = max(g for g in range(1, max(min(n // 4, _GROUPS), 1) + 1) if n % g == 0)
    return nn.GroupNorm(groups, reduction_axes=(-3, -2, -1), dtype=dtype, name=name)(h)


class UnetBlock(nn.Module):
    """See `unet`. resample: "half", "double" or "" for images of the same size."""

    features: int
    options: UnetOptions
    resample: str = ""

    @nn.compact
    def __call__(self, h: Array, c: Array | None) -> Array:
        o, n = self.options, self.features
        f = getattr(nn, o.activation)
        resize = {
            "": lambda h: h,
            "half": half_fir if o.fir else half_mean,
            "double": double_fir if o.fir else double_nearest,
        }[self.resample]
        inner = resize(f(group_norm(h, o.dtype, "norm_0")))
        inner = Convolution(n, 3, 1, name="conv_0", **o.kernels())(inner)
        if c is not None and o.modulation == "shift":
            inner = inner + nn.Dense(n, name="context", **o.kernels())(c)[..., None, None, :]
        inner = group_norm(inner, o.dtype, "norm_1")
        if c is not None and o.modulation == "scale_shift":
            shift, scale = jnp.split(nn.Dense(2 * n, name="context", **o.kernels())(c)[..., None, None, :], 2, -1)
            inner = inner * (1 + scale) + shift
        inner = Convolution(n, 3, 1, name="conv_1", **o.kernels(zero=True))(dropped(self, f(inner), o.dropout))
        h = resize(h)
        if h.shape[-1] != n or self.resample:
            h = Convolution(n, 1, 1, name="skip", **o.kernels())(h)
        return o.joined(h, inner)


class UnetAttention(nn.Module):
    """h + attention(norm(h)) over all pixels, then the same to the context's tokens where there are any."""

    options: UnetOptions

    @nn.compact
    def __call__(self, h: Array, tokens: Array | None) -> Array:
        o = self.options
        for name, memory in (("self", None), ("cross", tokens)):
            if name == "self" or memory is not None:
                inner = group_norm(h, o.dtype, f"{name}_norm").reshape(*h.shape[:-3], -1, h.shape[-1])
                inner = Attention(o.heads, o.dtype, zero=True, name=f"{name}_attention")(inner, memory)
                h = o.joined(h, inner.reshape(h.shape))
        return h


class HalfConvolution(nn.Module):
    """3x3 convolution of stride 2, H -> H / 2; after the filter [1, 3, 3, 1], applied at full resolution, where `fir`."""

    features: int
    options: UnetOptions

    @nn.compact
    def __call__(self, x: Array) -> Array:
        o, n = self.options, self.features
        if not o.fir:
            return Convolution(n, 3, 2, name="conv", **o.kernels())(x)
        kernel = self.param("kernel", inits()["kernel_init"], (3, 3, x.shape[-1], n))
        bias = self.param("bias", inits()["bias_init"], (n,))
        dtype = o.dtype or jnp.result_type(x, kernel)
        # A border of two zeros: the filter's four taps leave H + 1 pixels, on which the kernel's three taps have H / 2 places.
        blurred = filtered(images(x).astype(dtype), 1, 2)
        y = convolve(blurred, kernel.astype(dtype), 2, ((0, 0), (0, 0)))
        return y.reshape(*x.shape[:-3], *y.shape[1:]) + bias.astype(dtype)


class Unet(Convolutional):
    """See `unet`; channels are those of the levels, `width` those of the first convolution."""

    unet_options: UnetOptions
    width: int
    blocks: int
    attention: tuple[int, ...]
    progressive: bool
    tokens: int
    token_width: int

    def fits(self, height: int, width: int) -> None:
        """UserError: the image has no such levels."""
        levels = len(self.channels)
        shrink = 2 ** (levels - 1)
        if height % shrink or width % shrink:
            need = f"both sides must be divisible by {shrink}, as multipliers has {levels} levels"
            raise UserError(f"unet: images of {height}x{width} pixels are invalid; {need}")
        heights = [height // 2**i for i in range(levels)]
        if not {*self.attention} <= {*heights}:
            raise UserError(f"unet: attention={self.attention} is invalid; the levels' heights are {', '.join(map(str, heights))} pixels")

    @nn.compact
    def __call__(self, x: Array, context: Array | None = None) -> Array:
        self.fits(*x.shape[-3:-1])
        o, last = self.unet_options, len(self.channels) - 1
        x = common_lead(x, 3, context)
        c, memory = context_parts("unet", context, self.tokens, self.token_width)
        c = None if c is None else ContextEmbedding(4 * self.width, o.activation, name="embedding")(c)

        def attend(h: Array, name: str) -> Array:
            return UnetAttention(o, name=name)(h, memory) if "middle" in name or h.shape[-3] in self.attention else h

        h, pyramid = Convolution(self.width, 3, 1, name="conv", **o.kernels())(x), x
        skips = [h]
        for i, n in enumerate(self.channels):
            for j in range(self.blocks):
                h = attend(UnetBlock(n, o, name=f"down_{i}_{j}")(h, c), f"down_{i}_{j}_attention")
                skips.append(h)
            if i < last:
                h = UnetBlock(n, o, "half", name=f"half_{i}")(h, c)
                if self.progressive:
                    h = pyramid = o.joined(HalfConvolution(n, o, name=f"input_{i}")(pyramid), h)
                skips.append(h)
        n = self.channels[-1]
        h = UnetBlock(n, o, name="middle_0")(h, c)
        h = UnetBlock(n, o, name="middle_1")(attend(h, "middle_attention"), c)
        for i, n in reversed([*enumerate(self.channels)]):
            for j in range(self.blocks + 1):
                h = UnetBlock(n, o, name=f"up_{i}_{j}")(jnp.concatenate([h, skips.pop()], -1), c)
            h = attend(h, f"up_{i}_attention")
            h = UnetBlock(n, o, "double", name=f"double_{i}")(h, c) if i else h
        h = getattr(nn, o.activation)(group_norm(h, o.dtype, "norm"))
        h = Convolution(self.map_channels(), 3, 1, name="head", **self.options(head=True))(h)
        return self.maps(h).astype(jnp.result_type(x))

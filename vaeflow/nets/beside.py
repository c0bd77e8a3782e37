"""A network that reads an image beside its input, such as a U-Net of a conditional diffusion model."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from vaeflow.build import Count
from vaeflow.errors import UserError
from vaeflow.model import Array
from vaeflow.nets.attention import common_lead
from vaeflow.nets.net import Net
from vaeflow.record import recorded


@recorded
def beside(*, of: Net, channels: Count) -> Net:
    """x [..., H, W, C], c -> of([x | y], c'):  the last H W `channels` entries of the context c are an image y [H, W, channels], further
    channels of the network's input; c' is the rest of the context.

    Conditioning by concatenation, as for super-resolution (Saharia et al. 2021, 2104.07636) and inpainting (Rombach et al. 2022,
    2112.10752).

    Args:
        of: the network, of images.
        channels: of y.

    Raises:
        UserError: the input is not an image, or the context is shorter than y.
    """

    def module(out: tuple[int, ...], event_ndims: int = 3, zero_head: bool = False) -> nn.Module:
        if event_ndims != 3:
            raise UserError(f"a beside network reads images [H, W, C], here it is given events of rank {event_ndims}")
        return Beside(of.module(out, event_ndims, zero_head), channels)

    return Net(module)


class Beside(nn.Module):
    """See `beside`."""

    net: nn.Module
    channels: int

    @nn.compact
    def __call__(self, x: Array, context: Array | None = None) -> Any:
        shape = (*x.shape[-3:-1], self.channels)
        size, given = math.prod(shape), 0 if context is None else context.shape[-1]
        if context is None or given < size:
            raise UserError(f"beside: channels={self.channels} requires a context of at least {size} entries, not {given}")
        rest, y = context[..., : given - size], context[..., given - size :]
        y = y.reshape(*y.shape[:-1], *shape)
        x = common_lead(x, 3, context)
        y = jnp.broadcast_to(y, (*x.shape[:-1], self.channels)).astype(x.dtype)
        return self.net(jnp.concatenate([x, y], -1), rest if given > size else None)

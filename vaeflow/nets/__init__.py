"""Networks: one architecture a file, one line here. A network's output shape stays open until a layer asks (net.py)."""

from __future__ import annotations

from collections.abc import Callable

from vaeflow.build import part_kind
from vaeflow.nets.beside import beside
from vaeflow.nets.causal import Causal, causal_transformer
from vaeflow.nets.concat_squash import concat_squash
from vaeflow.nets.conv import conv, convnet, deconv, glow_net
from vaeflow.nets.dit import dit
from vaeflow.nets.embedding import Embedding, fourier, sinusoidal
from vaeflow.nets.gated import gated_conv, gated_deconv
from vaeflow.nets.grids import downsample, upsample
from vaeflow.nets.made import Made, made
from vaeflow.nets.mlp import mlp
from vaeflow.nets.net import Net
from vaeflow.nets.res_conv import res_conv, res_deconv
from vaeflow.nets.resnet import resnet
from vaeflow.nets.transformer import transformer
from vaeflow.nets.unet import unet

NETS: dict[str, Callable[..., Net]] = {
    "mlp": mlp,
    "conv": conv,
    "deconv": deconv,
    "gated_conv": gated_conv,
    "gated_deconv": gated_deconv,
    "res_conv": res_conv,
    "res_deconv": res_deconv,
    "downsample": downsample,
    "upsample": upsample,
    "convnet": convnet,
    "glow_net": glow_net,
    "resnet": resnet,
    "transformer": transformer,
    "unet": unet,
    "dit": dit,
    "beside": beside,
    "concat_squash": concat_squash,
}

EMBEDDINGS: dict[str, Callable[..., Embedding]] = {
    "fourier": fourier,
    "sinusoidal": sinusoidal,
}

part_kind(Net, "net", NETS)
part_kind(Embedding, "time embedding", EMBEDDINGS)
part_kind(Made, "conditioner", {"made": made})
part_kind(Causal, "causal net", {"causal_transformer": causal_transformer})

"""Latent diffusion (Rombach et al. 2022) on the 8x8 digits: an autoencoder whose latents are images, then a diffusion of them.

    python -m experiments.train --config=configs/digits_latent.py:autoencoder --workdir=runs/digits_autoencoder
    python -m experiments.train --config=configs/digits_latent.py --config.model.frozen=runs/digits_autoencoder --workdir=runs/digits_latent
    python -m experiments.sample --workdir=runs/digits_latent --label=3 --config.sample.guidance=2

Rows autoencoder_FACTOR and diffusion_FACTOR halve the image's sides once (2) or twice (4); the default rows are those of factor 2: 4x4x2
latents, as many numbers as half of the pixels. Stage 1 has a KL weight of 1e-6. The second stage knows the class, hides it in one step of
ten, and so has classifier-free guidance: --config.sample.guidance, in the times --config.sample.guidance_interval.
"""

from ml_collections import ConfigDict

from configs.base import base, mlp

FACTORS = {"2": (4, 4, 2), "4": (2, 2, 4)}
STAGE_2 = {
    "diffusion": "flow matching on the latents, the class in the embedding",
    "cross_attention": "the same, the class by cross-attention",
    "vp": "score SDE, variance preserving, on the latents",
    "flow": "RQ-NSF on the latents",
    "inpaint": "flow matching given the left half of the image",
    "super_resolve": "flow matching given the means of 2x2 pixels",
    "codes": "flow matching on the vectors of the codes of autoencoder_vq",
}
ROWS = {
    "": "diffusion_2",
    **{f"autoencoder_{f}": f"stage 1, the sides of the image by {f}: latents {shape}" for f, shape in FACTORS.items()},
    "autoencoder": "autoencoder_2",
    "autoencoder_vq": "stage 1: 4x4 codes out of 64",
    **{name: f"stage 2: {line}" for name, line in STAGE_2.items()},
    **{f"diffusion_{f}": f"stage 2 on autoencoder_{f}" for f in FACTORS},
}


def get_config(row: str = "") -> ConfigDict:
    name, factor = split_row(row)
    c = base()
    c.data.update(kind="digits", batch=64)
    shape = FACTORS[factor]
    if name.startswith("autoencoder"):
        autoencoder(c, shape, (32, 64)[: int(factor) // 2], codes=64 * name.endswith("vq"))
    else:
        frozen = f"configs/digits_latent.py:autoencoder_{'vq' if name == 'codes' else factor}"
        second_stage(c, name, shape, frozen, dict(kind="unet", channels=32, multipliers=(1,), blocks=2))
    return c


def split_row(row: str) -> tuple[str, str]:
    """(name, factor) of NAME_FACTOR; the default factor is 2, and the default name diffusion."""
    name, _, factor = (row or "diffusion").rpartition("_")
    return (name, factor) if factor.isdigit() else (row or "diffusion", "2")


def autoencoder(c: ConfigDict, shape: tuple[int, ...], channels: tuple[int, ...], codes: int = 0) -> None:
    """Stage 1, in place.

    Args:
        shape: of the latents, (height, width, numbers).
        channels: of its strided convolutions.
        codes: size of the codebook; 0: KL-regularised.
    """
    *grid, width = shape
    c.parts = dict(
        encoder=dict(kind="downsample", channels=channels, blocks=2, activation="silu"),
        decoder=dict(kind="upsample", channels=channels[::-1], blocks=2, activation="silu"),
    )
    c.model = dict(grid=tuple(grid), likelihood="discretized_logistic")
    if codes:
        c.model.update(kind="vq", codes=codes, width=width, commitment=0.0625)
        c.parts.prior = dict(kind="causal_transformer", width=32, depth=1)
    else:
        c.model.update(kind="autoencoder", latent=width)
    c.optim.update(learning_rate=2e-3, clip=1.0, schedule="cosine")
    c.train.update(steps=2000, eval_every=200, checkpoint_every=500)
    c.eval.update(measures=("likelihood", "sample_quality"), settings=dict(sample_quality=dict(reconstructions=True)))


def second_stage(c: ConfigDict, name: str, shape: tuple[int, ...], frozen: str, net: dict) -> None:
    """Stage 2, in place.

    Args:
        name: of STAGE_2.
        shape: of the latents.
        frozen: the config row of stage 1.
        net: a U-Net.
    """
    c.model = dict(kind="two_stage", frozen=frozen)
    diffusion = dict(kind="diffusion", event=shape, net="net", layer="scale", embedding="sinusoidal", label_drop=0.1)
    c.parts = dict(model=diffusion, net=net, scale=dict(kind="actnorm"))
    c.data.context = "label"
    c.optim.update(learning_rate=1e-3, clip=1.0, schedule="cosine")
    c.train.update(steps=3000, eval_every=500, checkpoint_every=1000)
    c.eval.update(k=1, measures=("likelihood", "sample_quality"))
    if name in ("codes", "inpaint", "super_resolve"):
        c.eval.measures = ("sample_quality",)  # there is no density
    if name == "cross_attention":
        c.parts.net.update(tokens=1, token_width=10)
    elif name == "vp":
        c.parts.model.update(path="vp", predict="noise", t_min=1e-4)
    elif name == "flow":
        spline = dict(kind="spline_coupling", net="net", mask="alternating", bins=8, bound=4.0)
        c.parts = dict(
            model=dict(kind="flow", event=shape, layer="layers"),
            layers=dict(kind="chain", of=("scale", "steps")),
            scale=dict(kind="actnorm"),
            steps=dict(kind="repeat", of="step", n=4),
            step=dict(kind="chain", of=("even", "odd")),
            even=spline,
            odd=spline | dict(flip=True),
            net=mlp(128, 128),
        )
    elif name in ("inpaint", "super_resolve"):
        c.parts.model.label_drop = 0.0  # would hide the known half too
        c.parts.net = dict(kind="beside", of="unet", channels=shape[-1])
        c.parts.unet = net
        c.parts.condition = dict(kind="left") if name == "inpaint" else dict(kind="super_resolve", size=2)

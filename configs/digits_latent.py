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
    name, _, factor = (row or "diffusion").partition("_") if row[-1:].isdigit() else (row or "diffusion", "", "")
    c = base()
    c.data.update(kind="digits", batch=64)
    c.optim.update(clip=1.0, schedule="cosine")
    c.eval.update(measures=("likelihood", "sample_quality"))
    if name.startswith("autoencoder"):
        autoencoder(c, factor or "2", codes=name.endswith("vq"))
    else:
        second_stage(c, name, factor or "2")
    return c


def autoencoder(c: ConfigDict, factor: str, codes: bool = False) -> None:
    """Stage 1, in place: KL-regularised, or with codes."""
    *grid, width = FACTORS[factor]
    channels = (32, 64)[: int(factor) // 2]
    c.parts = dict(
        encoder=dict(kind="downsample", channels=channels, blocks=2, activation="silu"),
        decoder=dict(kind="upsample", channels=channels[::-1], blocks=2, activation="silu"),
    )
    c.model = dict(grid=tuple(grid), likelihood="discretized_logistic")
    if codes:
        c.model.update(kind="vq", codes=64, width=width, commitment=0.0625)
        c.parts.prior = dict(kind="causal_transformer", width=32, depth=1)
    else:
        c.model.update(kind="vae", latent=width)
        c.parts.objective = dict(kind="elbo", beta=1e-6)
    c.optim.learning_rate = 2e-3
    c.train.update(steps=2000, eval_every=200, checkpoint_every=500)
    c.eval.settings = dict(sample_quality=dict(reconstructions=True))


def second_stage(c: ConfigDict, name: str, factor: str) -> None:
    """Stage 2, in place."""
    event = FACTORS[factor]
    c.model = dict(kind="latent", frozen=f"configs/digits_latent.py:autoencoder_{'vq' if name == 'codes' else factor}")
    net = dict(kind="unet", channels=32, multipliers=(1,), blocks=2)
    diffusion = dict(kind="diffusion", event=event, net="net", layer="scale", embedding="sinusoidal", label_drop=0.1)
    c.parts = dict(model=diffusion, net=net, scale=dict(kind="actnorm"))
    c.data.context = "label"
    if name == "codes":
        c.eval.measures = ("sample_quality",)
    elif name == "cross_attention":
        c.parts.net.update(tokens=1, token_width=10)
    elif name == "vp":
        c.parts.model.update(path="vp", predict="noise", t_min=1e-4)
    elif name == "flow":
        spline = dict(kind="spline_coupling", net="net", mask="alternating", bins=8, bound=4.0)
        c.parts = dict(
            model=dict(kind="flow", event=event, layer="layers"),
            layers=dict(kind="chain", of=("scale", "steps")),
            scale=dict(kind="actnorm"),
            steps=dict(kind="repeat", of="step", n=4),
            step=dict(kind="chain", of=("even", "odd")),
            even=spline,
            odd=spline | dict(flip=True),
            net=mlp(128, 128),
        )
    elif name in ("inpaint", "super_resolve"):
        c.parts.net = dict(kind="beside", of="unet", channels=event[-1])
        c.parts.unet = net
        c.eval.measures = ("sample_quality",)  # there is no density
        c.parts.condition = dict(kind="left") if name == "inpaint" else dict(kind="super_resolve", size=2)
    c.optim.learning_rate = 1e-3
    c.train.update(steps=3000, eval_every=500, checkpoint_every=1000)
    c.eval.k = 1

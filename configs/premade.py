"""Every premade model (vaeflow/flows) at its defaults, on the repository's own data: moons for models of vectors, the digits for others.

    python -m experiments.train --config=configs/premade.py:nsf --workdir=runs/premade_nsf
    python -m experiments.train --config=configs/premade.py:nsf --config.model.layers=8 --config.data.name=checkerboard --workdir=runs/nsf

A row is the name of the function in vaeflow.flows: what the row `nsf` trains is flows.nsf(event=(2,)) in a notebook. It takes at most two
minutes of two CPU cores, but `ladder` and `flowpp` three on busy ones; `ffjord`, and the compilation of `realnvp_multiscale`, `jet` and
`mintnet`, take longer. Expected (seed 0; in brackets the nearest row of another config):

    moons, KL(truth || model) in nats, 10,000 test points        digits, test NLL in bits/dim, 300 images, upper bounds
    nice             0.066 ± 0.003   (densities.py 0.086)        vae       2.004 ± 0.017   (digits_vae.py 1.992, 1,000 draws)
    realnvp          0.011 ± 0.001   (densities.py 0.025)        iwae      1.989 ± 0.017
    nsf              0.008 ± 0.001   (densities.py 0.011)        ladder    1.845 ± 0.016   (digits_hierarchy.py 1.851, 1,000 draws)
    nsf_ar           0.008 ± 0.001                               vdvae     1.838 ± 0.016   (digits_hierarchy.py 1.889, 1,000 draws)
    maf              0.011 ± 0.002   (densities.py 0.038)        vq        2.100 ± 0.019   (digits_vq.py 2.119)
    iaf              0.015 ± 0.002                               glow      2.001 ± 0.014   (digits_flow.py 2.104, RealNVP)
    naf              0.003 ± 0.001   (densities.py 0.002)        flowpp    1.795 ± 0.014
    gaussianization  0.029 ± 0.002
    residual_flow    0.005 ± 0.001
    rectified_flow   0.025 ± 0.002   (of x_t at t = 0.001)
    score            0.018 ± 0.002   (of x_t at t = 0.01)
    edm              0.009 ± 0.001   (of x_t at t = 2.5e-05)

Energy distance of one-step samples of moons, 5,000 of each (floor 0.0001, s.e. 0.0008): mean_flow 0.0015, consistency 0.0013 (densities.py:
the same), shortcut 0.0016. ffjord after 300 of its 2,000 steps (--config.train.steps=300, moving average): KL 0.508 ± 0.007 nats. The rows
flow_matching, realnvp_multiscale, mintnet, jet, tarflow, d3pm, masked_diffusion, gan and wgan_gp were built, not trained to the end.
"""

from ml_collections import ConfigDict

from configs.base import base

POINTS = {
    "nice": "NICE: additive couplings",
    "realnvp": "RealNVP: affine couplings",
    "nsf": "neural spline flow, couplings",
    "nsf_ar": "neural spline flow, autoregressive",
    "maf": "masked autoregressive flow",
    "iaf": "inverse autoregressive flow",
    "naf": "neural autoregressive flow, deep sigmoidal units",
    "gaussianization": "Gaussianization flow",
    "residual_flow": "residual flow",
    "ffjord": "FFJORD: a continuous flow",
    "flow_matching": "flow matching",
    "rectified_flow": "rectified flow",
    "score": "score SDE, variance preserving",
    "edm": "EDM",
    "consistency": "improved consistency training",
    "mean_flow": "MeanFlow",
    "shortcut": "shortcut model",
    "gan": "GAN, non-saturating",
    "wgan_gp": "WGAN with a gradient penalty",
}
DIGITS = {
    "realnvp_multiscale": "RealNVP with scales",
    "glow": "Glow",
    "flowpp": "Flow++",
    "mintnet": "MintNet",
    "jet": "Jet",
    "tarflow": "TarFlow",
    "vae": "VAE",
    "iwae": "IWAE of 5 draws",
    "ladder": "ladder VAE",
    "vdvae": "convolutional ladder VAE",
    "vq": "VQ-VAE",
    "d3pm": "D3PM, discretized Gaussian transitions, truncated logistic output",
    "masked_diffusion": "masked diffusion",
}
ROWS = {
    "": "the row nsf",
    **{name: f"moons, {line}" for name, line in POINTS.items()},
    **{name: f"digits, {line}" for name, line in DIGITS.items()},
}
STEPS = {
    **dict.fromkeys(("gaussianization", "residual_flow", "ffjord"), 2000),
    **dict.fromkeys(("flow_matching", "rectified_flow", "score", "edm"), 20_000),
    **dict.fromkeys(("consistency", "mean_flow", "shortcut"), 10_000),
    **dict.fromkeys(("gan", "wgan_gp"), 9000),
}


def get_config(row: str = "") -> ConfigDict:
    name = row or "nsf"
    c = base()
    c.model = dict(kind=f"flows.{name}")
    if name in DIGITS:
        c.data.update(kind="digits", batch=64)
        c.optim.update(learning_rate=1e-3, clip=5.0, schedule="cosine")
        c.train.update(steps=3000, eval_every=100, checkpoint_every=500, patience=8)
        c.eval.update(chunk=20)
        return c
    c.data.update(kind="density", name="moons", size=100_000, batch=256)
    c.optim.update(learning_rate=2e-3, clip=5.0, schedule="cosine")
    steps = STEPS.get(name, 6000)
    c.train.update(steps=steps, eval_every=steps // 5, checkpoint_every=steps // 2)
    c.eval.batch = 1000
    if name == "gaussianization":
        c.data.batch = 1024  # the first batch is what the mixtures are fitted to
    elif name in ("gan", "wgan_gp"):
        c.optim.clip = 0.0
        c.optim.update(learning_rate=5e-4, b1=0.5, schedule="constant", turns=(f"critic:{5 if name == 'wgan_gp' else 1}", "generator:1"))
        c.eval.update(measures=("sample_quality",), params="last")
    elif name in ("consistency", "mean_flow", "shortcut"):
        c.eval.update(measures=("sample_quality",), select="sample_quality.energy")  # a loss compares the network with its own target
    return c

"""One model of every class of generative models on the 8x8 digits: likelihood where it is defined, samples, size, time.

    python -m experiments.table --config=configs/table_every_model.py
    python -m experiments.table --config=configs/table_every_model.py --rows=vae,flowpp,latent --seeds=1

Every row is a row of another config of the digits (1,797 images, 17 grey values, splits 1297/200/300) as it stands there, with its own
budget and selection; the measures are the same. Samples are compared with the 300 test images as grey values in [0, 1]: VAEs, VQ-VAEs and
latent models show means of p(x|z), which have no noise of the pixels. bits/dim are of the grey values: exact for no row; upper bounds by
IWAE or by the average of single draws, of the diffusions at t_min (their configs say of what). GANs, consistency models and codes have
none. `latent` is trained on the run of `autoencoder`, whose reconstructions are a column: no second stage can be expected to be nearer.
The NFE are evaluations of the network for a sample.
"""

from ml_collections import ConfigDict

from configs import (
    digits_d3pm,
    digits_diffusion,
    digits_flow,
    digits_gan,
    digits_hierarchy,
    digits_latent,
    digits_tarflow,
    digits_vae,
    digits_vq,
)

# row: (the config, its row, one line)
MODELS = {
    "vae": (digits_vae, "", "VAE"),
    "vae_flow_prior": (digits_vae, "maf_prior", "VAE, MAF prior"),
    "ladder": (digits_hierarchy, "ladder", "ladder VAE, 5 levels"),
    "vq": (digits_vq, "", "VQ-VAE, transformer prior"),
    "realnvp": (digits_flow, "", "RealNVP"),
    "flowpp": (digits_flow, "flowpp", "Flow++"),
    "ffjord": (digits_flow, "ffjord", "FFJORD"),
    "tarflow": (digits_tarflow, "", "TarFlow"),
    "flow_matching": (digits_diffusion, "flow_matching", "flow matching"),
    "score": (digits_diffusion, "score_vp", "score SDE, variance preserving"),
    "consistency": (digits_diffusion, "consistency_training", "improved consistency training"),
    "d3pm": (digits_d3pm, "gaussian_logistic", "D3PM, discretized Gaussian"),
    "masked": (digits_d3pm, "masked", "masked diffusion"),
    "autoencoder": (digits_latent, "autoencoder", "stage 1 of the latent diffusion"),
    "latent": (digits_latent, "diffusion", "latent diffusion: flow matching, given the class"),
    "gan": (digits_gan, "non_saturating", "GAN, non-saturating"),
    "wgan_gp": (digits_gan, "wgan_gp", "WGAN with a gradient penalty"),
}
LATENT = ("vae", "vae_flow_prior", "ladder", "vq", "autoencoder")  # models with a decoder
TABLE = dict(
    title="Every class of generative models on the 8x8 digits",
    source="no numbers are published on these data",
    number="sample_quality.energy",
    unit="energy distance to the test images",
    better="lower",
    seeds=3,
    together=False,
    digits=4,
)
BUDGETS = {"cpu": "that of each config, one to ten minutes of two CPU cores", "paper": "ten times as many steps"}
AFTER = {"latent": ("autoencoder", "model.frozen")}
PUBLISHED = dict.fromkeys(MODELS)
COLUMNS = {
    "floor": ("sample_quality.energy_floor", 4),
    "reconstructions": ("sample_quality.energy_reconstruction", 4),
    "bits/dim": ("bits_per_dim", 3),
    "precision": ("sample_quality.precision", 3),
    "recall": ("sample_quality.recall", 3),
    "coverage": ("sample_quality.coverage", 3),
    "parameters": ("cost.trained_parameters", 0),
    "seconds of training": ("seconds_trained", 0),
    "seconds of sampling": ("sampling.seconds", 2),
    "NFE": ("sampling.nfe", 0),
}
LINES = {name: line for name, (_, _, line) in MODELS.items()}
ROWS = {"": "the row vae"} | LINES | {f"{row},{budget}": f"{LINES[row]}; {budget}" for row in LINES for budget in BUDGETS}


def get_config(row: str = "") -> ConfigDict:
    name, _, budget = (row or "vae").partition(",")
    module, own, _ = MODELS[name]
    c = module.get_config(own)
    if "frozen" in c.model:
        c.model.frozen = "configs/table_every_model.py:autoencoder"
    if budget == "paper":
        c.train.steps *= 10
    without = ("gan", "wgan_gp", "consistency")
    c.eval.measures = ("sample_quality", "sampling") if name in without else ("likelihood", "sample_quality", "sampling")
    quality = dict(names=("energy", "neighbours"), extractor="none", reconstructions=name in LATENT)
    c.eval.settings = dict(sample_quality=quality, sampling=dict(samples=300))
    return c

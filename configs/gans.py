"""GANs that several configs have: the games, with the turns and the bounds of each. No config by itself."""

from ml_collections import ConfigDict

from configs.base import mlp

# What a GAN differs in from the others: (what the row is, the objective's part, turns of the critic, clip_weights).
GANS = {
    "minimax": ("the minimax game", {}, 1, ()),
    "non_saturating": ("the non-saturating game", {}, 1, ()),
    "lsgan": ("least squares", {}, 1, ()),
    "hinge": ("the hinge loss", {}, 1, ()),
    "wgan": ("Wasserstein GAN, the critic clipped to 0.1", {}, 5, (-0.1, 0.1)),
    "wgan_gp": ("WGAN with a gradient penalty", dict(weight=1.0), 5, ()),
    "rwgan": ("relaxed WGAN, the critic clipped to (-0.1, 0.05)", {}, 5, (-0.1, 0.05)),
    "mcgan": ("McGan, means and second moments of 16 features, clipped to 0.03", {}, 5, (-0.03, 0.03)),
    "gmmn": ("generative moment matching: no critic, five kernels", dict(bandwidths=(0.05, 0.1, 0.2, 0.5, 1.0)), 0, ()),
    "mmd": ("MMD GAN, 16 features, a decoder, a gradient penalty", dict(reconstruction=1.0, penalty=1.0), 5, ()),
    "cramer": ("Cramer GAN, 16 features", dict(weight=1.0), 5, ()),
    "fisher": ("Fisher GAN", dict(rho=0.1), 5, ()),
    "ebgan": ("energy-based GAN, codes of 1 number", dict(features=1, margin=0.5, pull_away=0.1), 1, ()),
    "began": ("boundary equilibrium GAN, codes of 1 number", dict(features=1, gamma=0.7, rate=0.01), 0, ()),
    "magan": ("margin adaptation, codes of 1 number", dict(features=1), 1, ()),
}


def game(c: ConfigDict, name: str, *hidden: int) -> None:
    """The row `name` of GANS: its model of fully connected networks, its parts, turns and bounds, in place."""
    _, objective, critic, clip = GANS[name]
    c.model = dict(kind="gan", generator="net", objective="objective", latent=8, layer="layer")
    c.parts = dict(net=mlp(*hidden), objective=dict(kind=name, **objective), layer=dict(kind="actnorm"))
    if name != "gmmn":
        c.model.critic = "net"
    if name in ("mmd", "ebgan", "began", "magan"):
        c.model.decoder = "net"
    c.optim.b1 = 0.5
    if critic:
        c.optim.turns = (f"critic:{critic}", "generator:1")
    if clip:
        c.optim.groups = dict(critic=dict(clip_weights=clip))

"""What configs share: the empty sections, and parts that many of them have.

A config names what differs from the defaults, which stand in the signatures of the makers (vaeflow/models, bijectors, nets, objectives)
and of the sections (vaeflow/training/configure.py). `python -m experiments.train --config=... --dry_run` prints every value and marks
those that are not defaults. 0 and "" stand for "off" or "none".
"""

from ml_collections import ConfigDict

from vaeflow.config import GROUPS


def base() -> ConfigDict:
    """A config that names nothing yet: model, parts, data, optim, train, eval, sample and devices are empty."""
    return ConfigDict({section: {} for section in GROUPS})


def mlp(*hidden: int, activation: str = "relu") -> dict:
    """A part: a fully connected network."""
    return dict(kind="mlp", hidden=hidden, activation=activation)


def made(*hidden: int, order: str = "natural", activation: str = "relu") -> dict:
    """A part: the masked network of an autoregressive layer, inverted one input after the other."""
    return dict(kind="made", hidden=hidden, activation=activation, order=order)


def repeat(of: str, n: int, memory: str = "store") -> dict:
    """A part: n copies of a layer; memory of training: store every activation, remat (recompute those of a layer), invert."""
    return dict(kind="repeat", of=of, n=n, memory=memory)


def affine(net: str, mask: str, flip: bool) -> dict:
    """A part: RealNVP's coupling."""
    return dict(kind="affine_coupling", net=net, mask=mask, flip=flip)


def spline(net: str, mask: str, flip: bool, bins: int = 8, bound: float = 4.0) -> dict:
    """A part: a rational-quadratic spline coupling, the identity outside [-bound, bound]."""
    return dict(kind="spline_coupling", net=net, mask=mask, flip=flip, bins=bins, bound=bound)


def mintnet(copies: int, flip: bool) -> dict:
    """A part: MintNet's layer of 3x3 masked convolutions, `copies` hidden channels for each of the image's."""
    return dict(kind="mintnet", copies=copies, flip=flip)


def mixture(net: str, mask: str, flip: bool) -> dict:
    """A part: Flow++'s coupling, a mixture of logistics and an affine map."""
    return dict(kind="mixture_coupling", net=net, mask=mask, flip=flip)

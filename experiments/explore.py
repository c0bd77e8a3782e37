"""Look at what a run has learned: its latent space, its samples at temperatures, its path of training; one PNG a view.

traversals     one latent dimension after the other through the prior's range, at an example's latents (--examples)
interpolation  between two examples, linear and spherical (--examples=a,b: from a to b; --examples=a,b,c,d: two pairs)
manifold       the decoder's mean over the plane of two latents
scatter        latents of a split by label
kl             KL and variance of every latent dimension, those that are active in colour
prior          histograms of the aggregate posterior beside the prior
plane          the path of training in the plane of KL and reconstruction; of several runs in one plot
temperatures   samples at temperatures from 0 to 1.2, with the same noise"""

from __future__ import annotations

import argparse

from experiments.flags import parse_config, parser, path
from experiments.main import run, set_up
from vaeflow.commands import train

EXAMPLES = """\
  python -m experiments.explore --workdir=runs/digits_vae
  python -m experiments.explore --workdir=runs/digits_vae --show=traversals,interpolation --examples=3,17
  python -m experiments.explore --show=plane runs/digits_vae runs/digits_vae_realnvp_prior"""


def names(text: str) -> tuple[str, ...]:
    """a,b -> ("a", "b")"""
    return tuple(filter(None, text.split(",")))


def numbers(text: str) -> tuple[int, ...]:
    """3,17 -> (3, 17)"""
    try:
        return tuple(int(word) for word in names(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers such as 3,17") from None


def main(argv: list[str]) -> None:
    p = parser(__doc__, EXAMPLES, of_run=True)
    p.add_argument("workdirs", nargs="*", type=path, help="the same as --workdir; several: plane alone")
    p.add_argument("--workdir", type=path, help="a run's folder")
    p.add_argument("--show", default=(), type=names, help="views, separated by commas; default: all that apply")
    p.add_argument("--examples", default=(), type=numbers, help="rows of the split; default: some of different classes")
    p.add_argument("--split", default="", choices=("train", "val", "test"), help="default: test, where the run has one")
    p.add_argument("--seed", type=int, default=0, help="of the samples and of the choice of examples")
    p.add_argument("--label", type=int, default=-1, help="conditional models: the class to draw (default: all in turn)")
    p.add_argument("--output", type=path, help="the figures' folder; default: explore in the workdir, of several runs this folder")
    flags, overrides = parse_config(p, argv)
    set_up(flags.imports)
    runs = [*([flags.workdir] if flags.workdir else []), *flags.workdirs]
    train.introduce("exploring", *runs, overrides=overrides)
    from vaeflow.commands import explore

    options = dict(examples=flags.examples, split=flags.split, seed=flags.seed, label=flags.label, output=flags.output)
    explore.explore(runs, flags.show, overrides=overrides, **options)


if __name__ == "__main__":
    run(main)

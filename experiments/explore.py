"""Look at what a run has learned: its training, its samples and density, its latent space. --list shows every figure."""

from __future__ import annotations

import argparse

from experiments.flags import parse_config, parser, path
from experiments.main import run, set_up
from vaeflow.commands import train

EXAMPLES = """\
  python -m experiments.explore --workdir=runs/digits_vae
  python -m experiments.explore --workdir=runs/digits_vae --show=traversals,interpolation --examples=3,17
  python -m experiments.explore --show=recon_kl runs/digits_vae runs/digits_vae_realnvp_prior"""


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
    p = parser(__doc__, EXAMPLES)
    p.add_argument("workdirs", nargs="*", type=path, help="the same as --workdir; several: figures of training alone")
    p.add_argument("--workdir", type=path, help="a run's folder")
    p.add_argument("--show", default=(), type=names, help="figures, separated by commas; default: all that apply")
    p.add_argument("--examples", default=(), type=numbers, help="rows of the split, such as 3,17; default: some of different classes")
    p.add_argument("--split", default="", choices=("train", "val", "test"), help="default: test, where the run has one")
    p.add_argument("--seed", type=int, help="of the samples and of the choice of examples; default: the run's own")
    p.add_argument("--label", type=int, default=-1, help="conditional models: the class to draw (default: all in turn)")
    p.add_argument("--output", type=path, help="the figures' folder; default: explore in the workdir, of several runs this folder")
    p.add_argument("--list", action="store_true", help="every figure with what it shows, and exit")
    flags, overrides = parse_config(p, argv)
    set_up(flags.imports)
    runs = [*([flags.workdir] if flags.workdir else []), *flags.workdirs]
    train.introduce("exploring", *runs, overrides=overrides)
    from vaeflow.commands import explore

    if flags.list:
        print(explore.listing())
        return
    options = dict(examples=flags.examples, split=flags.split, seed=flags.seed, label=flags.label, output=flags.output)
    explore.explore(runs, flags.show, overrides=overrides, **options)


if __name__ == "__main__":
    run(main)

"""Draw samples from a run: a figure and an npz file in its workdir."""

from __future__ import annotations

from experiments.flags import parse_config, parser, path
from experiments.main import run, set_up
from vaeflow.commands import train

EXAMPLES = """\
  python -m experiments.sample --workdir=runs/digits_vae
  python -m experiments.sample --workdir=runs/digits_vae --config.sample.n=100 --config.sample.temperature=0.8
  python -m experiments.sample --workdir=runs/digits_vae --seed=1 --label=3"""


def main(argv: list[str]) -> None:
    p = parser(__doc__, EXAMPLES, of_run=True)
    p.add_argument("--workdir", required=True, type=path, help="a run's folder")
    p.add_argument("--seed", type=int, default=0, help="of the samples")
    p.add_argument("--label", type=int, default=-1, help="conditional models: the class to draw (default: all in turn)")
    flags, overrides = parse_config(p, argv)
    set_up(flags.imports)
    train.introduce("sampling from", flags.workdir, overrides=overrides)
    from vaeflow.commands import outputs

    outputs.draw_samples(flags.workdir, flags.seed, flags.label, overrides)


if __name__ == "__main__":
    run(main)

"""Evaluate a run from its workdir alone: the table, results.json and the figures."""

from __future__ import annotations

from experiments.flags import parse_config, parser, path
from experiments.main import run, set_up
from vaeflow.commands import train

EXAMPLES = """\
  python -m experiments.evaluate --workdir=runs/digits_vae
  python -m experiments.evaluate --workdir=runs/digits_vae --split=val --config.eval.k=5000 --config.eval.chunk=50
  python -m experiments.evaluate --workdir=runs/digits_vae --config.eval.measures=sample_quality --config.sample.temperature=0.7"""


def main(argv: list[str]) -> None:
    p = parser(__doc__, EXAMPLES, of_run=True)
    p.add_argument("--workdir", required=True, type=path, help="a run's folder")
    p.add_argument("--split", default="", choices=("train", "val", "test"), help="default: test, where the run has one")
    flags, overrides = parse_config(p, argv)
    set_up(flags.imports)
    train.introduce("evaluating", flags.workdir, overrides=overrides)
    train.evaluate_run(flags.workdir, split=flags.split, overrides=overrides)


if __name__ == "__main__":
    run(main)

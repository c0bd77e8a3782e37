"""Check a run from its workdir: independent estimates of log p(x) and what its latent space holds; a table and diagnostics.json."""

from __future__ import annotations

from experiments.flags import parse_config, parser, path
from experiments.main import run, set_up
from vaeflow.commands import train
from vaeflow.errors import UserError

EXAMPLES = """\
  python -m experiments.diagnose --workdir=runs/digits_vae --measures=iwae,ais,bdmc,refine
  python -m experiments.diagnose --workdir=runs/digits_vae --measures=ais --examples=50 --split=val --ais.chains=32 --ais.steps=2000
  python -m experiments.diagnose --workdir=runs/digits_vae_2d --measures=hmc --hmc.samples=2000 --config.eval.batch=20
--MEASURE.KEY=VALUE is a setting of a measure (--list shows all)."""


def main(argv: list[str]) -> None:
    p = parser(__doc__, EXAMPLES, of_run=True)
    p.add_argument("--workdir", type=path, help="a run's folder")
    p.add_argument("--measures", default="", help="names of measures, separated by commas")
    p.add_argument("--examples", type=int, default=100, help="how many of the split, evenly spaced")
    p.add_argument("--split", default="", choices=("train", "val", "test"), help="default: test, where the run has one")
    p.add_argument("--list", action="store_true", help="every measure with its settings and their defaults, and exit")
    flags, overrides = parse_config(p, argv, "--")
    set_up(flags.imports)
    if flags.workdir is not None:
        train.introduce("diagnosing", flags.workdir, overrides=overrides)
    from vaeflow.evaluation.diagnose import diagnose, listing
    from vaeflow.evaluation.measures import MEASURES

    if flags.list:
        print(listing())
        return
    if flags.workdir is None or not flags.measures:
        raise UserError(f"--workdir and --measures are needed; known measures: {', '.join(MEASURES)}")
    diagnose(flags.workdir, flags.measures.split(","), flags.examples, flags.split, overrides)


if __name__ == "__main__":
    run(main)

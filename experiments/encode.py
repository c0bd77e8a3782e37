"""Write what a run makes of a split: latents and log-probabilities, one row an example (npz)."""

from __future__ import annotations

from experiments.flags import parse_config, parser, path
from experiments.main import run, set_up
from vaeflow.commands import train

EXAMPLES = """\
  python -m experiments.encode --workdir=runs/digits_vae
  python -m experiments.encode --workdir=runs/digits_vae --split=train --output=latents.npz
  python -c "import numpy as np; print({k: v.shape for k, v in np.load('runs/digits_vae/encoded_test.npz').items()})" """


def main(argv: list[str]) -> None:
    p = parser(__doc__, EXAMPLES, of_run=True)
    p.add_argument("--workdir", required=True, type=path, help="a run's folder")
    p.add_argument("--split", default="", choices=("train", "val", "test"), help="default: test, where the run has one")
    p.add_argument("--output", type=path, help="an npz file; default: encoded_SPLIT.npz in the workdir")
    flags, overrides = parse_config(p, argv)
    set_up(flags.imports)
    train.introduce("encoding with", flags.workdir, overrides=overrides)
    from vaeflow.commands import outputs

    outputs.encode(flags.workdir, flags.split, flags.output, overrides)


if __name__ == "__main__":
    run(main)

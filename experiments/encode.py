"""Write what a run makes of a split: latents and log-probabilities, one row an example (npz)."""

from __future__ import annotations

from pathlib import Path

from experiments.main import compilation_cache, parse_config, parser, run

EXAMPLES = """\
  python -m experiments.encode --workdir=runs/digits_vae
  python -m experiments.encode --workdir=runs/digits_vae --split=train --output=latents.npz
  python -c "import numpy as np; print({k: v.shape for k, v in np.load('runs/digits_vae/encoded_test.npz').items()})" """


def main(argv: list[str]) -> None:
    p = parser(__doc__, EXAMPLES)
    p.add_argument("--workdir", required=True, help="a run's folder")
    p.add_argument("--split", default="test", choices=("train", "val", "test"))
    p.add_argument("--output", default="", help="default: encoded_SPLIT.npz in the workdir")
    flags, overrides = parse_config(p, argv)
    from vaeflow import outputs

    compilation_cache()
    outputs.encode(Path(flags.workdir), flags.split, flags.output, overrides)


if __name__ == "__main__":
    run(main)

"""Compare several finished runs: one table, their curves in one figure, beside it recon_kl.png and, in the plane, densities.png."""

from __future__ import annotations

from experiments.flags import parser, path
from experiments.main import run

EXAMPLES = """\
  python -m experiments.compare runs/digits_vae runs/digits_vae_realnvp_prior --output=runs/compare/priors.png
  python -m experiments.compare runs/densities_*
  python -m experiments.compare runs/a runs/b --markdown"""


def main(argv: list[str]) -> None:
    p = parser(__doc__, EXAMPLES, imports=False)
    p.add_argument("workdirs", nargs="+", type=path, help="the runs' folders")
    p.add_argument("--output", default=path("runs/compare/curves.png"), type=path, help="the figure of the curves, a png file")
    p.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    flags = p.parse(argv)
    from vaeflow.commands import compare

    compare.compare(flags.workdirs, flags.output, flags.markdown)


if __name__ == "__main__":
    run(main)

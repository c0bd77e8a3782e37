"""Run or resume every missing cell of a paper's table, print it, and write results/TABLE.md, .json and .png."""

from __future__ import annotations

from pathlib import Path

from experiments.flags import given, parse_config, parser, path
from experiments.main import run, set_up

EXAMPLES = """\
  python -m experiments.table --config=configs/table_iwae_1.py --config.data.dir=~/tensorflow_datasets
  python -m experiments.table --config=configs/table_iwae_1.py:paper --rows=iwae_1_50 --seeds=1
  python -m experiments.table --config=configs/table_vae_guide.py --show
The same command resumes the table; several processes may share one. Delete a cell's folder to compute it again."""


def main(argv: list[str]) -> None:
    p = parser(__doc__, EXAMPLES)
    p.add_argument("--config", required=True, help="configs/table_NAME.py or configs/table_NAME.py:BUDGET")
    p.add_argument("--runs", default=path("runs/tables"), type=path, help="where the cells' workdirs are")
    p.add_argument("--output", default=path("results"), type=path, help="where the table's files go")
    p.add_argument("--rows", default="", help="train these rows alone, separated by commas, and the rows whose runs they evaluate")
    p.add_argument("--seeds", default=0, type=int, help="train so many seeds of every row: 0, 1, ... (default: the table's)")
    p.add_argument("--together", action="store_true", help="train cells in one program, for small models on an accelerator")
    p.add_argument("--keep", action="store_true", help="rows without a finished cell in --runs keep the numbers of the file in --output")
    p.add_argument("--show", action="store_true", help="only print and write what is there")
    flags, overrides = parse_config(p, argv)
    set_up(flags.imports)
    print(" ".join(["table", flags.config, *given(flags, overrides), f"--runs={flags.runs}"]), flush=True)
    from vaeflow.errors import RunFailed
    from vaeflow.tables import report, runner, spec

    plan = spec.plan(flags.config, overrides)
    if flags.together:
        plan = plan._replace(table=plan.table._replace(together=True))
    runs = Path(flags.runs).resolve()

    def write() -> tuple[str, list[Path]]:  # of the cells that are there by now: other processes train some
        return report.write(plan, spec.cells(plan, runs, flags.seeds), flags.output, flags.keep)

    todo = spec.chosen(plan, spec.cells(plan, runs, flags.seeds), tuple(filter(None, flags.rows.split(","))), flags.seeds)
    failed = [] if flags.show else runner.run(plan, todo, write)
    text, files = write()
    print(f"{text}\n\n" + "\n".join(map(str, files)))
    if failed:
        raise RunFailed(f"{len(failed)} of {len(todo)} cells could not be computed: {', '.join(f'{c.row}_seed{c.seed}' for c in failed)}")


if __name__ == "__main__":
    run(main)

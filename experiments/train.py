"""Train an experiment. The same command with the same workdir resumes it, or shows the results of a finished run."""

from __future__ import annotations

from pathlib import Path

from experiments.flags import given, parse_config, parser, path
from experiments.listing import print_rows
from experiments.main import run, set_up
from vaeflow.errors import UserError
from vaeflow.runs import progress
from vaeflow.runs.workdir import import_hint

EXAMPLES = """\
  python -m experiments.train --config=configs/digits_vae.py --workdir=runs/digits_vae
  python -m experiments.train --config=configs/densities.py:rings_realnvp --workdir=runs/rings --config.train.steps=2000
  python -m experiments.train --config=configs/mnist_vae.py:16 --config.data.dir=~/tensorflow_datasets --dry_run
A config FILE is Python and is executed. --config.KEY=VALUE overrides any value that --dry_run shows."""

LIST = "every config and row with its description, or those that contain PATTERN (a text or a glob such as 'mnist*iwae'), and exit"


def main(argv: list[str]) -> None:
    p = parser(__doc__, EXAMPLES)
    p.add_argument("--config", help="configs/NAME.py or configs/NAME.py:ROW")
    p.add_argument("--workdir", type=path, help="where everything of the run goes (default: runs/NAME_ROW, and +KEY=VALUE of overrides)")
    p.add_argument("--list", nargs="?", const="", metavar="PATTERN", help=LIST)
    p.add_argument("--dry_run", action="store_true", help="the resolved config, parameters, FLOPs per step and memory, and exit")
    p.add_argument("--distributed", action="store_true", help="several processes; found by themselves on SLURM and TPU pods")
    p.add_argument("--coordinator", default="", help="host:port of process 0, with --processes and --process, where they are not")
    p.add_argument("--processes", type=int, default=0, help="how many there are")
    p.add_argument("--process", type=int, default=-1, help="which one this is: 0, 1, ...")
    flags, overrides = parse_config(p, argv)
    set_up(flags.imports)
    if flags.list is not None:
        return print_rows(flags.list)
    if not flags.config:
        raise UserError("--config is missing; --list shows every config, --help three commands")
    said = ["train", flags.config, *given(flags, overrides)]
    silent = flags.process > 0 or flags.distributed  # there each process finds its number when it joins
    if flags.workdir and not silent:
        print(" ".join([*said, f"--workdir={flags.workdir}"]), flush=True)  # before jax, which takes seconds to import
    with progress.phase("importing jax"):
        from vaeflow.commands import train
        from vaeflow.training.configure import load

    with import_hint(flags.workdir or Path()):
        config, file = load(flags.config, overrides), load(flags.config)
    workdir = flags.workdir or train.default_workdir(flags.config, config, file)
    if not flags.workdir and not silent:
        print(" ".join([*said, f"--workdir={workdir}"]), flush=True)
    processes = (flags.coordinator, flags.processes, flags.process)
    joined = flags.distributed or processes != ("", 0, -1)
    train.launch(config, workdir, flags.dry_run, processes if joined else None, flags.config)


if __name__ == "__main__":
    run(main)

"""What compiling costs a run: two runs of one config, the first with an empty persistent compilation cache, in new workdirs.

    python -m benchmarks.cache --output=results/speed_cache.md

Each run is `python -m experiments.train` in a process of its own, with evaluation and figures. The table gives the programs it
asked XLA for, how many of them the cache did not have, the seconds in the compiler (or in reading from the cache), and the
seconds from the command to the first line about a step (8 steps are done), from the last step to the end (evaluation,
figures, the printed table), and of the whole command. Exit status 1 when the second run misses the cache, or a run fails.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path

from benchmarks import common
from benchmarks.watch import Watched, watch

MARKS = {"first": r"^step ", "trained": r"^(finished all|early stopping)"}


def runs(words: list[str], folder: Path) -> list[Watched]:
    """The first and the second run of `experiments.train *words`, each in a new workdir; what a run says when it fails."""
    found = []
    for name in ("first", "second"):
        command = ["experiments.train", *words, f"--workdir={folder / name}"]
        found.append(watch(command, folder / f"{name}.json", {"JAX_COMPILATION_CACHE_DIR": str(folder / "cache")}, MARKS))
        if found[-1].code:
            print(found[-1].output, file=sys.stderr)
    return found


def row(name: str, run: Watched) -> list[object]:
    """One line of the table."""
    first, trained, end = (run.marks.get(mark, float("nan")) for mark in (*MARKS, "end"))
    seconds = sum(program["seconds"] for program in run.programs)
    return [name, len(run.programs), len(run.missed), seconds, first, end - trained, end]


def main() -> None:
    """Measure, print, write; exit 1 when the second run misses."""
    p = common.parser(__doc__)
    p.add_argument("--config", default="configs/digits_vae.py")
    flags, words = p.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        found = runs([f"--config={flags.config}", *words], Path(folder))
    titles = ["run", "programs", "missed", "compiling [s]", "to the first step [s]", "after the last step [s]", "whole [s]"]
    notes = "The largest programs of the first run: " + ", ".join(
        f"{program['name']} {program['seconds']:.1f} s" for program in sorted(found[0].programs, key=lambda p: -p["seconds"])[:5]
    )
    if found[1].missed:
        notes += f". MISSED by the second run: {dict(Counter(found[1].missed))}"
    title = f"Two runs of {' '.join([flags.config, *words])}: the compilation cache"
    rows = [row("first, empty cache", found[0]), row("second", found[1])]
    command = " ".join(["benchmarks.cache", *([] if flags.config == p.get_default("config") else [f"--config={flags.config}"]), *words])
    common.sheet(title, titles, rows, f"{notes}.", flags.output, command)
    sys.exit(any(run.code for run in found) or bool(found[1].missed) or not found[0].programs)


if __name__ == "__main__":
    main()

"""`python -m tests.use_new_parts FOLDER`, in a copy of the tree with the files of tests/new_parts: their laws, then every command on them.

One process for all, because starting and compiling take most of the time. It prints a table of what each run found, and writes
found.json, which tests/test_six_sentences.py reads.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.commands import call, train_only
from tests.runs import assert_same_run
from vaeflow.evaluation.results import flat
from vaeflow.runs.checkpoint_reader import committed_steps
from vaeflow.runs.metrics import aligned_table

BIJECTOR = "sinh_arcsinh"
KINDS = ("energy_generator", "flow_student", "markov", "bridge", "combined")
OF_FILES = ("names_a_family", "imports_only_the_rooms", "300_lines", "says_what_it_is", "one_name_for_one_thing", "says_how_it_is_run")
CONFIG, TABLE = "configs/toy_families.py", "configs/table_chains.py"
ROWS = ("teacher", "energy", "wgan_gp", "student", "markov", "bridge", "vae")
# The number of each run that the printed table shows.
SHOWN = {
    "teacher": "nll",
    "energy": "sample_quality.energy",
    "wgan_gp": "class_coverage.covered",
    "student": "terms.squared_error",
    "markov": "kl_to_truth",
    "bridge": "sample_quality.energy",
    "vae": "nll",
}


class Outcomes:
    """A plugin of pytest: the outcomes of the tests by name, without those that were passed over."""

    def __init__(self):
        self.of: dict[str, str] = {}

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.failed:
            self.of[report.nodeid.partition("::")[2]] = report.outcome


def laws() -> dict[str, str]:
    """{test: outcome} of the laws of bijectors and families on the new ones, which they find in the registries, and of all files."""
    outcomes, files = Outcomes(), [f"tests/test_{name}.py" for name in ("bijector_laws", "models", "objectives", "names", "style")]
    chosen = " or ".join((BIJECTOR, *KINDS, *OF_FILES))
    code = pytest.main(["-q", "-p", "no:cacheprovider", *files, "-k", chosen], plugins=[outcomes])
    assert code == 0, outcomes.of
    return outcomes.of


def use(row: str, folder: Path) -> dict[str, Any]:
    """Every command of one run on a row of CONFIG, and what it found."""
    started, run, again = time.perf_counter(), folder / row, folder / f"{row}_resumed"
    own = (f"--config.model.teacher={folder / 'teacher'}",) if row == "student" else ()
    words = (f"--config={CONFIG}:{row}", *own)
    assert "finished all" in call("train", *words, f"--workdir={run}")
    shutil.copytree(run, again)
    last = again / "checkpoints" / "last"
    shutil.rmtree(last / str(max(committed_steps(last))))
    assert committed_steps(last), "nothing to resume from"
    train_only(*words, f"--workdir={again}")
    assert_same_run(run, again)
    where = f"--workdir={run}"
    printed = {"evaluate": call("evaluate", where, "--split=val"), "sample": call("sample", where), "explore": call("explore", where)}
    measure = "sample_quality" if row == "markov" else "class_coverage"
    printed["diagnose"] = call("diagnose", where, f"--measures={measure}", "--examples=500")
    results = json.loads((run / "results.json").read_text())
    checked = json.loads((run / "diagnostics.json").read_text())
    return {
        "params": results["params"],
        "density": results["density"],
        "numbers": {**flat({"measures": checked}), **flat(results)},
        "printed": printed,
        "seconds": time.perf_counter() - started,
    }


def main(folder: Path) -> None:
    folder.mkdir()
    found: dict[str, Any] = {"laws": laws()}
    found["rows"] = {row: use(row, folder) for row in ROWS}
    words = (f"--config={TABLE}", f"--runs={folder / 'tables'}", f"--output={folder / 'results'}")
    found["table"] = call("table", *words)
    found["compare"] = call("compare", *(folder / row for row in ROWS), f"--output={folder / 'compare.png'}")
    (folder / "found.json").write_text(json.dumps(found))
    rows = [
        [row, one["density"], one["params"], SHOWN[row], one["numbers"][SHOWN[row]], one["seconds"]] for row, one in found["rows"].items()
    ]
    print(aligned_table(["row", "density", "parameters", "number", "value", "seconds"], rows, {"value": 3, "seconds": 1}))
    print(found["table"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))

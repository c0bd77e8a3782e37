"""A new part of any kind is one file and one line: a copy of the tree gets the files of tests/new_parts as a person would add them.

Each file is copied to the same place in vaeflow/ (a config: in configs/), its import and its line are written into the registry, and
nothing else in the copy changes. Then one process runs the laws and all commands on them, see tests/use_new_parts.py.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.runs import ROOT, environment
from vaeflow.runs.metrics import read_metrics

NEW = ROOT / "tests" / "new_parts"
FAMILIES = ("energy_generator", "flow_student", "markov", "bridge")
COPIED = ("vaeflow", "configs", "experiments", "tests", "pyproject.toml")


class Part(NamedTuple):
    """A file of tests/new_parts, with the import and the line that enter it in the registry of its folder."""

    file: str
    registry: str
    imports: str
    line: str


def family(name: str) -> Part:
    """A model family: all of them are entered alike."""
    line = f'"{name}": ModelEntry({name}.{name}, {name}.EXAMPLES, context=False),'
    return Part(f"models/{name}.py", "MODELS", f"from vaeflow.models import {name}", line)


PARTS = (
    Part(
        "bijectors/sinh_arcsinh.py",
        "BIJECTORS",
        "from vaeflow.bijectors.sinh_arcsinh import sinh_arcsinh",
        '"sinh_arcsinh": BijectorEntry(sinh_arcsinh, (Example({}, FROM_ONE),), identity=True),',
    ),
    Part("nets/siren.py", "NETS", "from vaeflow.nets.siren import siren", '"siren": siren,'),
    Part("objectives/combined.py", "OBJECTIVES", "from vaeflow.objectives.combined import combined", '"combined": combined,'),
    Part("objectives/sigmoid.py", "SCHEDULES", "from vaeflow.objectives.sigmoid import sigmoid", '"sigmoid": sigmoid,'),
    *map(family, FAMILIES),
    Part("data/chain.py", "SOURCES", "from vaeflow.data import chain", '"chain": chain.load,'),
    Part(
        "evaluation/measures/class_coverage.py",
        "MEASURES",
        "from vaeflow.evaluation.measures import class_coverage",
        '"class_coverage": Measure(class_coverage.prepare, class_coverage.needs, "the modes of the data that samples reach",'
        " class_coverage.ClassCoverageSettings(), class_coverage.BETTER),",
    ),
    Part(
        "figures/quantiles.py",
        "FIGURES",
        "from vaeflow.figures import quantiles",
        '"quantiles": Figure(quantiles.draw, quantiles.needs, "quantiles of samples against those of the data"),',
    ),
)
CONFIGS = ("configs/toy_families.py", "configs/table_chains.py")


def register(text: str, part: Part) -> str:
    """The text of a registry's file with the part's import after the last import and its line at the top of the registry."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"{part.registry}: dict["))
    lines.insert(start + 1, f"    {part.line}")
    last = max(i for i, line in enumerate(lines[:start]) if line.startswith("from vaeflow"))
    while lines[last].endswith("(") or lines[last].startswith(" "):
        last += 1
    lines.insert(last + 1, part.imports)
    return "\n".join(lines) + "\n"


def texts(tree: Path) -> dict[str, str]:
    """{path: text} of the Python files of a tree."""
    return {str(path.relative_to(tree)): path.read_text() for path in sorted(tree.rglob("*.py"))}


def add_parts(tree: Path) -> None:
    """Copy each file to its place, and write its import and its line."""
    for part in PARTS:
        place = tree / "vaeflow" / part.file
        shutil.copy(NEW / part.file, place)
        registry = place.parent / "__init__.py"
        registry.write_text(register(registry.read_text(), part))
    for name in CONFIGS:
        shutil.copy(NEW / name, tree / name)


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A copy of the tree with the new parts."""
    tree = tmp_path_factory.mktemp("tree") / "copy"
    tree.mkdir()
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, tree / name)
    before = texts(tree)
    add_parts(tree)
    after = texts(tree)
    added = {*CONFIGS, *(f"vaeflow/{part.file}" for part in PARTS)}
    assert after.keys() - before.keys() == added
    lines = []
    for path in before:  # the registries have more lines; no line of theirs has changed
        rest = iter(before[path].splitlines())
        wanted = next(rest, None)
        for line in after[path].splitlines():
            if line == wanted:
                wanted = next(rest, None)
            else:
                lines.append(line.strip())
        assert wanted is None, path
    assert sorted(lines) == sorted(text for part in PARTS for text in (part.imports, part.line))
    return tree


@pytest.fixture(scope="module")
def used(tree) -> tuple[dict[str, Any], Path]:
    """(what the new parts did under their laws and all commands, the folder of their runs): in one process."""
    folder = tree.parent / "runs"
    command = [sys.executable, "-m", "tests.use_new_parts", str(folder)]
    done = subprocess.run(command, cwd=tree, env=environment(), text=True, capture_output=True, check=False)
    assert done.returncode == 0 and "Traceback" not in done.stdout + done.stderr, done.stdout[-3000:] + done.stderr[-3000:]
    print(done.stdout)
    return json.loads((folder / "found.json").read_text()), folder


def test_laws_find_the_bijector_and_the_families_by_themselves(used):
    laws = used[0]["laws"]
    assert set(laws.values()) <= {"passed", "skipped"}
    files = dict.fromkeys(("names_a_family", "imports_only_the_rooms", "says_how_it_is_run[toy_families"), 1)
    for name, least in {"sinh_arcsinh": 6, "combined": 3, **dict.fromkeys(FAMILIES, 6), **files}.items():
        assert sum(outcome == "passed" for test, outcome in laws.items() if name in test) >= least, name


def test_every_command_works_on_every_row(used):
    rows = used[0]["rows"]
    assert {"teacher", "energy", "wgan_gp", "student", "markov", "vae"} <= rows.keys()
    for row, one in rows.items():
        printed = one["printed"]
        assert "val split" in printed["evaluate"] and "16 samples" in printed["sample"], row
        assert "quantiles.png" in printed["explore"], row
        assert all(np.isfinite(value) for value in one["numbers"].values() if isinstance(value, float)), row


def test_a_family_without_a_density_selects_by_its_samples(used):
    found, folder = used
    scores = {row["step"]: row["sample_quality.energy"] for row in read_metrics(folder / "energy") if row["split"] == "val"}
    best = min(scores, key=scores.__getitem__)
    results = json.loads((folder / "energy" / "results.json").read_text())
    assert len(scores) == 3 and results["params"] == "best" and results["params_step"] == best
    assert found["rows"]["energy"]["density"] == "none"


def test_an_objective_and_its_schedule_are_parts_of_a_family(used):
    found, folder = used
    parts = json.loads((folder / "vae" / "config.json").read_text())["parts"]
    assert parts["objective"] == {"kind": "combined", "k": 3, "share": "share"} and parts["share"]["width"] == 10.0
    shares = [row["share"] for row in read_metrics(folder / "vae") if row["split"] == "train"]
    assert shares == sorted(shares) and shares[0] < 0.1 and shares[-1] > 0.9
    assert found["rows"]["vae"]["density"] == "weight"


def test_two_players_take_turns_and_cover_eight_modes(used):
    numbers = used[0]["rows"]["wgan_gp"]["numbers"]
    assert numbers["class_coverage.covered"] == 8, numbers
    assert numbers["class_coverage.near"] > 0.5


def test_a_student_has_its_teacher_with_it_and_its_terms_are_shown(used):
    found, folder = used
    student = found["rows"]["student"]
    assert student["params"] == "best" and 0 < student["numbers"]["terms.squared_error"] < 3
    assert "squared_error" in student["printed"]["evaluate"] and "terms.squared_error" in found["compare"]
    stored = json.loads((folder / "student" / "config.json").read_text())["model"]["teacher"]
    assert len(stored["sha256"]) == 64 and stored["config"]["parts"]["tails"]["kind"] == "sinh_arcsinh"


def test_sequences_have_an_exact_density_beside_the_entropy_of_their_chain(used):
    found, folder = used
    markov = found["rows"]["markov"]
    assert markov["density"] == "exact" and 0 < markov["numbers"]["kl_to_truth"] < 3
    drawn = np.load(folder / "markov" / "samples.npz")["x"]
    assert drawn.shape == (16, 12) and drawn.dtype.kind in "iu" and 0 <= drawn.min() <= drawn.max() < 5


def test_a_table_is_one_config(used):
    found, folder = used
    rows = {row["row"]: row for row in json.loads((folder / "results" / "table_chains.json").read_text())["rows"]}
    assert list(rows) == ["order_1", "order_2"] and all(np.isfinite(row["mean"]) for row in rows.values())
    assert "Markov model of order 2" in found["table"]


def test_pairs_are_mapped(used):
    rows = used[0]["rows"]
    assert rows["bridge"]["numbers"]["sample_quality.energy"] < 0.2

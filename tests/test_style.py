"""What holds for every file: sizes, docstrings, one-way imports, devices in one place, exact pins, documents that name real files."""

from __future__ import annotations

import ast
import functools
import graphlib
import importlib
import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("vaeflow", "experiments", "configs", "benchmarks", "tests")
FILES = sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))
SOURCES = [path for path in FILES if path.relative_to(ROOT).parts[0] == "vaeflow"]
COMMANDS = [path for path in FILES if path.parent.name == "experiments" and "__main__" in path.read_text()]
CONFIGS = [path for path in FILES if path.parent.name == "configs" and path.stem not in ("__init__", "base", "gans", "vaes")]
DOCUMENTS = [path for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if path.exists()]

# What each room of vaeflow may import of it, beside its own files: the whole architecture, from the bottom up.
_BASE = {"build", "config", "schema", "override", "model", "errors", "rng", "record"}
_PARTS = _BASE | {"distributions"}
_LAYERS = _PARTS | {"nets", "bijectors", "objectives"}
_TRAINING = _LAYERS | {"runs", "data", "models", "flows", "diffusion", "hmc"}
_EVALUATION = _TRAINING | {"training", "run"}
MAY_IMPORT = {
    "errors": set(),
    "rng": set(),
    "model": {"errors"},
    "build": {"errors"},
    "config": {"errors"},
    "record": {"build", "errors", "schema"},
    "schema": {"build", "config"},
    "override": {"build", "config", "errors", "schema"},
    "runs": {"build", "config", "errors", "schema", "override"},
    "distributions": _BASE,
    "nets": _PARTS,
    "objectives": _PARTS | {"nets"},
    "bijectors": _PARTS | {"nets", "diffusion"},  # cnf.py is an ordinary differential equation
    "data": _BASE | {"runs"},
    "diffusion": _PARTS,
    "hmc": {"model"},
    "models": _LAYERS | {"diffusion", "hmc"},
    "flows": _LAYERS | {"models", "diffusion"},
    "training": _TRAINING,
    "run": _TRAINING | {"training"},
    "evaluation": _EVALUATION,
    "figures": _EVALUATION | {"evaluation"},
    "tables": _EVALUATION | {"evaluation", "figures"},
    "notebook": _EVALUATION | {"evaluation", "figures"},
    "commands": _EVALUATION | {"evaluation", "figures", "tables"},
}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def room_of(path: Path) -> str:
    """vaeflow/training/step.py and vaeflow/bijectors/affine.py are in the rooms train and bijectors."""
    return path.relative_to(ROOT / "vaeflow").with_suffix("").parts[0]


def imports_of(path: Path) -> set[str]:
    """Every module that a file imports, at its top or later: `from vaeflow import data` is vaeflow.data."""
    found = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}: a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "vaeflow" else {str(node.module)}
    return found


def rooms_imported(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imports_of(path) if name.startswith("vaeflow.")}


def test_no_file_is_longer_than_300_lines_and_no_command_than_60():
    long = {name_of(p): n for p in FILES if (n := len(p.read_text().splitlines())) > (60 if p in COMMANDS else 300)}
    assert not long


def test_every_module_says_what_it_is():
    silent = [name_of(p) for p in FILES if not ast.get_docstring(tree_of(p)) and p.read_text().strip()]
    assert not silent


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_a_config_says_how_it_is_run(path):
    assert f"--config=configs/{path.name}" in (ast.get_docstring(tree_of(path)) or "")


def test_a_room_imports_only_the_rooms_below_it():
    rooms = {path: room_of(path) for path in SOURCES if path.name != "__init__.py" or path.parent.name != "vaeflow"}
    assert set(rooms.values()) == set(MAY_IMPORT)
    wrong = []
    for path, room in rooms.items():
        extra = rooms_imported(path) - MAY_IMPORT[room] - {room}
        wrong += [f"{name_of(path)} imports {', '.join(sorted(extra))}"] if extra else []
    assert not wrong


def test_the_rules_have_no_circle():
    graphlib.TopologicalSorter({room: allowed - {room} for room, allowed in MAY_IMPORT.items()}).prepare()  # CycleError names the rooms


def test_the_library_does_not_import_what_stands_above_it():
    above = {"experiments", "configs", "benchmarks", "tests"}
    wrong = [name_of(path) for path in SOURCES if {name.split(".")[0] for name in imports_of(path)} & above]
    assert not wrong


def test_only_devices_maps_steps_over_devices_and_sets_up_processes():
    reserved = {"pmap", "shard_map", "pmean", "psum", "axis_index"}
    for path in FILES:
        if path.relative_to(ROOT).parts[0] in ("tests", "benchmarks") or name_of(path) == "vaeflow/training/devices.py":
            continue
        for node in ast.walk(tree_of(path)):
            used = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
            assert used not in reserved, f"{name_of(path)}:{node.lineno} uses {used}"  # type: ignore[attr-defined]
            assert not (used == "initialize" and "distributed" in ast.unparse(node)), f"{name_of(path)} sets up processes"


def test_no_data_is_executed():
    """What a workdir or a config value names is data. A pickle is read in two places, by stand-ins; a config file runs by --config."""
    modules = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "runpy", "code", "yaml", "torch"}
    names = {"read_pickle", "eval", "exec", "compile", "__import__", "exec_module", "run_path"}
    found = set()
    for path in FILES:
        if path.relative_to(ROOT).parts[0] not in ("vaeflow", "experiments"):
            continue
        found |= {(name_of(path), f"import {name}") for name in imports_of(path) if name.split(".")[0] in modules}
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called in names or (called.rpartition(".")[2] in names - {"compile"} and "." in called):
                    found.add((name_of(path), called))
                flags = [k.value for k in node.keywords if k.arg == "allow_pickle"]
                safe = not flags or (isinstance(flags[0], ast.Constant) and flags[0].value is False)
                if not safe or (called in ("np.load", "numpy.load") and (not flags or len(node.args) > 1)):
                    found.add((name_of(path), f"{called} without allow_pickle=False"))
            elif isinstance(node, ast.Attribute) and ast.unparse(node).startswith("pickle."):
                found.add((name_of(path), ast.unparse(node)))
    assert found == {
        ("vaeflow/data/gas.py", "import pickle"),
        ("vaeflow/data/gas.py", "pickle.Unpickler"),
        ("vaeflow/evaluation/torch_file.py", "import pickle"),
        ("vaeflow/evaluation/torch_file.py", "pickle.Unpickler"),
        ("vaeflow/config.py", "spec.loader.exec_module"),
    }


def test_nothing_is_left_for_later():
    words = re.compile(r"\b(TODO|FIX" r"ME|XXX|NotImplemented)\b")
    found = [f"{name_of(p)}: {m.group()}" for p in FILES if p != Path(__file__) for m in [words.search(p.read_text())] if m]
    assert not found


def pins(name: str) -> dict[str, str]:
    """{canonical name: version} of a requirements file, every line of which must be `name==version`."""
    found = {}
    for line in (ROOT / name).read_text().splitlines():
        text = line.partition("#")[0].strip()
        if text and not text.startswith("-r "):
            requirement = Requirement(text)
            (clause,) = requirement.specifier
            assert clause.operator == "==" and "*" not in clause.version, f"{name}: {text} is no exact pin"
            assert canonicalize_name(requirement.name) not in found, f"{name}: {requirement.name} stands there twice"
            found[canonicalize_name(requirement.name)] = clause.version
    return found


def direct_pins() -> set[str]:
    """What requirements.txt lists before the packages that these need in turn."""
    head = (ROOT / "requirements.txt").read_text().partition("# What these need in turn")[0]
    return {canonicalize_name(m) for m in re.findall(r"^([\w.-]+)==", head, re.MULTILINE)}


def test_the_pins_are_exact_and_leave_nothing_open():
    pinned = pins("requirements.txt") | pins("requirements-dev.txt")
    missing = set()
    for name in pinned:
        try:
            needed = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # setuptools, in an environment that was not made by the Makefile
        for requirement in map(Requirement, needed):
            applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if applies and canonicalize_name(requirement.name) not in pinned:
                missing.add(f"{requirement.name} (for {name})")
    assert not missing


def test_pyproject_asks_for_what_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned, wanted = pins("requirements.txt"), {canonicalize_name(r.name): r for r in map(Requirement, project["dependencies"])}
    assert set(wanted) == direct_pins()
    assert all(r.specifier.contains(pinned[name], prereleases=True) for name, r in wanted.items())


def test_every_package_that_is_imported_is_required():
    owners = importlib.metadata.packages_distributions()
    direct, missing = direct_pins() | {"tensorflow"}, set()  # TensorFlow: only to prepare a dataset, asked for when it is missing
    for path in FILES:
        if path.relative_to(ROOT).parts[0] != "tests":
            for top in {name.split(".")[0] for name in imports_of(path)}:
                known = {canonicalize_name(d) for d in owners.get(top, [])}
                if known and not known & direct:
                    missing.add(f"{top} in {name_of(path)}")
    assert not missing


def test_the_accelerators_pins_are_for_the_pinned_jax():
    text, jax = (ROOT / "requirements.txt").read_text(), pins("requirements.txt")["jax"]
    for accelerator in ("cuda12", "cuda13", "tpu"):
        lines = [Requirement(m) for m in re.findall(rf"^# {accelerator}: (.*)$", text, re.MULTILINE)]
        assert lines and all(str(r.specifier).startswith("==") for r in lines)
        assert all(str(r.specifier) == f"=={jax}" for r in lines if r.name.startswith("jax"))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_documents_name_files_and_rows_that_exist(path):
    # Names in capitals, such as configs/FILE.py, stand for any; blocks of Python show what a reader would write.
    text = re.sub(r"^```python$.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    named = set(re.findall(rf"\b((?:{'|'.join(PACKAGES)}|docs|scripts|results)/[\w/.-]*\w\.\w+)", text))
    named |= {m.replace(".", "/") + ".py" for m in re.findall(r"python -m ([\w.]+)", text) if m.startswith(("experiments", "benchmarks"))}
    assert not sorted(name for name in named if not Path(name).stem.isupper() and not (ROOT / name).exists())
    rows = set(re.findall(r"configs/([a-z]\w*)\.py:(\w+)", text))
    known = {name: importlib.import_module(f"configs.{name}") for name, _ in rows}
    assert not sorted((n, row) for n, row in rows if not row.isupper() and row not in {**known[n].ROWS, **getattr(known[n], "BUDGETS", {})})


def test_one_name_for_one_thing():
    """No two classes of vaeflow have one name, and no module of it is imported under another name."""
    where: dict[str, list[str]] = {}
    renamed = []
    for path in SOURCES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ClassDef):
                where.setdefault(node.name, []).append(name_of(path))
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "vaeflow":
                modules = [a for a in node.names if a.asname and (ROOT / node.module.replace(".", "/") / f"{a.name}.py").is_file()]  # type: ignore[union-attr]
                renamed += [f"{name_of(path)}: {a.name} as {a.asname}" for a in modules]
    assert not {name: paths for name, paths in where.items() if len(paths) > 1}
    assert not renamed

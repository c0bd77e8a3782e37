"""No file outside models/, flows/, configs/, tests/ and docs/ names a model or one of its keys: a new family needs no change there.

Strings are what the code compares and looks up, so the test reads every whole string of vaeflow/ and experiments/ that is no docstring. A
key counts as a family's own if only makers of models have it; keys that other registries, sections and Model have too are words of the
whole project. benchmarks/ are measurements of named families, and exempt; so are vaeflow/__init__.py, the public names, and
vaeflow/runs/upgrade.py, which has the keys of older
versions: a new family is not among them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import pytest

from tests.test_style import ROOT, name_of, tree_of
from vaeflow.bijectors import BIJECTORS
from vaeflow.build import maker, signature
from vaeflow.data import DataConfig
from vaeflow.diffusion.corruptions import CORRUPTIONS
from vaeflow.diffusion.coupling import COUPLINGS
from vaeflow.diffusion.edits import EDITS
from vaeflow.diffusion.kinds import KINDS, WEIGHTINGS
from vaeflow.diffusion.noise_schedules import NOISE_SCHEDULES
from vaeflow.diffusion.path import PATHS
from vaeflow.diffusion.steps import STEPS
from vaeflow.diffusion.times import TIMES
from vaeflow.evaluation.measures import MEASURES
from vaeflow.flows import FLOWS
from vaeflow.model import Frozen, Latent, Model
from vaeflow.models import MODELS
from vaeflow.models.parts.bases import BASES
from vaeflow.models.parts.intervals import INTERVALS
from vaeflow.nets import NETS
from vaeflow.objectives import ADVERSARIAL, OBJECTIVES, SCHEDULES
from vaeflow.training.optimizer import OptimConfig

EXEMPT = (ROOT / "vaeflow/__init__.py", ROOT / "vaeflow/models", ROOT / "vaeflow/flows", ROOT / "vaeflow/runs/upgrade.py")
MADE = MODELS | FLOWS
FILES = sorted(
    path
    for room in ("vaeflow", "experiments")
    for path in (ROOT / room).rglob("*.py")
    if not any(path.is_relative_to(place) for place in EXEMPT)
)
# Words of the project that are keys of families too: what they are in the files read here.
WORDS = {
    "classifier": "an extractor of the measure sample_quality",
    "corruption": "the title of the registry of corruptions",
    "coupling": "the title of the registry of couplings, and a part of the bijectors' examples",
    "edit": "the title of the registry of edits",
    "latents": "a finding of the measure probes and a figure",
    "layer": "the title of the registry of bijectors",
    "objective": "the title of the registry of objectives",
    "sampler": "the title of the registry of samplers",
    "target": "an array of the Omniglot file",
    "variables": "the name of an axis",
}
METHODS = {"get", "items", "keys", "to_dict", "update", "_replace"}


def words_of(*schemas: Any) -> set[str]:
    """The arguments of makers or NamedTuple classes, and the choices of those that are Literals."""
    found: set[str] = set()
    for schema in schemas:
        hints = signature(schema)
        found |= hints.keys() | {choice for hint in hints.values() if get_origin(hint) is Literal for choice in get_args(hint)}
    return found


def own_keys() -> set[str]:
    """Keys that only families have: no words of other makers, of measures' settings, of the sections data and optim, of Model."""
    others = words_of(DataConfig, OptimConfig, Model, Latent, Frozen, *(type(measure.defaults) for measure in MEASURES.values()))
    discrete = (CORRUPTIONS, NOISE_SCHEDULES)
    continuous = (PATHS, KINDS, WEIGHTINGS, TIMES, COUPLINGS, STEPS, EDITS, INTERVALS)
    for kinds in (BIJECTORS, NETS, BASES, OBJECTIVES, ADVERSARIAL, SCHEDULES, *continuous, *discrete):
        others |= kinds.keys() | words_of(*map(maker, kinds.values()))
    return {key for entry in MADE.values() for key in signature(maker(entry))} - others


def strings(tree: ast.Module) -> Iterator[ast.Constant]:
    """Every string of a file, without docstrings, pieces of f-strings, and __all__, which lists identifiers."""
    passed = set()
    for node in ast.walk(tree):  # from the outside in
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and isinstance(node.body[0:1] and node.body[0], ast.Expr):
            passed.add(id(node.body[0].value))  # type: ignore[attr-defined]
        elif isinstance(node, ast.JoinedStr):
            passed |= {id(value) for value in node.values}
        elif isinstance(node, ast.Assign) and any(isinstance(name, ast.Name) and name.id == "__all__" for name in node.targets):
            passed |= {id(value) for value in ast.walk(node)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in passed:
            yield node


def is_model(node: ast.AST) -> bool:
    """True for X.model and X["model"]."""
    by_item = isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and node.slice.value == "model"
    return by_item or (isinstance(node, ast.Attribute) and node.attr == "model")


def asked_of_the_model(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, KEY) of config.model.KEY, config["model"]["KEY"] and config.model.get("KEY"), but for "kind" and the fields of a Model."""
    for node in ast.walk(tree):
        found: Any = None
        if isinstance(node, ast.Attribute) and is_model(node.value) and node.attr not in METHODS | {*Model._fields}:
            found = node.attr
        elif isinstance(node, ast.Subscript) and is_model(node.value) and isinstance(node.slice, ast.Constant):
            found = node.slice.value
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".get") and is_model(node.func.value):  # type: ignore[attr-defined]
            found = ast.literal_eval(node.args[0]) if isinstance(node.args[0], ast.Constant) else None
        if found is not None and found != "kind":
            yield node.lineno, found  # type: ignore[attr-defined]


def wrong(tree: ast.Module) -> list[str]:
    """What a file must not have, a line each."""
    own = own_keys() - WORDS.keys()
    bad = [f"line {line}: the key model.{key}" for line, key in asked_of_the_model(tree)]
    for node in strings(tree):
        if node.value in MADE.keys() - WORDS.keys():
            bad.append(f"line {node.lineno}: the family {node.value!r}")
        elif node.value in own:
            bad.append(f"line {node.lineno}: {node.value!r}, a key that only families have")
    return bad


def test_no_file_outside_models_names_a_family_or_a_key_of_one():
    bad = {name_of(path): lines for path in FILES if (lines := wrong(tree_of(path)))}
    assert not bad, f"{bad}; a word that means something else there is exempt in WORDS"


def test_every_exempt_word_is_used():
    used = {node.value for path in FILES for node in strings(tree_of(path))}
    assert WORDS.keys() <= used & (own_keys() | MADE.keys())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('config.model.kind == "vae"', "the family 'vae'"),
        ('{"vq": 3}[kind]', "the family 'vq'"),
        ('kind = "flows.nsf"', "the family 'flows.nsf'"),
        ('config["model"]["prior_layer"]', "the key model.prior_layer"),
        ('config.model.get("prior", "")', "the key model.prior"),
        ("config.model.frozen", "the key model.frozen"),
        ('section["pseudo_inputs"]', "'pseudo_inputs', a key that only families have"),
        ('"""vae"""\nf"a {vae} vae"\n__all__ = ["pseudo_inputs"]\nrun.model.latent, config["model"]["kind"], config.model.items()', ""),
    ],
)
def test_what_the_test_finds(text, said):
    found = wrong(ast.parse(text))
    assert (said in found[0]) if said else not found, found

"""eval.select, eval.validate, eval.measures and eval.examples: which checkpoint is `best`, and what an evaluation reports."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import toys
from tests.commands import call, refusal
from tests.diagnose_toys import run
from tests.test_no_density import families  # noqa: F401  (a fixture)
from vaeflow import config
from vaeflow.data import Split
from vaeflow.errors import UserError
from vaeflow.evaluation import evaluate
from vaeflow.evaluation.measures import MEASURES, Finding, Measure, sample_quality
from vaeflow.evaluation.results import flat, format_results, rounded
from vaeflow.override import override
from vaeflow.runs.checkpoint_reader import committed_steps
from vaeflow.runs.metrics import read_metrics
from vaeflow.training import configure
from vaeflow.training.recorder import Validation
from vaeflow.training.setup import make_experiment

SMALL = ("--config.eval.validate.samples=200",)
ENERGY = ("--config.eval.select=sample_quality.energy", *SMALL)


def trained(families, *words) -> tuple[str, list[dict]]:  # noqa: F811
    text = call("train", f"--config={families / 'generator.py'}", f"--workdir={families / 'run'}", *words)
    return text, [row for row in read_metrics(families / "run") if row["split"] == "val"]


def test_a_model_without_a_density_selects_by_samples(families):  # noqa: F811
    text, rows = trained(families, *ENERGY, "--config.train.steps=40", "--config.optim.learning_rate=0.3")
    values = {row["step"]: row["sample_quality.energy"] for row in rows}
    assert list(values) == [10, 20, 30, 40] and all(np.isfinite(list(values.values())))
    best = min(values, key=values.__getitem__)
    assert committed_steps(families / "run" / "checkpoints" / "best")[0] == best
    found = json.loads((families / "run" / "results.json").read_text())
    assert found["params"] == "best" and found["params_step"] == best
    assert {"energy", "energy_floor", "precision", "memorisation"} <= set(found["measures"]["sample_quality"]["numbers"])
    assert " floor " in text and "sample_quality" in text and "energy distance, unbiased; 1,000 samples, 1,000 held out" in text
    assert "finished" in call("train", f"--config={families / 'generator.py'}", f"--workdir={families / 'run'}", *ENERGY,
                              "--config.train.steps=40", "--config.optim.learning_rate=0.3")  # fmt: skip


def test_validation_by_a_measure_compiles_once(families, monkeypatch):  # noqa: F811
    """The compiled functions are made before the first validation; later ones call them."""
    made, calls = [], []

    def prepare(run, settings):
        made.append(settings)

        def measure(params, key):
            calls.append(1)
            return {"size": Finding(float(np.abs(np.asarray(params["a"])).sum()), "a toy", 0.5)}

        return measure

    defaults = MEASURES["terms"].defaults
    monkeypatch.setitem(MEASURES, "toy", Measure(prepare, lambda run, settings: None, "a toy", defaults, {"size": "high"}))
    _, rows = trained(families, "--config.eval.select=toy.size", "--config.eval.measures=toy", "--config.train.steps=30")
    assert len(rows) == 3 and len(calls) == 3 + 1 and len(made) == 2  # the last ones are the evaluation's
    values = {row["step"]: row["toy.size"] for row in rows}
    assert committed_steps(families / "run" / "checkpoints" / "best")[0] == max(values, key=values.__getitem__)
    assert list(json.loads((families / "run" / "results.json").read_text())["measures"]) == ["toy"]


def test_patience_counts_gains_above_the_standard_error(families, monkeypatch):  # noqa: F811
    steps = iter(range(100))

    def validator(x):
        return lambda params, key=None: Validation({"loss": 1.0}, 10.0 - 0.1 * next(steps), 0.5)

    monkeypatch.setattr(evaluate, "validator", validator)
    text, rows = trained(families, *ENERGY, "--config.train.patience=2", "--config.train.steps=60")
    assert "early stopping at step 30" in text and len(rows) == 3  # gains of 0.1 with an error of 0.5
    assert committed_steps(families / "run" / "checkpoints" / "best")[0] == 30


def test_small_gains_add_up_to_one_above_the_standard_error(families, monkeypatch):  # noqa: F811
    """Scores 10, 9.7, 9.4, ...: two gains of 0.3 are above 0.5 together, so that patience 2 never runs out."""
    steps = iter(range(100))
    monkeypatch.setattr(evaluate, "validator", lambda x: lambda params, key=None: Validation({"loss": 1.0}, 10.0 - 0.3 * next(steps), 0.5))
    text, rows = trained(families, *ENERGY, "--config.train.patience=2", "--config.train.steps=60")
    assert "finished all 60 steps" in text and len(rows) == 6


@pytest.mark.parametrize(
    ("words", "held"),
    [
        (["eval.select=energy"], ["eval.select='energy'", "known:", "sample_quality.energy"]),
        (["eval.select=likelihood.nll"], ["eval.select='likelihood.nll' does not apply", "no density"]),
        (["eval.select=sample_quality.energy", "eval.validate.samples=many"], ["eval.settings.sample_quality.samples='many'"]),
        (["eval.select=sample_quality.energy", "eval.validate.n=3"], ["eval.settings.sample_quality: the key='n'", "samples"]),
        (["eval.validate.samples=5"], ["eval.validate={'samples': 5}", "eval.select='measure.finding'"]),
        (["eval.measures=likelyhood"], ["eval.measures='likelyhood'", "did you mean 'likelihood'"]),
        (["eval.settings.ais.chain=3"], ["eval.settings.ais: the key='chain'", "did you mean 'chains'"]),
        (["eval.settings.aiss.chain=3"], ["eval.settings='aiss'", "did you mean 'ais'"]),
        (["eval.examples=-1"], ["eval.examples=-1 is invalid"]),
        (["eval.measures=likelihood"], ["eval.measures: 'likelihood' does not apply", "no density"]),
        (["eval.settings.likelihood=5"], ["eval.settings.likelihood=5 has the wrong type", "a group of values"]),
        (["eval.settings..b=1"], ["a key has no name"]),
        (["eval.select=sample_quality.energy", "eval.validate.names=mmd2"], ["does not apply: sample_quality gives", "mmd2"]),
        (["eval.select=sample_quality.energy", "eval.validate.samples=5"], ["5 samples are too few: more than 8"]),
        (["eval.select=sample_quality.memorisation"], ["eval.select='sample_quality.memorisation'", "sample_quality.energy"]),
    ],
)
def test_mistakes_are_one_line_before_anything_is_compiled(families, words, held, monkeypatch):  # noqa: F811
    monkeypatch.setattr(jax, "jit", lambda *_, **__: pytest.fail("compiled"))
    line = refusal("train", f"--config={families / 'generator.py'}", f"--workdir={families / 'new'}", *(f"--config.{w}" for w in words))
    assert all(word in line for word in held), line


def test_named_measures_their_settings_and_a_part_of_the_split(families):  # noqa: F811
    run = families / "run"
    call("train", f"--config={families / 'noisy_bound.py'}", f"--workdir={run}")
    words = (
        "--config.eval.measures=likelihood,sample_quality",
        "--config.eval.examples=50",
        "--config.eval.settings.sample_quality.names=energy",
    )
    text = call("evaluate", f"--workdir={run}", *words)
    (path,) = run.glob("results+eval.examples=50+eval.measures=likelihood,sample_quality+*.json")
    found = json.loads(path.read_text())
    assert (found["examples"], found["split_examples"]) == (50, 1000) and "50 of 1,000 examples" in text
    assert list(found["measures"]) == ["likelihood", "sample_quality"] and found["measures"]["likelihood"]["settings"]["k"] == 6
    assert set(found["measures"]["sample_quality"]["numbers"]) == {"energy", "energy_floor"}
    assert "does not apply" in refusal("evaluate", f"--workdir={run}", "--config.eval.measures=elbo")


def test_the_examples_are_the_same_ones_in_a_shuffled_order():
    split = Split(np.arange(100)[:, None], None, np.arange(100))
    some, more = (evaluate.shuffled(split, n) for n in (10, 20))
    assert set(some.x[:, 0]) < set(more.x[:, 0]) and (some.x[:, 0] == some.label).all()
    assert set(some.x[:, 0]) != set(range(10))


def test_results_of_before_the_measures_read_as_flat():
    old = {"nll": 3.0, "nll_se": 0.1, "density": "exact", "split": "test"}
    assert flat(old) == old
    entry = {"numbers": {"nll": {"value": 3.0, "se": 0.1}}, "settings": {}, "seconds": 1.0}
    new = flat({"density": "exact", "split": "test", "measures": {"likelihood": entry, "other": entry}})
    assert new | old == new and new["other.nll"] == 3.0 and new["likelihood.nll_se"] == 0.1
    assert "NLL" in format_results(
        {**old, "estimator": "exact", "examples": 5, "units": "nats", "seconds": 1.0, "device": "cpu", "device_count": 1}
    )


def test_a_value_of_a_measure_is_replaced_whatever_its_type():

    c = configure.load("configs/digits_vae.py")
    for key, text, value in (
        ("samples", "100", 100),
        ("names", "energy,mmd2", "energy,mmd2"),
        ("names", "energy", "energy"),
        ("samples", "0.5", 0.5),
    ):
        override(c, f"eval.settings.sample_quality.{key}", text)
        assert c.eval.settings.sample_quality[key] == value
    with pytest.raises(UserError, match="is a group of values"):
        override(c, "eval.settings.sample_quality", "5")


def test_cells_that_select_by_other_measures_have_validations_of_their_own():
    from vaeflow.training.stacked import structure

    one, two = configure.load("configs/digits_vae.py"), configure.load("configs/digits_vae.py")
    two.eval.k = 7
    assert structure(one) == structure(two)  # after training only
    two.eval.select = "sample_quality.energy"
    assert structure(one) != structure(two)
    one.eval.select = two.eval.select
    assert structure(one) != structure(two)  # k
    one.eval.k = two.eval.k
    assert structure(one) == structure(two)
    two.sample.temperature = 0.5
    assert structure(one) != structure(two)


def test_a_selecting_measure_gives_what_it_provides(caplog):
    """Every finding that may select on these data is there, and nothing is compiled by a second call."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 3)).astype(np.float32)
    found = run(toys.model(None, "none", sample=lambda params, key, n, context=None: {"x": params[:n]}), Split(x[:200]), Split(x))
    for name, measure in MEASURES.items():
        assert not measure.better or measure.prepare.__qualname__ != "once.<locals>.prepare", f"{name} compiles at every validation"
    for finding in MEASURES["sample_quality"].better:
        settings = sample_quality.SampleQualitySettings(**sample_quality.for_selection(found, finding) | {"samples": 200})
        measure = sample_quality.prepare(found, settings)
        with jax.log_compiles():
            given = measure(jnp.asarray(x[:200]), found.key)
        assert finding != "energy" or [line for line in caplog.messages if "Compiling" in line]  # the lines are seen
        assert (finding in given) == (finding in sample_quality.provides(found, settings)), finding
        caplog.clear()
        with jax.log_compiles():
            measure(jnp.asarray(x[100:300]), found.key)
        assert not [line for line in caplog.messages if "Compiling" in line], finding


def test_a_table_does_not_repeat_a_cell_whose_results_are_other_ones(tmp_path, monkeypatch):
    from vaeflow.tables import runner, spec

    plan = spec.plan("configs/table_iwae_1.py", [("eval.k", "3")])
    (cell,) = spec.cells(plan, tmp_path, 1)[:1]
    monkeypatch.setattr(runner, "done", lambda *_: False)
    trained = []
    monkeypatch.setattr(runner, "_train", lambda p, group: trained.append(group) or [])
    assert runner.run(plan, [cell], lambda: None) == [cell] and len(trained) == 1
    assert "not those that the table asks for" in runner.failure(cell)


def test_results_are_those_of_a_cell_by_all_that_changes_a_number():
    from vaeflow.runs.overrides import made_as_asked

    asked = configure.load("configs/digits_vae.py")
    stored, sample = config.plain(asked.eval), config.plain(asked.sample)
    assert made_as_asked({"eval": stored}, asked, asked) and made_as_asked({"eval": {**stored, "batch": 7, "chunk": 3}}, asked, asked)
    old = {key: stored[key] for key in ("params", "batch", "k", "chunk")}  # before the other keys
    assert made_as_asked({"eval": old}, asked, asked)
    for key, value in (("k", 3), ("measures", ["likelihood"]), ("examples", 9), ("settings", {"ais": {"chains": 3}})):
        assert not made_as_asked({"eval": {**stored, key: value}}, asked, asked), key
    assert made_as_asked({"eval": stored, "sample": {**sample, "n": 3}}, asked, asked)
    assert not made_as_asked({"eval": stored, "sample": {**sample, "temperature": 0.5}}, asked, asked)
    other = asked.copy_and_resolve_references()
    other.sample.temperature = 0.5
    assert not made_as_asked({"eval": stored}, asked, other)  # without a section sample, results are those of the run's own options


def test_the_direction_of_a_finding_decides(families):  # noqa: F811

    c = configure.load(str(families / "generator.py"))
    for select, sign in (("sample_quality.energy", 1), ("sample_quality.recall", -1)):
        c.eval.select = select
        assert evaluate.selecting(make_experiment(c))[-1] == sign


def test_numbers_are_printed_with_the_digits_of_their_errors():
    assert rounded(0.123456, 0.0123) == ("0.123", "0.012") and rounded(-150.59, 3.648) == ("-150.6", "3.6")
    assert rounded(1234.5678, None) == ("1235", "") and rounded("IWAE-5", None) == ("IWAE-5", "") and rounded(None, None) == ("", "")
    assert rounded(0.5, 0.0) == ("0.5", "0") and rounded(7, None) == ("7", "") and rounded(float("nan"), 0.1)[0] == "nan"

"""Configs and parameters of older versions: what they are called today, and a run of commit 8d9309b as it was stored."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vaeflow
from tests.commands import call, refusal
from tests.model_cases import flat as by_path
from vaeflow.build import build
from vaeflow.commands.train import launch
from vaeflow.config import OF_FROZEN
from vaeflow.errors import UserError
from vaeflow.evaluation.results import flat
from vaeflow.evaluation.store import measure
from vaeflow.models import build_model
from vaeflow.objectives import Objective
from vaeflow.runs import workdir
from vaeflow.runs.upgrade import ADDED, VERSION, upgrade, upgrade_params
from vaeflow.training import setup
from vaeflow.training.warm_start import load_params

# Trained, evaluated and drawn by commit 8d9309b; figures, TensorBoard's file and the arrays are left out.
STORED = Path(__file__).parent / "fixtures" / "workdir_8d9309b"
CONFIG = json.loads((STORED / "config.json").read_text())
NET = {"kind": "mlp", "hidden": [8], "activation": "relu", "dtype": "float32"}
PARTS = {"encoder": NET, "decoder": NET}

# Sections `model` as commit 8d9309b stored them.
_DATA = dict(event=[8, 8, 1], levels=17, likelihood="discretized_logistic", likelihood_std=0.1)
_BETA = dict(beta=1.0, beta_schedule="constant", beta_start=0.0, beta_steps=0, beta_ramp=0.5)
VAE = CONFIG["model"] | _BETA | dict(free_bits=0.0)
LAYERED = dict(kind="layered", latents=[3, 2], encoders=["encoder"] * 2, decoders=["decoder"] * 2, std="softplus", std_bound=10.0)
LAYERED |= _DATA | _BETA | dict(objective="elbo", alpha=0.0, samples=1)
LADDER = dict(kind="ladder", strides=[2, 2], blocks=[1, 1], latents=[1, 2], width=4, kernel=3, activation="gelu", dtype="float32")
LADDER |= _DATA | _BETA | dict(posterior="joint", std="softplus", std_bound=10.0, samples=1, free_bits=0.0)
DISCRETE = dict(kind="discrete_vae", variables=4, categories=2, encoder="encoder", decoder="decoder", prior="uniform")
DISCRETE |= _DATA | _BETA | dict(estimator="reinforce", samples=1, baseline="", wake_q=False, sleep_q=False)
DISCRETE |= dict(relaxation=0.0, relaxation_start=0.0, relaxation_steps=0)
CONTRASTIVE = dict(kind="contrastive", event=[8, 8, 1], levels=17, frozen="vae", classifier="net", partition=40)
DISTILL = dict(kind="distill", event=[8, 8, 1], levels=17, layer="student", base="normal", teacher="flow", teacher_base="logistic")
DISTILL |= dict(dequantize="uniform", flatten=True)


def stored(model: dict[str, Any], **parts: Any) -> dict[str, Any]:
    """The config.json of an old run."""
    return CONFIG | {"model": model, "parts": PARTS | parts}


def values(tree: Any) -> list[Any]:
    return [leaf for _, leaf in sorted(by_path(tree).items())]


def elbo(**changes: Any) -> dict[str, Any]:
    return dict(kind="elbo", k=1, beta=1.0, kl="auto") | changes


@pytest.mark.parametrize(
    "model, changes, parts",
    [
        (VAE, {}, dict(objective=elbo())),
        (VAE, dict(samples=5, kl="monte_carlo", beta=4.0), dict(objective=elbo(k=5, kl="monte_carlo", beta=4.0))),
        (
            VAE,
            dict(beta_schedule="linear", beta_steps=30, beta_start=0.1, beta=2.0, free_bits=0.05),
            dict(
                objective=elbo(kind="free_bits", nats=0.05, beta="beta"),
                beta=dict(kind="linear", steps=30, start=0.1, end=2.0),
            ),
        ),
        (
            VAE,
            dict(beta_schedule="cyclical", beta_steps=750, capacity=20.0, capacity_steps=100),
            dict(
                objective=elbo(kind="capacity", nats=20.0, steps=100, beta="beta"),
                beta=dict(kind="cyclical", steps=750, start=0.0, end=1.0, ramp=0.5),
            ),
        ),
        *(
            (VAE, dict(objective=kind, samples=5), dict(objective=dict(kind=kind, k=5)))
            for kind in ("iwae", "iwae_one", "iwae_path", "dreg")
        ),
        (VAE, dict(objective="elbo_path"), dict(objective=dict(kind="elbo_path", k=1))),
        (VAE, dict(objective="renyi", alpha=0.5, samples=3), dict(objective=dict(kind="renyi", alpha=0.5, k=3))),
        (VAE, dict(tc=3.0), dict(objective=dict(kind="tc", weight=3.0, of="elbo"), elbo=elbo())),
        (
            VAE,
            dict(mmd=10.0, adversarial=1.0, critic="net", beta=0.0, free_bits=0.1),
            dict(
                objective=dict(kind="adversarial", weight=1.0, critic="net", of="mmd"),
                mmd=dict(kind="mmd", weight=10.0, of="free_bits"),
                free_bits=elbo(kind="free_bits", nats=0.1, beta=0.0),
            ),
        ),
        (LAYERED, dict(samples=2, beta=0.5), dict(objective=elbo(k=2, beta=0.5))),
        (LAYERED, dict(objective="iwae", samples=5), dict(objective=dict(kind="iwae", k=5))),
        (LADDER, dict(samples=2), dict(objective=elbo(k=2))),
        (LADDER, dict(free_bits=0.1), dict(objective=elbo(kind="free_bits", nats=0.1))),
        (DISCRETE, dict(samples=5), dict(objective=dict(kind="reinforce", k=5, beta=1.0, baseline=""))),
        (
            DISCRETE,
            dict(estimator="reinforce_baseline", baseline="net", beta=0.5),
            dict(objective=dict(kind="reinforce", k=1, beta=0.5, baseline="net")),
        ),
        (
            DISCRETE,
            dict(estimator="leave_one_out", samples=3, beta_schedule="linear", beta_steps=10),
            dict(
                objective=dict(kind="leave_one_out", k=3, beta="beta"),
                beta=dict(kind="linear", steps=10, start=0.0, end=1.0),
            ),
        ),
        (DISCRETE, dict(estimator="vimco", samples=3), dict(objective=dict(kind="vimco", k=3))),
        (
            DISCRETE,
            dict(estimator="wake_sleep", samples=3, sleep_q=True),
            dict(objective=dict(kind="wake_sleep", k=3, wake_q=False, sleep_q=True)),
        ),
        (
            DISCRETE,
            dict(estimator="gumbel_softmax", samples=2, relaxation=0.5, relaxation_start=2.0, relaxation_steps=10),
            dict(
                objective=dict(kind="gumbel_softmax", k=2, beta=1.0, temperature="temperature"),
                temperature=dict(kind="geometric", steps=10, start=2.0, end=0.5),
            ),
        ),
        (
            DISCRETE,
            dict(estimator="straight_through", relaxation=0.7),
            dict(objective=dict(kind="straight_through", k=1, beta=1.0, temperature=0.7)),
        ),
    ],
    ids=lambda value: value.get("kind", " ".join(map(str, value.values()))) if isinstance(value, dict) else "",
)
def test_the_objective_of_an_old_run_is_a_part(model, changes, parts):
    old = stored(model | changes, net=NET)
    before = copy.deepcopy(old)
    new = upgrade(old)
    assert old == before and upgrade(new) is new
    assert next(iter(new.items())) == ("version", VERSION) and new["parts"] == PARTS | {"net": NET} | parts
    assert new["model"]["objective"] == "objective" and not set(new["model"]) & (set(_BETA) | {"samples", "free_bits", "estimator", "tc"})
    for section, added in ADDED.items():
        assert (new if not section else new[section]).items() >= added.items()
    build(new["parts"], "objective", Objective)  # today's makers accept all of these values
    build_model(new)


def test_names_that_are_taken_stay():
    taken = dict(objective=NET, beta=NET, beta_2=NET)
    new = upgrade(stored(VAE | dict(beta_schedule="linear", beta_steps=5, encoder="objective"), **taken))
    assert new["model"]["objective"] == "objective_2" and new["model"]["encoder"] == "objective"
    assert new["parts"]["objective_2"]["beta"] == "beta_3" and new["parts"].items() >= taken.items()


def test_a_contrastive_prior_has_its_vae_as_a_group():
    vae = VAE | dict(samples=3, temperature=0.9)
    old = stored(CONTRASTIVE, vae=vae, net=NET) | dict(
        fixed_from="runs/vae", sample=dict(n=4, temperature=0.8, sampler="sir", proposals=20)
    )
    new = upgrade(old)
    group = new["model"]["frozen"]
    assert new["model"] == dict(kind="contrastive", classifier="net", partition=40, frozen=group)
    assert new["sample"] == old["sample"] and new["fixed_from"] == "" and "vae" not in new["parts"]
    assert {key: group[key] for key in ("from", "sha256", *OF_FROZEN)} == {"from": "runs/vae", "sha256": "", **OF_FROZEN}
    alone = upgrade(stored(VAE | dict(samples=3), net=NET))
    assert group["config"] == {"model": alone["model"], "parts": alone["parts"], "sample": dict(n=4, temperature=0.9)}
    build_model(group["config"])


def test_a_distilled_flow_has_its_teacher_as_a_group():
    new = upgrade(stored(DISTILL, flow={"kind": "actnorm"}, student={"kind": "actnorm"}) | dict(fixed_from="runs/teacher"))
    group = new["model"]["teacher"]
    assert new["model"] == dict(kind="distill", layer="student", base="normal", flatten=True, teacher=group)
    flow = dict(kind="flow", event=[8, 8, 1], levels=17, layer="flow", base="logistic", dequantize="uniform", dequantizer="", flatten=True)
    assert group["config"]["model"] == flow and group["config"]["sample"] == dict(n=CONFIG["sample"]["n"], temperature=1.0)
    build_model(new)


def test_a_group_of_version_1_is_upgraded_too():
    """A run of before version 2 may have its frozen model as a group; one that has it by its name alone is refused by the model."""
    inner = {"model": VAE, "parts": PARTS, "sample": {"n": 4, "temperature": 1.0}}
    group = {"from": "runs/vae", **OF_FROZEN, "sha256": "0" * 64, "config": inner}
    new = upgrade(stored(dict(kind="contrastive", frozen=group, classifier="net", partition=40), net=NET))["model"]["frozen"]
    assert new["config"]["parts"]["objective"] == elbo() and {**new, "config": inner} == group
    named = upgrade(stored(dict(kind="contrastive", frozen="runs/vae", classifier="net", partition=40), net=NET))
    with pytest.raises(UserError, match="is of an older version and must be trained again"):
        build_model(named)


def test_parameters_move_and_keep_their_leaves():
    net, baseline = {"head": {"kernel": 1, "bias": 2}}, {"net": {"head": {"kernel": 3}}, "constant": 4}
    moved = {"encoder": net, "objective": {"critic": net}}
    vae = stored(VAE | dict(adversarial=1.0, critic="net"), net=NET)
    assert upgrade_params(vae, {"encoder": net, "critic": net}) == moved
    assert upgrade_params(stored(DISCRETE), {"encoder": net, "baseline": baseline}) == {"encoder": net, "objective": {"baseline": baseline}}
    ncp = stored(CONTRASTIVE, vae=vae["model"], net=NET)
    assert upgrade_params(ncp, {"classifier": net, "fixed": {"encoder": net, "critic": net}}) == {
        "classifier": net,
        "fixed": {"frozen": moved},
    }
    assert upgrade_params(ncp, {"classifier": net}) == {"classifier": net}
    assert upgrade_params(stored(DISTILL), {"layer": net, "fixed": {"base": net}}) == {"layer": net, "fixed": {"teacher": {"base": net}}}
    inner = {"model": vae["model"], "parts": PARTS, "sample": {}}
    for train in (False, True):
        group = {"from": "", **OF_FROZEN, "train": train, "sha256": "", "config": inner}
        old, new = ({"frozen": own} for own in ({"encoder": net, "critic": net}, moved))
        config = stored(dict(kind="contrastive", frozen=group))
        assert upgrade_params(config, old if train else {"fixed": old}) == (new if train else {"fixed": new})
    today = {"critic": net}
    assert upgrade_params(upgrade(vae), today) is today


@pytest.mark.parametrize("version", [VERSION + 1, 0, "2", 1.0, True, None])
def test_another_version_is_one_line(version):
    line = rf"config version {version} is newer than {VERSION}" if version == VERSION + 1 else rf"version={version!r} is invalid"
    for call_it in (upgrade, lambda config: upgrade_params(config, {})):
        with pytest.raises(UserError, match=line):
            call_it({"version": version} | CONFIG)


@pytest.mark.parametrize("damage", [{}, dict(model=3), dict(model={}), dict(model=dict(kind=["vae"])), dict(parts=None), dict(sample=1)])
def test_a_damaged_config_keeps_what_it_has(damage):
    new = upgrade(CONFIG | damage if damage else {})
    assert new.items() >= damage.items() and upgrade_params(CONFIG | damage, {"a": 1}) == {"a": 1}


@pytest.mark.parametrize("model", [dict(kind="distill", teacher_base="normal"), CONTRASTIVE | dict(frozen=["vae"])])
def test_a_damaged_model_is_refused_by_its_maker(model):
    with pytest.raises(UserError):
        build_model(upgrade(stored(model, vae=VAE)))


@pytest.fixture(scope="module")
def old(tmp_path_factory) -> Path:
    return Path(shutil.copytree(STORED, tmp_path_factory.mktemp("old") / "run"))


def test_an_old_run_evaluates_to_its_own_numbers(old):
    """All numbers of its results.json: the same parameters, the same keys."""
    before = (old / "config.json").read_text()
    measure(old)
    stored, found = (flat(json.loads((place / "results.json").read_text())) for place in (STORED, old))
    numbers = [key for key, value in stored.items() if key != "seconds" and np.issubdtype(np.asarray(value).dtype, np.floating)]
    assert {"neg_elbo", "nll", "kl_per_dim", "information", "bits_per_dim_se"} <= set(numbers)
    for key in numbers:
        np.testing.assert_allclose(found[key], stored[key], rtol=1e-4, atol=1e-5, err_msg=key)
    assert (old / "config.json").read_text() == before


def test_an_old_run_samples_encodes_and_loads(old):
    assert "4 samples" in call("sample", f"--workdir={old}")
    call("encode", f"--workdir={old}", "--split=val")
    run = vaeflow.load(old, [("eval.params", "last")])
    assert "version" not in run.config and run.sample(3).shape == (3, 8, 8, 1)
    params = run.params
    kept = load_params(STORED, "last", ema=False)
    assert kept.keys() == params.keys() == {"encoder", "decoder"}
    assert all(np.any(a != b) for a, b in zip(values(kept), values(params), strict=True))  # those of the step, and their average


def test_a_finished_old_run_shows_its_results(tmp_path, capsys):
    place = Path(shutil.copytree(STORED, tmp_path / "run"))
    launch(workdir.read_config(place), place)
    text, nll = capsys.readouterr().out, json.loads((STORED / "results.json").read_text())["nll"]
    assert f"{place} is finished; its results" in text and f"{nll:.3f}" in text


def test_an_old_run_is_not_trained_further(old):
    words = json.loads((STORED / "env.json").read_text())[0]["command"][1:]
    config = next(word for word in words if word.startswith("--config=configs"))
    line = f"workdir={old} was trained by an older version (config version 1, now {VERSION}): it can be evaluated, sampled and loaded, "
    line += f"not trained further; start from its parameters with --config.init_from={old}"
    assert refusal("train", config, "--config.train.steps=80", f"--workdir={old}") == line
    own = workdir.read_config(old)
    assert workdir.is_finished(old, own)
    for path in (old / "checkpoints" / "last").iterdir():  # as if training had been interrupted
        path.rename(old / "aside")
    assert not workdir.is_finished(old, own)
    with pytest.raises(UserError) as refused:
        workdir.prepare(old, own)
    assert str(refused.value) == line
    (old / "aside").rename(old / "checkpoints" / "last" / "40")


def test_parameters_of_an_old_run_start_a_new_one(old):
    config = workdir.read_config(old)
    with config.unlocked():
        config.init_from = str(old)
    params, _, lines = setup.init_params(setup.make_experiment(config))
    assert lines == [f"init_from={old}: 8 of 8 arrays"]
    assert all(np.array_equal(a, b) for a, b in zip(values(params), values(load_params(STORED)), strict=True))

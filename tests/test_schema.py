"""A config names what it changes: defaults stand in the makers' signatures, and overrides are read by the annotation of the argument."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

import pytest
from ml_collections import ConfigDict

from vaeflow import build, schema
from vaeflow.build import Count, Positive, check
from vaeflow.config import plain, read_file
from vaeflow.errors import UserError
from vaeflow.models import build_model
from vaeflow.models.vae import vae
from vaeflow.override import overridden, override, read
from vaeflow.runs import workdir
from vaeflow.training import dry_run, setup
from vaeflow.training.configure import complete, load

VAE = "configs/digits_vae.py"


def flat(config: Any) -> dict[str, Any]:
    return {key: plain(schema.value_at(config, key)) for key, _, _ in schema.described(config)}


def test_a_file_names_what_it_changes_and_the_signatures_have_the_rest():
    file, config = read_file(VAE), load(VAE)
    assert "std" not in file.model and config.model.std == inspect.signature(vae).parameters["std"].default
    assert "ema" not in file.optim and config.optim.ema == 0.999 and config.seed == 0
    assert config.parts.encoder.activation == "relu" and config.sample.temperature == 1.0 and "temperature" not in config.model
    assert plain(complete(config)) == plain(config)


def test_a_vae_has_at_most_17_keywords():
    assert len(inspect.signature(vae).parameters) <= 17


def test_a_part_is_the_one_of_its_own_name_or_is_written_out():
    config = load(VAE)
    assert (config.model.encoder, config.model.decoder, config.model.prior) == ("encoder", "decoder", "")
    assert config.model.objective == "elbo" and plain(config.parts.elbo) == {"kind": "elbo", "k": 1, "beta": 1.0, "kl": "auto"}
    cyclical = load(f"{VAE}:cyclical")
    assert cyclical.parts.elbo.beta == "beta" and cyclical.parts.beta.ramp == 0.5


@pytest.mark.parametrize(
    ("text", "hint", "value"),
    [
        ("1e4", int, 10_000),
        ("-3", Annotated[int, build.Range()], -3),
        ("3", float, 3.0),
        ("1e-3", Positive, 1e-3),
        ("False", bool, False),
        ("8, 16", tuple[Count, ...], (8, 16)),
        ("a,b", tuple[str, ...], ("a", "b")),
        ("()", tuple[Count, ...], ()),
        ("4", build.Count | None, 4),
        ("", str | None, ""),
    ],
)
def test_a_text_is_read_by_the_annotation(text, hint, value):
    found = read(text, hint, "config.x", schema.REQUIRED)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(("text", "hint"), [("1.5", int), ("many", float), ("yes", bool), ("8,x", tuple[Count, ...]), ("inf", int)])
def test_a_text_of_another_type_is_refused(text, hint):
    with pytest.raises(UserError, match=r"config\.x.*has the wrong type; it must be"):
        read(text, hint, "config.x", schema.REQUIRED)


def test_numbers_keep_their_type_through_a_command():
    config = load(VAE, [("train.steps", "2e3"), ("optim.learning_rate", "1"), ("parts.encoder.hidden", "8"), ("eval.k", "50")])
    assert (config.train.steps, config.optim.learning_rate, config.eval.k) == (2000, 1.0, 50)
    assert type(config.optim.learning_rate) is float and config.parts.encoder.hidden == (8,)


def test_another_kind_keeps_the_keys_that_it_has(capsys):
    config = load(VAE, [("parts.encoder.kind", "conv"), ("parts.encoder.channels", "4,8")])
    assert config.parts.encoder.kind == "conv" and config.parts.encoder.channels == (4, 8)
    assert config.parts.encoder.activation == read_file(VAE).parts.encoder.activation
    assert "hidden" in config.parts.encoder  # conv has it too
    assert capsys.readouterr().err == ""
    load(VAE, [("parts.encoder.kind", "resnet"), ("parts.encoder.width", "4"), ("parts.encoder.blocks", "1")])
    assert "config.parts.encoder.hidden is dropped: the kind 'resnet' does not have it" in capsys.readouterr().err


def test_an_objective_and_a_schedule_are_chosen_on_the_command_line():
    config = load(VAE, [("model.objective", "iwae"), ("parts.iwae.k", "7")])
    assert (config.model.objective, config.parts.iwae.k) == ("iwae", 7) and "elbo" not in config.parts
    config = load(VAE, [("parts.beta.steps", "600"), ("parts.beta.kind", "linear")])
    assert config.parts.elbo.beta == "beta" and config.parts.beta.steps == 600 and config.parts.beta.end == 1.0
    config = load(VAE, [("parts.elbo.beta", "4")])
    assert config.parts.elbo.beta == 4.0


def test_a_part_that_nothing_names_is_an_error():
    with pytest.raises(UserError, match=r"config.parts: the key='encodr' is unknown \(did you mean 'encoder'\?\)"):
        load(VAE, [("parts.encodr.kind", "conv")])
    with pytest.raises(UserError, match=r"config.model.objective is one value \('elbo'\).*it names a part: config.parts.elbo.k"):
        load(VAE, [("model.objective.k", "3")])


def test_overrides_of_a_whole_config_are_in_place():
    config = load(VAE)
    override(config, "model.objective", "dreg")
    assert config.parts.dreg.k == 5
    with pytest.raises(UserError, match=r"config.parts.dreg.k='1.5' has the wrong type; it must be int"):
        override(config, "parts.dreg.k", "1.5")


def test_event_and_levels_are_those_of_the_data(tmp_path):
    config = load(VAE)
    assert "event" not in config.model and "levels" not in config.model
    x = setup.make_experiment(config)
    assert (x.config.model.event, x.config.model.levels) == ((8, 8, 1), 17)
    assert setup.make_experiment(load(VAE, [("data.binarize", "dynamic"), ("model.likelihood", "bernoulli")])).config.model.levels == 2
    with pytest.raises(UserError, match=r"model.levels=2 does not fit the data, which have 17 levels"):
        setup.make_experiment(load(VAE, [("model.levels", "2"), ("model.likelihood", "bernoulli")]))
    workdir.prepare(tmp_path / "run", x.config)
    stored = workdir.read_json(tmp_path / "run" / "config.json")
    assert (stored["model"]["event"], stored["model"]["levels"]) == ([8, 8, 1], 17)
    workdir.must_agree(tmp_path / "run", config)  # the command again
    with pytest.raises(UserError, match=r"model.levels was 17, is now 2"):
        workdir.must_agree(tmp_path / "run", load(VAE, [("model.levels", "2")]))


def test_a_mistake_is_said_before_the_data_are_loaded(monkeypatch):
    def no_data(*_):
        raise AssertionError

    monkeypatch.setattr(setup.data, "load", no_data)
    with pytest.raises(UserError, match=r"model.latent=0 is invalid; it must be >= 1"):
        setup.make_experiment(load(VAE, [("model.latent", "0")]))


def test_every_value_of_a_run_is_stored_and_a_new_default_leaves_it_readable(tmp_path):
    x = setup.make_experiment(load(VAE))
    workdir.prepare(tmp_path / "run", x.config)
    stored = workdir.read_json(tmp_path / "run" / "config.json")
    named = flat(x.config)
    assert {key: plain(schema.value_at(stored, key)) for key in named} == named
    assert {"optim.b1", "train.log_every", "eval.chunk", "data.workers", "parts.elbo.kl", "model.std_bound", "seed"} <= set(named)
    del stored["model"]["std_bound"], stored["optim"]["clip"]
    workdir.write_json(tmp_path / "run" / "config.json", stored)
    assert workdir.read_config(tmp_path / "run").model.std_bound == 10.0
    workdir.must_agree(tmp_path / "run", load(VAE))


def test_the_dry_run_marks_what_is_no_default():
    lines = dry_run.report(setup.make_experiment(load(VAE, [("parts.elbo.beta", "2")]))).splitlines()
    assert "* --config.model.latent=8" in lines and "* --config.parts.elbo.beta=2.0" in lines and "* --config.train.steps=3000" in lines
    assert (
        "  --config.parts.elbo.kind=elbo" in lines
        and "  --config.model.std=softplus" in lines
        and "  --config.optim.b1=0.9" in lines
        and "  --config.model.encoder=encoder" in lines
    )


def test_traced_numbers_are_found_wherever_they_stand():
    assert schema.traced(load(VAE)) == {"parts.elbo.beta": 1.0}
    assert "parts.elbo.beta" not in schema.traced(load(f"{VAE}:cyclical"))
    assert schema.traced(load("configs/digits_objectives.py:iwae_5")) == {}


def test_a_tracer_is_no_value_to_check():
    class Tracer:
        aval = None

    def make(*, beta: Annotated[float, build.TRACED, build.Range(0)]): ...

    tracer = Tracer()
    assert check(make, {"beta": tracer}, "parts.x", {}) == {"beta": tracer}
    with pytest.raises(UserError, match=r"beta=-1.0 is invalid"):
        check(make, {"beta": -1.0}, "parts.x", {})


def test_a_part_or_a_number(capsys):

    with pytest.raises(UserError, match=r"parts.elbo.beta='nothing' is unknown"):
        setup.make_experiment(load(VAE, [("parts.elbo.beta", "nothing")]))


def test_overridden_leaves_the_file_as_it_is():
    file = read_file(VAE)
    made, lines = overridden(file, [("model.latent", "3")])
    assert made.model.latent == 3 and file.model.latent == 8 and lines == []


def test_a_kind_of_several_part_types_is_a_part_of_each():
    base = ("configs/densities.py:moons_flow_matching", [("model.predict", "edm"), ("model.weight", "edm"), ("model.path", "edm")])
    config = load(*base)
    assert [config.model[name] for name in ("path", "predict", "weight")] == ["path", "predict", "weight"]
    assert config.parts.path.sigma_max == 80.0 and config.parts.predict.sigma_data == 0.5
    assert plain(complete(config)) == plain(config)
    setup.make_experiment(config)
    config = load("configs/densities.py:moons_score_vp", [("model.predict", "edm"), ("model.path", "edm")])
    assert config.parts[config.model.path].sigma_max == 80.0 and config.parts[config.model.predict].sigma_data == 0.5


def test_the_name_of_a_part_is_no_value_of_a_run(tmp_path):
    one = setup.make_experiment(load("configs/digits_objectives.py:iwae_5")).config
    workdir.prepare(tmp_path / "run", one)
    other = load("configs/digits_objectives.py", [("model.objective", "iwae")])
    assert (one.model.objective, other.model.objective) == ("objective", "iwae")
    workdir.must_agree(tmp_path / "run", other)
    with pytest.raises(UserError, match=r"parts.iwae.k was 5, is now 7"):
        workdir.must_agree(tmp_path / "run", load("configs/digits_objectives.py", [("model.objective", "iwae"), ("parts.iwae.k", "7")]))


def test_lists_of_parts_name_new_parts_and_bare_kinds():
    new = [("model.encoders", "low,encoder_2"), ("parts.low.kind", "mlp"), ("parts.low.hidden", "9")]
    config = load("configs/digits_hierarchy.py", new)
    assert list(config.model.encoders) == ["low", "encoder_2"] and config.parts.low.hidden == (9,) and config.parts.low.activation == "relu"
    flow = load("configs/digits_flow.py", [("parts.flow.of", "grey,logit,batch_norm")])
    assert flow.parts.batch_norm.momentum == 0.99


def test_an_override_of_a_part_that_is_not_used_any_more_is_said(capsys):
    load("configs/digits_objectives.py:beta_tc", [("model.objective", "iwae"), ("parts.objective.weight", "9")])
    assert capsys.readouterr().err == "config.parts.objective is not used here: what is changed in it has no effect\n"


def test_another_family_drops_the_sampling_options_of_the_first(capsys):
    new = [("model.kind", "vae"), ("model.latent", "2"), ("parts.encoder.kind", "mlp"), ("parts.encoder.hidden", "4")]
    config = load("configs/digits_diffusion.py", [*new, ("parts.decoder.kind", "mlp"), ("parts.decoder.hidden", "4")])
    assert set(config.sample) == {"n", "temperature"}
    assert "config.sample.solver is dropped: the kind 'vae' does not have it" in capsys.readouterr().err


def test_an_empty_text_is_the_kind_that_none_stands_for():
    config = load(VAE, [("model.objective", "")])
    assert config.model.objective == "elbo" and plain(config) == plain(load(VAE))


def test_a_folder_is_named_after_what_was_given():
    from vaeflow.commands.train import default_workdir

    file = load(VAE)
    name = str(default_workdir(VAE, load(VAE, [("model.objective", "iwae")]), file))
    assert name == "runs/digits_vae+model.objective=iwae"
    assert str(default_workdir(VAE, load(VAE, [("model.objective", "iwae"), ("parts.iwae.k", "7")]), file)).endswith("iwae+parts.iwae.k=7")


def test_the_sampling_options_of_a_model_in_a_model_are_those_of_the_section_sample():
    inner: dict[str, Any] = {"kind": "flow", "event": (2,), "layer": "actnorm", "temperature": 0.5}
    values = {"model": {"kind": "standardized", "model": "flow"}, "parts": {"flow": inner}, "data": {"kind": "density"}}
    config = complete(ConfigDict(values))  # as runs of before the section had them are stored
    assert config.sample.temperature == 0.5 and "temperature" not in config.parts.flow and plain(complete(config)) == plain(config)
    override(config, "sample.temperature", "0.25")
    assert build_model(config).spec.arguments["model"].spec.arguments["temperature"] == 0.25
    with pytest.raises(UserError, match=r"parts\.flow: the key='temperature' is unknown"):
        override(config, "parts.flow.temperature", "0.1")
    both = {**config.to_dict(), "parts": {"flow": inner}}
    assert complete(ConfigDict(both)).parts.flow.temperature == 0.5  # which is refused
    with pytest.raises(UserError, match=r"parts\.flow\.temperature and sample\.temperature are the same option"):
        build_model(both)

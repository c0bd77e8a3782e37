"""Frozen arguments: a model of another run as an argument of this one's, by its workdir, by a config row, by its group."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from tests.model_cases import flat
from tests.runs import state
from tests.test_given import TRAINED, of_moons, write_run
from vaeflow.build import Positive
from vaeflow.config import plain
from vaeflow.errors import UserError
from vaeflow.evaluation import evaluate
from vaeflow.model import Frozen, Model, merge_params
from vaeflow.models import MODELS, ModelEntry, build_model
from vaeflow.override import override
from vaeflow.run import load_run
from vaeflow.runs import workdir
from vaeflow.schema import complete
from vaeflow.training import frozen, loop, setup

ROW = """
from tests.test_given import of_moons

ROWS = {"": "a VAE of the moons", "wide": "with three latents"}

def get_config(row=""):
    c = of_moons()
    c.model.latent = 3 if row else 2
    return c
"""


def of_a_vae(*, below: Frozen, size: Positive) -> Model:
    """A family that reads another model, with an `init` that ignores `given`: scale e + the mean latent of the other model's posterior."""

    def latents(params, x):
        assert below.model.latent is not None
        return below.model.latent.posterior(below.of(params), x).mean()

    def init(key, batch, given=None):
        return merge_params({"scale": jnp.ones(())}, below.init(key, batch))

    def loss(params, key, batch, step):
        total = jnp.mean((size * params["scale"] * latents(params, batch["x"]) - 1) ** 2)
        return total, {"loss": total}

    def sample(params, key, n, context=None):
        return {"x": jnp.zeros((n, 2))}

    return Model(init, loss, sample, None, "none")


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setitem(MODELS, "of_a_vae", ModelEntry(of_a_vae, ()))


def config(below: Any, steps: int = 4) -> ConfigDict:
    c = of_moons()
    c.train.update(steps=steps, log_every=1, eval_every=2, checkpoint_every=2)
    c.model = ConfigDict(dict(kind="of_a_vae", below=below, size=1.0))
    c.sample = ConfigDict(dict(n=4))
    return c.lock()


def fit(c: ConfigDict, directory: Path) -> ConfigDict:
    """Train as the command does; the config that config.json has."""
    c = frozen.resolved(c, directory)
    x = setup.make_experiment(c, directory)
    workdir.prepare(directory, x.config)
    loop.fit(x, directory, evaluate.validator)
    return workdir.read_config(directory)


def test_a_run_with_a_frozen_model_stands_alone(tmp_path):
    vae = write_run(tmp_path / "vae", of_moons(), TRAINED)
    stored: Any = fit(config(vae), tmp_path / "run").model.below
    assert stored["from"] == vae and len(stored.sha256) == 64 and plain(of_moons().model).items() <= plain(stored.config.model).items()
    whole = state(tmp_path / "run")
    shutil.rmtree(vae)  # resuming, loading and evaluating open the run's own folder alone
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "last" / "4")
    fit(config(vae), tmp_path / "run")
    for name, leaf in state(tmp_path / "run").items():
        np.testing.assert_array_equal(leaf, whole[name], err_msg=name)
    params: Any = load_run(tmp_path / "run")[1]
    assert set(params) == {"scale", "fixed"} and params["scale"] != 1
    for path, leaf in flat(TRAINED).items():
        np.testing.assert_array_equal(flat(params["fixed"]["below"])[path], leaf)


def test_the_same_parameters_are_the_same_model_wherever_they_are(tmp_path):
    vae = write_run(tmp_path / "vae", of_moons(), TRAINED)
    fit(config(vae, 2), tmp_path / "run")
    (tmp_path / "vae").rename(tmp_path / "moved")
    fit(config(str(tmp_path / "moved"), 2), tmp_path / "run")
    other = jax.tree.map(lambda a: a + 1, TRAINED)
    own = frozen.resolved(config(write_run(tmp_path / "other", of_moons(), other), 2), tmp_path / "run")
    with pytest.raises(UserError, match=r"model.below was .*moved [0-9a-f]{8}., is now .*other [0-9a-f]{8}"):
        workdir.must_agree(tmp_path / "run", own)
    with pytest.raises(UserError, match=r"neither a workdir .* nor a config row"):
        frozen.resolved(config(vae, 2), tmp_path / "elsewhere")


def test_parameters_that_changed_since_are_refused(tmp_path):
    vae = write_run(tmp_path / "vae", of_moons(), TRAINED)
    x = setup.make_experiment(config(vae), tmp_path / "run")
    shutil.rmtree(vae)
    write_run(tmp_path / "vae", of_moons(), jax.tree.map(lambda a: a + 1, TRAINED))
    with pytest.raises(UserError, match=r"model.below=.* has other parameters now than when this config was made"):
        setup.init_params(x)


def test_a_group_trains_the_model_on(tmp_path):
    vae = write_run(tmp_path / "vae", of_moons(), TRAINED)
    c = config(vae)
    with c.unlocked():
        override(c, "model.below.train", "true")
        override(c, "model.below.which", "last")
    assert plain(c.model.below) == {"from": vae, "which": "last", "ema": True, "train": True}
    params, held, lines = setup.init_params(setup.make_experiment(c))
    assert set(params) == {"scale", "below"} and not held and lines == [f"model.below={vae}: 4 arrays are trained on"]
    np.testing.assert_array_equal(params["below"]["decoder"]["head"]["kernel"], TRAINED["decoder"]["head"]["kernel"])
    fit(c, tmp_path / "run")
    moved: Any = load_run(tmp_path / "run")[1]
    assert np.any(moved["below"]["encoder"]["head"]["kernel"] != TRAINED["encoder"]["head"]["kernel"])
    with pytest.raises(UserError, match=r"model.below"):  # the same parameters, held fixed
        workdir.must_agree(tmp_path / "run", frozen.resolved(config(vae), tmp_path / "run"))


def test_a_config_row_builds_and_is_not_trained(tmp_path):
    row = tmp_path / "moons.py"
    row.write_text(ROW)
    x = setup.make_experiment(config(f"{row}:wide"))
    params, _, lines = setup.init_params(x)
    assert not lines and params["fixed"]["below"]["encoder"]["head"]["bias"].shape == (6,)
    with pytest.raises(UserError, match=rf"--config={row}:wide --workdir=runs/moons; then add --config.model.below=runs/moons"):
        workdir.prepare(tmp_path / "run", x.config)
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize(
    "below, message",
    [
        (3, "model.below=3 has the wrong type"),
        ({"from": "runs/none"}, "model.below='runs/none' is neither a workdir"),
        ({"from": "runs/none", "trian": True}, "model.below: the key='trian' is unknown .did you mean 'train'"),
        ({"from": "runs/none", "train": 1}, "model.below.train=1 has the wrong type; it must be bool"),
        ("configs/base.py", "ROWS"),
    ],
)
def test_a_wrong_value_is_one_line(below, message):
    with pytest.raises(UserError, match=message):
        setup.make_experiment(config(below if not isinstance(below, dict) else ConfigDict(below)))


def test_a_workdir_without_a_checkpoint_and_a_stored_name_are_one_line(tmp_path):
    (tmp_path / "vae").mkdir()
    workdir.write_config(tmp_path / "vae", of_moons())
    with pytest.raises(UserError, match=r"model.below='.*vae': .*train first"):
        setup.make_experiment(config(str(tmp_path / "vae")))
    (tmp_path / "run").mkdir()
    workdir.write_config(tmp_path / "run", config("configs/digits_vae.py"))
    with pytest.raises(UserError, match="must be the group that training stores"):
        load_run(tmp_path / "run")


def test_what_a_named_workdir_names_itself_is_neither_executed_nor_opened(tmp_path):
    evil = tmp_path / "evil.py"
    evil.write_text("raise SystemExit('executed')")
    stranger = Path(write_run(tmp_path / "stranger", config(str(evil)), {"scale": np.ones((), np.float32)}))
    for below in (str(evil), {"from": str(evil)}, str(tmp_path / "elsewhere")):
        values = config("").to_dict()
        values["model"]["below"] = below
        workdir.write_config(stranger, ConfigDict(values))
        with pytest.raises(UserError, match=r"^model.below of .*stranger.*"):
            frozen.resolved(config(str(stranger)))


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(sha256=None), "model.below.sha256=None has the wrong type"),
        (dict(train="no"), "model.below.train='no' has the wrong type; it must be bool"),
        (dict(config="abc"), "model.below.config='abc' has the wrong type"),
        (dict(config=dict(model={}, parts={})), "model.below.config must have the groups model, parts, sample"),
        (dict(more=1), "model.below: the key='more' is unknown"),
        (dict(which="first"), "model.below.which='first' is unknown"),
    ],
)
def test_a_damaged_group_is_one_line(change, message, tmp_path):
    c = frozen.resolved(config(write_run(tmp_path / "vae", of_moons(), TRAINED))).to_dict()
    c["model"]["below"] |= change
    with pytest.raises(UserError, match=message):
        build_model(c)
    with pytest.raises(UserError, match=message):
        frozen.resolved(ConfigDict(c))


def test_before_the_first_checkpoint_the_model_may_change(tmp_path):
    vae = write_run(tmp_path / "vae", of_moons(), TRAINED)
    workdir.prepare(tmp_path / "run", frozen.resolved(config(vae), tmp_path / "run"))
    shutil.rmtree(vae)
    write_run(tmp_path / "vae", of_moons(), jax.tree.map(lambda a: a + 1, TRAINED))
    fit(config(vae), tmp_path / "run")
    params: Any = load_run(tmp_path / "run")[1]
    np.testing.assert_array_equal(params["fixed"]["below"]["decoder"]["head"]["bias"], 1.0)


def test_no_name_is_one_line_and_only_arguments_of_models_become_groups():
    with pytest.raises(UserError, match=r"model.below='' is invalid; it must be the workdir"):
        setup.make_experiment(config(""))
    c = complete(config("runs/vae"))
    for key in ("model.kind.train", "data.kind.train", "init_from.which"):
        with pytest.raises(UserError, match="is one value"):
            override(c, key, "true")

"""Gradient accumulation: the numbers of the whole batch from parts of it, in the memory of one part. And the profile of a run."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from vaeflow.errors import UserError
from vaeflow.evaluation import evaluate
from vaeflow.override import override
from vaeflow.runs import workdir
from vaeflow.training import configure, dry_run, loop, recorder, setup
from vaeflow.training.step import init_state, make_step


def made(name: str = "configs/densities.py", /, **changes: Any) -> setup.Experiment:
    loaded = configure.load(name)
    small = {"data.size": 640, "data.batch": 64, "parts.net.hidden": "16", "parts.steps.n": 1} if "densities" in name else {}
    for key, value in (small | changes).items():
        override(loaded, key, str(value))
    return setup.make_experiment(loaded)


def first_step(x: setup.Experiment) -> dict[str, np.ndarray]:
    params, frozen, _ = setup.init_params(x)
    state, fixed = init_state(params, x.tx, x.optim.ema, frozen)
    step = jax.jit(make_step(x.model, x.tx, x.optim.ema, accumulate=x.train.accumulate))
    return {name: np.asarray(value) for name, value in step(state, fixed, setup.first_batch(x), jax.random.key(1))[1].items()}


def test_parts_of_a_batch_have_the_gradient_of_the_whole():
    whole, parts = (first_step(made(**{"train.accumulate": n})) for n in (1, 4))
    assert whole.keys() == parts.keys() and whole["grad_norm"] > 0.01
    for name in whole:
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-5, err_msg=name)


def test_parts_have_noise_of_their_own():
    """Two halves with the same noise would give a batch of one example, twice, the loss of either."""
    x = made("configs/digits_vae.py", **{"data.batch": 2, "train.accumulate": 2, "parts.encoder.hidden": "8", "parts.decoder.hidden": "8"})
    params = setup.init_params(x)[0]
    one = jax.tree.map(lambda a: a[np.array([0, 0])], setup.first_batch(x))
    state, fixed = init_state(params, x.tx, x.optim.ema)
    step = jax.jit(make_step(x.model, x.tx, x.optim.ema, accumulate=2))
    both = step(state, fixed, one, jax.random.key(1))[1]["recon"]
    half = jax.tree.map(lambda a: a[:1], one)
    keys = jax.random.split(jax.random.key(1), 2)
    losses = [jax.jit(x.model.loss)(params, key, half, 0)[1]["recon"] for key in keys]
    assert abs(losses[0] - losses[1]) > 1e-3 and both == pytest.approx(np.mean(losses), rel=1e-5)


def test_eight_parts_take_less_memory():
    def temporary(n: int) -> float:
        x = made(**{"data.batch": 512, "parts.net.hidden": "64,64", "train.accumulate": n})
        params, frozen, _ = setup.init_params(x)
        return dry_run.cost(x, params, frozen)["temporary_mb"]

    assert temporary(8) < 0.5 * temporary(1)


@pytest.mark.parametrize(
    "name, changes, said",
    [
        ("configs/densities.py", {"train.accumulate": 3}, "train.accumulate=3 does not divide the 64 examples"),
        ("configs/digits_flow.py:batch_norm", {"train.accumulate": 2}, "train.accumulate=2 is invalid with batch statistics"),
        ("configs/densities.py", {"train.accumulate": 0}, "train.accumulate=0"),
    ],
)
def test_what_cannot_be_is_one_line(name, changes, said):
    with pytest.raises(UserError) as error:
        made(name, **changes)
    assert said in str(error.value)


def test_a_profile_is_a_trace_of_a_few_steps(tmp_path):
    x = made(**{"train.steps": 24, "profile": True, "train.eval_every": 24, "train.checkpoint_every": 24, "train.max_dispatch": 2})
    workdir.prepare(tmp_path, x.config)
    loop.fit(x, tmp_path, evaluate.validator)
    traces = list((tmp_path / "profile").rglob("*.xplane.pb"))
    assert len(traces) == 1 and traces[0].stat().st_size > 1000  # steps 10 to 20, whatever dispatches the clock makes of them


def test_every_evaluation_is_saved(tmp_path, monkeypatch):
    x = made(**{"train.steps": 12, "train.eval_every": 3, "train.checkpoint_every": 12, "optim.learning_rate": 1e-20})  # never better
    workdir.prepare(tmp_path, x.config)
    saved: list[int] = []
    save = recorder.Recorder.save
    monkeypatch.setattr(recorder.Recorder, "save", lambda self, step, state: (saved.append(step), save(self, step, state))[1])
    loop.fit(x, tmp_path, evaluate.validator)
    assert saved == [3, 6, 9, 12]

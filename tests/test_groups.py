"""Parameter groups and turns: rates, schedules, clipping and bounds of a group; whose turn a step is; two players of a WGAN-GP."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.toys import sections
from vaeflow.build import call
from vaeflow.config import plain
from vaeflow.errors import UserError
from vaeflow.model import Model
from vaeflow.models.gan import gan
from vaeflow.nets import mlp
from vaeflow.objectives import ADVERSARIAL, steps_of, turn_of
from vaeflow.training import optimizer
from vaeflow.training.parameter_groups import GroupConfig
from vaeflow.training.step import init_state, make_step

TURNS = ("critic:5", "generator:1")


def section(**changes: Any) -> optimizer.OptimConfig:
    return call(optimizer.OptimConfig, plain(sections().optim) | changes, "optim")


def params() -> dict[str, Any]:
    a, b, c = jax.random.split(jax.random.key(0), 3)
    return {
        "critic": {"kernel": jax.random.normal(a, (3, 4)), "bias": jnp.full((4,), -0.0, jnp.float32)},
        "generator": {"kernel": jax.random.normal(b, (4, 2))},
        "scale": jax.random.normal(c, (2,)),
    }


def toy() -> Model:
    """A loss of all parameters, and no density: only `loss` is used."""

    def loss(p: Any, key: Any, batch: Any, step: Any, /) -> tuple[Any, dict[str, Any]]:
        y = jnp.tanh(batch["x"] @ p["critic"]["kernel"] + p["critic"]["bias"]) @ p["generator"]["kernel"] * p["scale"]
        return jnp.mean((y - batch["x"][:, :2]) ** 2), {}

    def init(key: Any, batch: Any, /, given: Any = None) -> Any:
        return params()

    def sample(p: Any, key: Any, n: int, /, context: Any = None) -> Any:
        return {"x": jnp.zeros((n, 3))}

    return Model(init, loss, sample, None, "none")


def batch(step: int, n: int = 8) -> dict[str, Any]:
    return {"x": jax.random.normal(jax.random.key(100 + step), (n, 3))}


def trajectory(c: optimizer.OptimConfig, steps: int, accumulate: int = 1) -> list[Any]:
    """The states before and after each step of the toy."""
    tx = optimizer.make_optimizer(c, steps)
    state, fixed = init_state(params(), tx, c.ema)
    step = jax.jit(make_step(toy(), tx, c.ema, accumulate=accumulate))
    states = [state]
    for i in range(steps):
        states.append(step(states[-1], fixed, batch(i), jax.random.key(i))[0])
    assert step._cache_size() == 1  # type: ignore[attr-defined]
    return states


def assert_equal(a: Any, b: Any) -> None:
    """The same bits."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    assert all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def differ(a: Any, b: Any) -> bool:
    return any(np.any(np.asarray(x) != np.asarray(y)) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def alone(c: optimizer.OptimConfig, names: tuple[str, ...], states: list[Any], took_part: list[int], steps: int) -> Any:
    """The parameters `names` after an optimiser of theirs alone has had the gradients of these steps of a run."""
    tx = optimizer.make_optimizer(c, steps)
    own = {name: states[0].trained[name] for name in names}
    opt_state = tx.init(own)

    @jax.jit
    def update(own, opt_state, whole, x):
        grads = jax.grad(lambda p: toy().loss(p, jax.random.key(0), x, 0)[0])(whole)
        updates, opt_state = tx.update({name: grads[name] for name in names}, opt_state, own)
        return optax.apply_updates(own, updates), opt_state

    for i in took_part:
        own, opt_state = update(own, opt_state, states[i].trained, batch(i))
    return own


def test_no_groups_and_no_turns_leave_the_optimiser_as_it_is():
    c = section(clip=1.0)
    tx, before = optimizer.make_optimizer(c, 10), optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optimizer.schedule(c, 10)))
    assert not optimizer.groups_of(tx, params())
    assert_equal(tx.init(params()), before.init(params()))
    one = trajectory(section(groups={"critic": {}}), 5)  # a group that changes nothing moves as no group
    for a, b in zip(one, trajectory(section(), 5), strict=True):
        assert_equal((a.trained, a.ema), (b.trained, b.ema))


def test_groups_move_as_separate_optimisers():
    """Rates, a method, a schedule and clipping of their own; `names` joins two; what is not given is the section's."""
    critic = dict(learning_rate=0.05, schedule="cosine", clip=0.01)
    c = section(groups={"critic": critic, "rest": dict(names=("generator", "scale"), name="sgd", b1=0.0)}, learning_rate=0.02, clip=0.5)
    states = trajectory(c, 12)
    wanted = alone(section(**critic), ("critic",), states, list(range(12)), 12)
    wanted |= alone(section(learning_rate=0.02, name="sgd", b1=0.0, clip=0.5), ("generator", "scale"), states, list(range(12)), 12)
    for a, b in zip(jax.tree.leaves(states[-1].trained), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-7)


def test_weight_decay_of_kernels_in_a_group():
    c = section(name="adamw", groups={"critic": dict(weight_decay=0.3, decay_on="kernels")}, learning_rate=0.1)
    tx, p = optimizer.make_optimizer(c, 10), jax.tree.map(jnp.ones_like, params())
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, p), tx.init(p), p)
    np.testing.assert_allclose(updates["critic"].pop("kernel"), np.full((3, 4), -0.03), rtol=1e-6)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(updates))


def test_clip_weights_holds_after_every_update():
    c = section(
        name="rmsprop", learning_rate=0.1, groups={"critic": dict(clip_weights=(-0.01, 0.01))}, turns=("generator:1", "critic:1", "scale:1")
    )
    states = trajectory(c, 9)
    assert_equal(states[1].trained["critic"], states[0].trained["critic"])  # not its turn: as it is
    largest = [max(float(jnp.abs(a).max()) for a in jax.tree.leaves(state.trained["critic"])) for state in states[2:]]
    assert np.all(np.array(largest) <= np.float32(0.01)) and largest[-1] == np.float32(0.01)
    assert float(jnp.abs(states[-1].trained["generator"]["kernel"]).max()) > 0.1


def test_turns_name_the_player_of_every_step():
    turns = {"critic": 2, "generator": 1, "scale": 3}
    players = np.array([0, 0, 1, 2, 2, 2] * 3)
    np.testing.assert_array_equal(jax.jit(jax.vmap(lambda t: turn_of(t, turns)))(jnp.arange(18)), players)
    np.testing.assert_array_equal(turn_of(jnp.arange(18), turns), players)
    for i, name in enumerate(turns):
        counts = [int((players[:t] == i).sum()) for t in range(18)]
        assert [steps_of(name, t, turns) for t in range(18)] == counts
        np.testing.assert_array_equal(jax.jit(lambda t, name=name: steps_of(name, t, turns))(jnp.arange(18)), counts)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_others_keep_every_bit_in_a_turn(accumulate):
    c = section(
        groups={"generator": dict(names=("generator", "scale"), schedule="cosine")}, turns=TURNS, learning_rate=0.02, warmup=1, ema=0.9
    )
    states = trajectory(c, 12, accumulate)
    player = ["critic"] * 5 + ["generator"]
    assert all(a.opt_state.inner_states.keys() == {"critic", "generator"} for a in states)
    for i, (before, after) in enumerate(itertools.pairwise(states)):
        for name in ("critic", "generator", "scale"):
            owner = "critic" if name == "critic" else "generator"
            on = player[i % 6] == owner
            inner = [state.opt_state.inner_states[owner].inner_state.inner_state for state in (before, after)]
            for old, new in ((before.trained[name], after.trained[name]), (before.ema[name], after.ema[name]), inner):
                assert differ(old, new) if on else assert_equal(old, new) is None
    if accumulate == 1:  # the schedule, the moments and the moving average count a group's own updates
        own = alone(section(learning_rate=0.02, schedule="cosine", warmup=1), ("generator", "scale"), states, [5, 11], 2)
        for name, leaf in own.items():
            np.testing.assert_allclose(*map(jax.tree.leaves, (states[-1].trained[name], leaf)), rtol=2e-6, atol=1e-7)
        ema = states[0].trained["scale"]
        for n, i in enumerate((5, 11)):
            d = min(0.9, (1 + n) / (10 + n))
            ema = d * ema + (1 - d) * states[i + 1].trained["scale"]
        np.testing.assert_allclose(states[-1].ema["scale"], ema, rtol=2e-6)


def test_the_default_turn_is_of_all_others():
    one = trajectory(section(turns=("critic:2", "default:1"), clip=0.1), 6)
    two = trajectory(section(turns=("critic:2", "rest:1"), groups={"rest": dict(names=("generator", "scale"))}, clip=0.1), 6)
    assert_equal((one[-1].trained, one[-1].ema), (two[-1].trained, two[-1].ema))


def test_the_gradient_norm_is_that_of_the_player():
    c = section(turns=("critic:1", "generator:1", "scale:1"), ema=0.0)
    tx = optimizer.make_optimizer(c, 6)
    state, fixed = init_state(params(), tx, 0.0)
    grads = jax.grad(lambda p: toy().loss(p, jax.random.key(0), batch(0), 0)[0])(state.trained)
    for i, name in enumerate(("critic", "generator", "scale")):
        metrics = make_step(toy(), tx, 0.0)(state._replace(step=jnp.int32(i)), fixed, batch(0), jax.random.key(0))[1]
        np.testing.assert_allclose(metrics["grad_norm"], optax.tree.norm(grads[name]), rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(groups={"critik": {}}), ["optim.groups: the name='critik'", "did you mean 'critic'", "known: critic, generator, scale"]),
        (dict(groups={"both": dict(names=("critic", "x"))}), ["optim.groups.both.names: the name='x'", "known: critic, generator, scale"]),
        (dict(groups={"both": dict(names=("critic",)), "critic": {}}), ["optim.groups.critic", "'critic' are in the group 'both' too"]),
        (dict(groups={"default": {}}), ["optim.groups.default is invalid"]),
        (dict(groups={"critic": dict(clip_weights=(1.0, -1.0))}), ["optim.groups.critic.clip_weights=(1.0, -1.0)", "low < high"]),
        (dict(groups={"critic": dict(weight_decay=0.1)}), ["optim.groups.critic.weight_decay=0.1", "optim.groups.critic.name is 'adam'"]),
        (dict(groups={"critic": dict(warmup=60)}), ["optim.groups.critic.warmup=60", "the 60 updates of 'critic'"]),
        (dict(turns=("critic",)), ["optim.turns: 'critic' is invalid", "critic:5,generator:1"]),
        (dict(turns=("critic:0",)), ["optim.turns: 'critic:0' is invalid"]),
        (dict(turns=("critic:1", "critic:2")), ["optim.turns: 'critic' has two turns"]),
        (dict(turns=("critic:1", "generater:1")), ["optim.turns: the name='generater'", "did you mean 'generator'"]),
        (dict(turns=TURNS), ["optim.turns=critic:5,generator:1 has no turn for scale"]),
        (dict(turns=("generator:1", "scale:1"), groups={"critic": {}}), ["has no turn for critic"]),
        (dict(turns=("critic:1", "generator:1", "scale:1", "default:1")), ["'default' is invalid: all parameters are in other turns"]),
        (dict(turns=TURNS, groups={"g": dict(names=("generator", "scale"))}), ["'generator' are in the group 'g'; name that group"]),
        (dict(turns=("critic:60", "generator:1", "scale:1")), ["'generator' has no turn within train.steps=60"]),
        (dict(turns=("critic:1", "generator:1", "scale:1"), warmup=20), ["optim.warmup=20", "the 20 updates of 'critic'"]),
    ],
)
def test_what_does_not_fit_is_one_line(changes, words):
    with pytest.raises(UserError) as error:
        jax.eval_shape(optimizer.make_optimizer(section(**changes), 60).init, params())
    assert "\n" not in str(error.value) and all(word in str(error.value) for word in words), error.value


def test_values_of_a_group_are_checked():
    for value, words in (
        (dict(critic=dict(rate=1.0)), "optim.groups.critic: the key='rate' is unknown"),
        (dict(critic=dict(learning_rate=-1.0)), "optim.groups.critic.learning_rate=-1.0 is invalid; it must be > 0"),
        (dict(critic=1.0), "optim.groups.critic=1.0 has the wrong type; it must be a group of values"),
        (("critic",), "optim.groups=.* has the wrong type; it must be a group of values"),
    ):
        with pytest.raises(UserError, match=words):
            section(groups=value)
    assert section(groups={"critic": dict(learning_rate=1)}).groups["critic"] == GroupConfig(learning_rate=1.0)


MODES = 2 * np.stack([np.cos(np.arange(8) * np.pi / 4), np.sin(np.arange(8) * np.pi / 4)], -1)


def test_a_wgan_gp_covers_eight_modes():
    net, steps = mlp(hidden=(64, 64)), 6 * 700
    model = gan(event=(2,), generator=net, critic=net, objective=ADVERSARIAL["wgan_gp"](weight=1.0))
    c = section(learning_rate=2e-3, b1=0.5, b2=0.9, turns=TURNS, ema=0.99)
    tx = optimizer.make_optimizer(c, steps)
    state, fixed = init_state(model.init(jax.random.key(0), {"x": jnp.zeros((1, 2))}), tx, c.ema)
    step = make_step(model, tx, c.ema)

    def one(state, key):
        which, jitter, noise = jax.random.split(key, 3)
        x = jnp.asarray(MODES)[jax.random.randint(which, (128,), 0, 8)] + 0.1 * jax.random.normal(jitter, (128, 2))
        return step(state, fixed, {"x": x}, noise)

    state, _ = jax.jit(lambda s: jax.lax.scan(one, s, jax.random.split(jax.random.key(1), steps)))(state)
    assert model.sample is not None
    drawn = np.asarray(model.sample(state.ema, jax.random.key(2), 2000)["x"])
    distance = np.linalg.norm(drawn[:, None] - MODES, axis=-1)
    share = np.bincount(distance.argmin(-1)[distance.min(-1) < 0.5], minlength=8) / len(drawn)
    assert share.min() > 0.03, share

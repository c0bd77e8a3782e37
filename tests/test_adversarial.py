"""Adversarial objectives: each formula against numpy. Law 10: at p = q a game is at rest, and it is monotone in the distance of
Gaussians."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.scipy.special import ndtri

from tests.model_cases import quick
from vaeflow.errors import UserError
from vaeflow.objectives import ADVERSARIAL, Critic
from vaeflow.objectives.adversarial import enough, gradient_penalty

KEY = jax.random.key(0)
X, Y = (np.random.default_rng(i).normal(loc, 1.0, (6, 2)).astype(np.float32) for i, loc in ((0, 0.0), (1, 0.7)))
IDENTITY = Critic(lambda x: jnp.asarray(x), lambda codes: 0.5 * codes + 0.1)  # f(x) = x_1, h(x) = x, r(x) = x / 2 + 1/10
FX, FY = X[:, 0].astype(np.float64), Y[:, 0].astype(np.float64)


def softplus(a: Any) -> Any:
    return np.log1p(np.exp(a))


def gap(u: Any, v: Any) -> Any:
    return np.linalg.norm(u[:, None] - v, axis=-1)


def mean_apart(table: Any) -> float:
    """The mean over pairs of different examples."""
    return float(np.mean(table[~np.eye(len(table), dtype=bool)]))


def mmd2(u: Any, v: Any, bandwidths: tuple[float, ...]) -> float:
    def kernel(a, b):
        return sum(np.exp(-(gap(a, b) ** 2) / (2 * s**2)) for s in bandwidths)

    return mean_apart(kernel(u, u)) + mean_apart(kernel(v, v)) - 2 * float(np.mean(kernel(u, v)))


def error(x: Any, power: int = 2) -> float:
    return float(np.mean(np.abs(0.5 * x - 0.1) ** power))


def moments() -> float:
    second = np.linalg.svd(X.T @ X / 6 - Y.T @ Y / 6, compute_uv=False)
    return float(np.linalg.norm(X.mean(0) - Y.mean(0)) + 2.0 * second[:1].sum())


def surrogate() -> float:
    """The critic's loss of Cramer GAN without its penalty."""
    norm = np.linalg.norm
    value = gap(X, Y).mean() - norm(X, axis=1).mean() - mean_apart(gap(Y, Y)) + norm(Y, axis=1).mean()
    return float(-value)


ENERGY = 2 * gap(X, Y).mean() - mean_apart(gap(X, X)) - mean_apart(gap(Y, Y))
EACH = np.mean((0.5 * Y - 0.1) ** 2, axis=1)  # D(y)
CROSS = softplus(-FX).mean() + softplus(FY).mean()
WASSERSTEIN, SLACK = FY.mean() - FX.mean(), 1 - ((FX**2).mean() + (FY**2).mean()) / 2
# name: (arguments, scalars, what the critic minimises, what the generator minimises)
FORMULAS: dict[str, tuple[dict[str, Any], dict[str, float], Any, Any]] = {
    "minimax": ({}, {}, CROSS, np.log(1 - 1 / (1 + np.exp(-FY))).mean()),
    "non_saturating": ({}, {}, CROSS, -np.log(1 / (1 + np.exp(-FY))).mean()),
    "lsgan": (dict(a=-1.0, b=1.0, c=0.0), {}, (((FX - 1) ** 2).mean() + ((FY + 1) ** 2).mean()) / 2, (FY**2).mean() / 2),
    "hinge": ({}, {}, np.maximum(0, 1 - FX).mean() + np.maximum(0, 1 + FY).mean(), -FY.mean()),
    "wgan": ({}, {}, WASSERSTEIN, -FY.mean()),
    "rwgan": ({}, {}, WASSERSTEIN, -FY.mean()),
    "wgan_gp": (dict(drift=0.5), {}, WASSERSTEIN + 0.5 * (FX**2).mean(), -FY.mean()),  # the identity's slope is 1
    "fisher": (dict(rho=0.3), dict(multiplier=0.2), WASSERSTEIN - 0.2 * SLACK + 0.15 * SLACK**2, -FY.mean()),
    "mcgan": (dict(covariance=2.0, rank=1), {}, -moments(), moments()),
    "gmmn": (dict(bandwidths=(0.5, 2.0)), {}, None, mmd2(X, Y, (0.5, 2.0))),
    "mmd": (
        dict(bandwidths=(0.5, 2.0), reconstruction=3.0),
        {},
        3 * (error(X) + error(Y)) - mmd2(X, Y, (0.5, 2.0)),
        mmd2(X, Y, (0.5, 2.0)),
    ),
    "cramer": (dict(weight=0.0), {}, surrogate(), ENERGY),
    "ebgan": (dict(margin=0.4), {}, error(X) + np.maximum(0, 0.4 - EACH).mean(), error(Y)),
    "began": ({}, dict(k=0.3), error(X, 1) - 0.3 * error(Y, 1), error(Y, 1)),
    "magan": ({}, dict(margin=0.4), error(X) + np.maximum(0, 0.4 - EACH).mean(), error(Y)),
}


def game(name: str, **own: Any) -> Any:
    return ADVERSARIAL[name](**own)


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_the_losses_are_the_formulas(name):
    own, stats, critic, generator = FORMULAS[name]
    made = game(name, **own)
    score = made.outputs == 1
    f = IDENTITY._replace(out=lambda x: jnp.asarray(x)[:, :1]) if score else IDENTITY
    scalars = {key: jnp.asarray(value) for key, value in stats.items()}
    assert stats.keys() <= made.stats.keys() and made.kind == name
    assert float(made.generator(f, jnp.asarray(X), jnp.asarray(Y), scalars)) == pytest.approx(float(generator), rel=1e-4)
    if made.critic is None:
        assert critic is None and not made.turns
        return
    found = made.critic(f, KEY, jnp.asarray(X), jnp.asarray(Y), scalars)
    assert float(found) == pytest.approx(float(critic), rel=1e-4, abs=1e-5)


def test_the_gradient_penalty_is_of_each_example():
    w = jnp.asarray([3.0, 4.0])
    assert gradient_penalty(lambda x: x @ w, KEY, jnp.asarray(X), jnp.asarray(Y)) == pytest.approx(16.0, rel=1e-5)
    found = gradient_penalty(lambda x: jnp.sum(x**2, -1) / 2, KEY, jnp.asarray(X), jnp.asarray(X))  # of x = y: |x| at x itself
    assert found == pytest.approx(np.mean((np.linalg.norm(X, axis=1) - 1) ** 2), rel=1e-4)


def test_pull_away_is_the_mean_squared_cosine_of_codes():
    unit = Y / np.linalg.norm(Y, axis=1, keepdims=True)
    plain, pulled = (game("ebgan", pull_away=weight).generator(IDENTITY, jnp.asarray(X), jnp.asarray(Y), {}) for weight in (0.0, 2.0))
    assert pulled - plain == pytest.approx(2 * mean_apart((unit @ unit.T) ** 2), rel=1e-4)


def test_the_scalars_follow_their_rules():
    x, y = jnp.asarray(X), jnp.asarray(Y)
    f = IDENTITY._replace(out=lambda x: x[:, :1])
    moved = game("fisher", rho=0.3).update(f, x, y, {"multiplier": jnp.asarray(0.2)})
    assert moved["multiplier"] == pytest.approx(0.2 - 0.3 * SLACK, rel=1e-4)
    for gamma, start in ((1.0, 0.5), (0.0, 0.5), (0.0, 1e-4)):
        k = game("began", gamma=gamma, rate=0.1).update(IDENTITY, x, y, {"k": jnp.asarray(start)})["k"]
        assert k == pytest.approx(max(0.0, start + 0.1 * (gamma * error(X, 1) - error(Y, 1))), rel=1e-4)
    magan, far = game("magan", every=2), jnp.asarray(Y + 3)
    stats: Any = dict(magan.stats)
    seen = []
    for a, b in ((x, y), (x, y), (x, y), (x, y), (x / 2, far), (x / 2, far), (x / 4, y), (x / 4, y)):
        stats = magan.update(IDENTITY, a, b, stats)
        seen.append(float(stats["margin"]))
    first, half = error(X), error(X / 2)
    # Pretrained; D(y) has not risen; D(x) is smaller and D(y) has risen; D(y) has fallen.
    np.testing.assert_allclose(seen, [0, first, first, first, first, half, half, half], rtol=1e-5)


def test_pairs_need_two_examples():
    with pytest.raises(UserError, match="a device 1 example, and the objective 'cramer' compares"):
        enough(game("cramer"), 1)
    enough(game("wgan"), 1)


# Law 10. p = N(0, 1), q = N(d, s^2).
POINTS = ndtri((jnp.arange(200) + 0.5) / 200)[:, None]  # of N(0, 1): means over them are expectations, but for 1e-3
STATISTICS = {"mcgan": {}, "gmmn": dict(bandwidths=(0.5, 1.0)), "mmd": dict(reconstruction=0.0, penalty=1.0), "cramer": {}}
PLAYED = {name: {} for name in ADVERSARIAL if name not in STATISTICS} | dict(
    wgan_gp=dict(weight=1.0), fisher=dict(rho=0.3), ebgan=dict(margin=2.0), magan=dict(every=10**6), began=dict(rate=1e-9, error="squared")
)
STATS = dict(margin=jnp.asarray(2.0), k=jnp.asarray(0.3))


def features(x: Any) -> Any:
    """Fixed features [B, 16] of x [B, 1]."""
    a, b = np.random.default_rng(2).normal(size=(2, 16))
    return jnp.tanh(x * a + b)


def gradients(loss: Any, batches: int = 150, n: int = 64) -> tuple[Any, Any]:
    """(mean, standard error) [2, 2] of the gradients for (d, s) of a loss (f, x, y) at d = 0 and at d = 1, over batches of n of both."""

    def one(place, key):
        x, z = jax.random.normal(key, (2, n, 1))
        return loss(Critic(features, features), x, place[0] + place[1] * z)

    each = jax.vmap(jax.vmap(jax.grad(one), (None, 0)), (0, None))
    found = quick(each)(jnp.asarray([[0.0, 1.0], [1.0, 1.0]]), jax.random.split(KEY, batches))
    return np.mean(found, 1), np.std(found, 1) / batches**0.5


@pytest.mark.parametrize("name", STATISTICS)
def test_a_distance_of_statistics_is_at_rest_at_p_equals_q_for_any_features(name):
    made = game(name, **STATISTICS[name])

    def loss(f, x, y):
        return made.generator(f, x, y, {})

    (at, away), (se, se_away) = gradients(loss)
    if name == "mcgan":  # a norm: at rest as the batch grows, as 1 / sqrt(n)
        (larger, _), _ = gradients(loss, n=1024)
        assert (np.abs(larger) < 0.1 * away[0]).all()
    else:
        assert (np.abs(at) < 4 * se).all() and away[0] > 20 * se_away[0]
    values = [float(loss(Critic(features, features), POINTS, POINTS + d)) for d in (0.0, 0.5, 1.0, 2.0)]
    assert values == sorted(values) and values[1] > values[0]


def test_the_surrogate_of_cramer_gan_is_not_at_rest():
    """What the law finds: the critic's surrogate in place of the generator's loss."""
    made = game("cramer", weight=0.0)
    (at, _), (se, _) = gradients(lambda f, x, y: -made.critic(f, KEY, x, y, {}))
    assert np.abs(at / se).max() > 10


def played(name: str, d: Any) -> Any:
    """(the critic's least loss, the generator's gradient for d, the gradient of the critic's loss; the first two with -f in place of f)
    after a critic of three numbers has learned against N(d, 1). Scores: a + b x + c x^2. Autoencoders: a + b x."""
    made = game(name, **PLAYED[name])
    assert made.critic is not None

    def critic_of(p):
        if made.decodes:
            return Critic(lambda x: x * p[1], lambda codes: codes + p[0])
        return Critic(lambda x: p[0] + p[1] * x + p[2] * x**2, lambda codes: codes)

    def critic_loss(p, key, stats):
        return made.critic(critic_of(p), key, POINTS, jnp.roll(POINTS, 77, 0) + d, stats)

    tx = optax.sgd(0.03)  # not Adam, which makes steps of rounding errors
    stats = {key: STATS.get(key, jnp.asarray(value)) for key, value in made.stats.items()}

    def step(carry, key):
        p, state, stats = carry
        updates, state = tx.update(jax.grad(critic_loss)(p, key, stats), state)
        p: Any = optax.apply_updates(p, updates)
        if made.clip:
            p = p.at[1:].set(jnp.clip(p[1:], *made.clip))
        return (p, state, made.update(critic_of(p), POINTS, POINTS + d, stats) if made.update else stats), None

    start = jnp.asarray([0.0, 0.5, 0.0]) if made.decodes else jnp.asarray([0.2, 0.0, 0.0])
    (p, _, stats), _ = jax.lax.scan(step, (start, tx.init(start), stats), jax.random.split(KEY, 1000))

    def slope(p):
        return jax.grad(lambda d: made.generator(critic_of(p), POINTS, POINTS + d, stats))(d)

    return critic_loss(p, KEY, stats), slope(p), jax.grad(critic_loss)(p, KEY, stats), critic_loss(-p, KEY, stats), slope(-p)


@pytest.mark.parametrize("name", PLAYED)
def test_a_game_is_at_rest_at_p_equals_q_and_monotone_in_the_distance(name):
    value, slope, rest, mirrored, opposite = quick(jax.vmap(lambda d: played(name, d)))(jnp.asarray([0.0, 0.25, 0.5, 0.75]))
    autoencoder = game(name).decodes
    assert np.abs(rest[0]).max() < 2e-2
    if name == "wgan_gp":  # the penalty prefers slopes of 1 to a constant f: f and -f are both best, and 0 is the mean of their gradients
        assert mirrored[0] == pytest.approx(float(value[0]), abs=1e-3) and opposite[0] == pytest.approx(-float(slope[0]), abs=1e-3)
    else:
        assert np.abs(slope[0]) < 2e-3
    assert (np.diff(value) < (1e-4 if autoencoder else 0)).all()  # what the critic gains rises with the distance
    assert (np.asarray(slope[1:]) > -1e-4).all() if name == "began" else (np.asarray(slope[1:]) > 1e-4).all()  # the generator moves to p

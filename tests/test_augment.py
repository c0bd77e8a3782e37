"""data.augment: flips and crops of training images, by the run's seed, the step and the slot alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.commands import FLOW, call, refusal, train_only
from tests.runs import ROOT, SMALL, assert_same_run, environment
from vaeflow import data, rng
from vaeflow.data.augment import PAD, augment_batch, crop, flip
from vaeflow.errors import Stopped
from vaeflow.override import override
from vaeflow.training import configure, loop, setup

BOTH = ("flip", "crop")
STEPS = (
    *SMALL,
    *("--config.train.steps=40", "--config.train.log_every=10", "--config.train.eval_every=20", "--config.train.checkpoint_every=20"),
    *("--config.data.context=label", "--config.data.augment=flip,crop"),
)
# Every pixel of it has its own value, so that an augmented image shows its draw.
IMAGE = np.arange(1, 1 + 9 * 12, dtype=np.uint8).reshape(9, 12, 1)


def draws(n: int, names=BOTH, seed: int = 0) -> np.ndarray:
    """n augmented copies of IMAGE."""
    x = jnp.broadcast_to(IMAGE, (n, *IMAGE.shape))
    return np.asarray(augment_batch(jax.random.key(seed), x, names, jnp.arange(n)))


def padded(x: np.ndarray) -> np.ndarray:
    return np.pad(x, ((PAD, PAD), (PAD, PAD), (0, 0)), mode="reflect")


def within(count: int, n: int, p: float, sigmas: float = 5) -> bool:
    """True if a binomial count is within so many standard deviations of its mean."""
    return abs(count - n * p) < sigmas * np.sqrt(n * p * (1 - p))


def test_a_flip_mirrors_and_two_are_none():
    np.testing.assert_array_equal(flip(jnp.asarray(IMAGE)), IMAGE[:, ::-1])
    np.testing.assert_array_equal(flip(flip(jnp.asarray(IMAGE))), IMAGE)


@pytest.mark.parametrize("shape", [(9, 12, 1), (5, 7, 3)])
def test_a_crop_is_cut_from_the_image_padded_by_reflection(shape):
    x = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    cut = jax.jit(crop)
    for top in range(2 * PAD + 1):
        for left in range(2 * PAD + 1):
            got = np.asarray(cut(jnp.asarray(x), top, left))
            assert got.dtype == np.uint8
            np.testing.assert_array_equal(got, padded(x)[top : top + shape[0], left : left + shape[1]])
    np.testing.assert_array_equal(crop(jnp.asarray(x), PAD, PAD), x)


def test_half_of_the_images_are_flipped():
    n = 4000
    x = draws(n, ("flip",))
    flipped = (x == IMAGE[:, ::-1]).all((1, 2, 3))
    assert ((x == IMAGE).all((1, 2, 3)) | flipped).all()
    assert within(flipped.sum(), n, 1 / 2)
    assert within((flipped[:-1] != flipped[1:]).sum(), n - 1, 1 / 2)  # independent of the slot before


def test_every_offset_of_a_crop_is_equally_likely_and_independent_of_the_flip():
    n, offsets = 16_000, [(top, left) for top in range(2 * PAD + 1) for left in range(2 * PAD + 1)]
    cuts = {padded(IMAGE)[top : top + 9, left : left + 12].tobytes(): (top, left, False) for top, left in offsets}
    cuts |= {padded(IMAGE)[top : top + 9, left : left + 12][:, ::-1].tobytes(): (top, left, True) for top, left in offsets}
    assert len(cuts) == 2 * len(offsets)
    found, counts = np.unique([cuts[x.tobytes()] for x in draws(n)], axis=0, return_counts=True)
    assert len(found) == len(cuts) and all(within(count, n, 1 / len(cuts)) for count in counts)
    chi2 = ((counts - n / len(cuts)) ** 2 / (n / len(cuts))).sum()
    assert chi2 < len(cuts) + 5 * np.sqrt(2 * len(cuts))


def test_names_in_any_order_draw_the_same():
    np.testing.assert_array_equal(draws(50, ("flip", "crop")), draws(50, ("crop", "flip")))
    both, one = draws(200), draws(200, ("flip",))
    mirrored = (one == IMAGE[:, ::-1]).all((1, 2, 3))
    cut = draws(200, ("crop",))
    np.testing.assert_array_equal(both, np.where(mirrored[:, None, None, None], cut[:, :, ::-1], cut))
    np.testing.assert_array_equal(draws(50, ()), np.broadcast_to(IMAGE, (50, *IMAGE.shape)))
    assert (draws(50) != draws(50, seed=1)).any()


def test_the_draw_of_a_slot_is_the_same_whatever_share_of_the_batch_a_device_has():
    key, x = jax.random.key(3), jnp.broadcast_to(IMAGE, (12, *IMAGE.shape))
    whole = augment_batch(key, x, BOTH, jnp.arange(12))
    shares = [augment_batch(key, x[i : i + 4], BOTH, jnp.arange(i, i + 4)) for i in (0, 4, 8)]
    np.testing.assert_array_equal(whole, jnp.concatenate(shares))


def test_augmentation_and_binarization_have_different_keys():
    step = jax.random.fold_in(rng.run_keys(0)[1], 7)
    own = jax.random.key_data(rng.augmentation_key(step))
    slots = jax.random.key_data(jax.vmap(lambda slot: jax.random.fold_in(step, slot))(jnp.arange(5000)))
    assert not (np.asarray(slots) == np.asarray(own)).all(-1).any()


def experiment(*overrides: tuple[str, str]):
    c = configure.load(str(ROOT / "configs" / "digits_vae.py:conditional"))
    for key, text in (("data.batch", "16"), *overrides):
        override(c, key, text)
    return setup.make_experiment(c)


def batches(x, steps: int = 3) -> list[dict[str, np.ndarray]]:
    feed = data.make_feed(x.source.train, x.config.data, 0, steps=steps, capacity=steps)
    take, chunk = jax.jit(loop.make_take(x)), feed.chunk(0, steps)
    keys = [jax.random.fold_in(rng.run_keys(0)[1], step) for step in range(steps)]
    return [jax.tree.map(np.asarray, take(feed.arrays, chunk, i, keys[i])) for i in range(steps)]


def test_labels_stay_and_images_change_in_every_step():
    plain, augmented = batches(experiment()), batches(experiment(("data.augment", "flip,crop")))
    changed = []
    for a, b in zip(plain, augmented, strict=True):
        assert set(a) == set(b) == {"x", "context", "label"} and b["x"].dtype == a["x"].dtype
        np.testing.assert_array_equal(a["context"], b["context"])
        for one, other in zip(a["x"], b["x"], strict=True):
            cuts = [padded(one)[i : i + 8, j : j + 8] for i in range(9) for j in range(9)]
            assert any((other == cut).all() or (other == cut[:, ::-1]).all() for cut in cuts)
        changed.append([(one != other).any() for one, other in zip(a["x"], b["x"], strict=True)])
    assert all(np.mean(step) > 0.8 for step in changed)


def test_without_augmentation_a_batch_is_the_rows_of_the_split():
    x = experiment()
    rows = data.indices(0, 0, 3, len(x.source.train.x), 16)
    for batch, row in zip(batches(x), rows, strict=True):
        np.testing.assert_array_equal(batch["x"], x.source.train.x[row])


def test_grey_values_are_augmented_and_then_binarized():
    binary = batches(experiment(("data.binarize", "dynamic"), ("data.augment", "flip"), ("model.levels", "2")), 1)[0]["x"]
    grey = batches(experiment(("data.augment", "flip")), 1)[0]["x"]
    assert set(np.unique(binary)) == {0, 1}
    assert (binary[grey == 0] == 0).all() and (binary[grey == 16] == 1).all() and (grey == 0).sum() > 100


@pytest.mark.parametrize(
    ("words", "held"),
    [
        ((*SMALL, "--config.data.augment=flop"), ["data.augment[0]='flop'", "did you mean 'flip'", "known: crop, flip"]),
        ((*SMALL, "--config.data.augment=flip,flip"), ["data.augment=('flip', 'flip')", "twice", "known: crop, flip"]),
        ((*FLOW, "--config.data.augment=flip"), ["data.augment=('flip',)", "(2,)", "images [H, W, C]", "known here: none"]),
    ],
)
def test_what_cannot_be_augmented_is_one_line(words, held):
    line = refusal("train", *words, "--dry_run")
    assert all(part in line for part in held), line


def test_a_small_image_cannot_be_cropped(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((50, 4, 9, 1), np.uint8))
    words = ("--config=configs/own_table.py:npz", f"--config.data.path={tmp_path / 'a.npz'}", "--config.data.batch=4")
    line = refusal("train", *words, "--config.data.augment=crop,flip", "--dry_run")
    assert "data.augment=('crop', 'flip')" in line and "larger than 4 pixels" in line and "known here: flip" in line


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run with augmentation that nothing happened to."""
    directory = tmp_path_factory.mktemp("augment") / "whole"
    train_only(*STEPS, f"--workdir={directory}")
    return directory


def test_a_run_that_was_stopped_ends_bit_equal(whole, tmp_path, monkeypatch):
    def stop_later(t, step, *more):
        if step >= 20:
            os.kill(os.getpid(), signal.SIGTERM)
        return min(7, 20 - step % 20)

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(loop, "steps_to_take", stop_later)
        train_only(*STEPS, f"--workdir={tmp_path / 'run'}")
    train_only(*STEPS, f"--workdir={tmp_path / 'run'}")
    assert_same_run(whole, tmp_path / "run")


def test_validation_and_test_images_are_never_augmented(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "same")
    found = json.loads((whole / "config.json").read_text())
    assert found["data"]["augment"] == ["flip", "crop"]
    found["data"]["augment"] = []
    (tmp_path / "same" / "config.json").write_text(json.dumps(found))
    for split in ("val", "test", "train"):
        for directory in (whole, tmp_path / "same"):
            call("encode", f"--workdir={directory}", f"--split={split}", f"--output={tmp_path / directory.name}.npz")
        one, other = (dict(np.load(tmp_path / f"{name}.npz")) for name in ("whole", "same"))
        assert one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)


FINGERPRINTS = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh
from vaeflow import data
from vaeflow.override import override
from vaeflow.training import configure, loop, setup
from vaeflow.training.devices import AXIS, Devices

c = configure.load("configs/digits_vae.py")
override(c, "data.augment", "flip,crop")
override(c, "data.batch", "16")
x = setup.make_experiment(c)
weights = jnp.asarray(np.random.default_rng(0).integers(0, 64, (8, 8, 1)), jnp.float32)
for mapping, count in (("jit", 1), ("pmap", 4), ("shard_map", 4), ("fsdp", 4)):
    devices = Devices(Mesh(np.array(jax.devices()[:count]), (AXIS,)), mapping)
    x = x._replace(devices=devices)
    feed, share = data.make_feed(
        x.source.train, x.config.data, 0, slots=devices.slots(16), steps=8, capacity=8), 16 // devices.shares
    take = loop.make_take(x)

    def step(state, shared, chunk):
        arrays, key = shared
        def of(i):
            batch = take(arrays, chunk, i, jax.random.fold_in(key, i))["x"].astype(jnp.float32)
            place = devices.index() * share + jnp.arange(share)
            # Whole numbers below 2^24: their sums do not depend on the order.
            return jnp.sum((batch * weights).sum((1, 2, 3)) * (place + 1))
        found = jax.vmap(of)(jnp.arange(8))
        return state, found if devices.shares == 1 else jax.lax.psum(found, AXIS)

    shared = devices.replicate((feed.arrays, jax.random.key(5)))
    print(mapping, *np.asarray(devices.map(step)(devices.replicate(jnp.zeros(())), shared, feed.chunk(0, 8))[1]).astype(int))
"""


def test_four_devices_see_the_images_of_one():
    env = environment(devices=4)
    done = subprocess.run([sys.executable, "-c", FINGERPRINTS], cwd=ROOT, env=env, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    found = {words[0]: words[1:] for words in map(str.split, done.stdout.splitlines())}
    assert set(found) == {"jit", "pmap", "shard_map", "fsdp"} and len(set(found["jit"])) == 8
    assert all(values == found["jit"] for values in found.values()), found

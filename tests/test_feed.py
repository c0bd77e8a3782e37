"""The feed: the same batches on the device and streamed, from any step, for any share of the devices."""

from __future__ import annotations

import threading

import jax
import numpy as np
import pytest

from tests.data_toys import section
from vaeflow.data import feed as feed_module
from vaeflow.data import indices, make_feed, select
from vaeflow.data.source import Split
from vaeflow.errors import UserError

N, BATCH, STEPS = 23, 4, 40
CONTEXT = np.arange(N, dtype=np.float32)[:, None]
SPLIT = Split(np.random.default_rng(0).integers(0, 256, (N, 2, 3), dtype=np.uint8), CONTEXT)
ROWS = np.arange(N, dtype=np.float32)[:, None]
PAIRS = Split(ROWS, x0=ROWS, mask=np.ones((N, 1), bool))
TAKE = jax.jit(select)


def make(place, slots=None, split=SPLIT, capacity=8, **values):
    data = section(kind="digits", batch=BATCH, place=place, **values)
    return make_feed(split, data, 1, steps=STEPS, capacity=capacity, slots=slots)


def batches(feed, step, count):
    """The batches of steps step .. step + count - 1, as the training loop takes them."""
    out = []
    while count:
        now = min(count, feed.capacity)
        chunk = feed.chunk(step, now)
        out += [jax.tree.map(np.asarray, TAKE(feed.arrays, chunk, i)) for i in range(now)]
        step, count = step + now, count - now
    return out


def assert_same(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert set(a) == set(b) == {"x", "context"}
        for name in a:
            assert a[name].dtype == b[name].dtype
            np.testing.assert_array_equal(a[name], b[name])


def test_every_epoch_is_a_permutation_of_its_own():
    rows = indices(3, 0, 30, N, BATCH)
    assert rows.dtype == np.int32 and rows.shape == (30, BATCH)
    epochs = rows.reshape(6, -1)  # 5 steps of 4 rows; the last 3 rows of each permutation are left out
    assert all(len(set(e)) == 20 and e.min() >= 0 and e.max() < N for e in epochs)
    assert len({tuple(e) for e in epochs}) == 6
    assert set(indices(3, 0, 200, N, BATCH).ravel()) == set(range(N))


def test_rows_depend_on_seed_and_step_alone():
    rows = indices(3, 0, 30, N, BATCH)
    for step, count in ((0, 7), (4, 2), (13, 17), (29, 1)):
        np.testing.assert_array_equal(indices(3, step, count, N, BATCH), rows[step : step + count])
    assert not np.array_equal(indices(4, 0, 30, N, BATCH), rows)
    np.testing.assert_array_equal(np.sort(indices(0, 7, 1, 4, 4)[0]), np.arange(4))  # one batch is the whole data
    with pytest.raises(UserError, match=r"data\.batch=5 is larger than the training split, which has 4 examples"):
        indices(0, 0, 1, 4, 5)


def test_the_permutations_never_change():
    """A run that is resumed with another version of this code sees the same batches."""
    first = np.random.default_rng((0xFEED, 3, 1)).permutation(N)[:BATCH]
    np.testing.assert_array_equal(indices(3, N // BATCH, 1, N, BATCH)[0], first)
    assert indices(1, 0, 2, N, BATCH).tolist() == [[19, 12, 7, 5], [17, 4, 6, 20]]
    with make("device") as plain, make("device", split=PAIRS) as pairs:
        for feed in (plain, pairs):  # the pairing "rows" adds nothing to a chunk
            chunk = feed.chunk(3, 8)
            assert list(chunk) == ["x"]
            np.testing.assert_array_equal(chunk["x"], indices(1, 3, 8, N, BATCH))


@pytest.mark.parametrize("place", ["device", "stream"])
def test_rows_of_pairs_stay_together(place):
    with make(place, split=PAIRS) as feed:
        for batch in batches(feed, 0, STEPS):
            np.testing.assert_array_equal(batch["x0"], batch["x"])


@pytest.mark.parametrize("place", ["device", "stream"])
def test_shuffled_pairs_are_independent(place):
    with make(place, split=PAIRS, pairing="shuffle") as feed, make("device") as plain:
        found = batches(feed, 0, STEPS)
        x, x0 = (np.stack([batch[name] for batch in found])[..., 0] for name in ("x", "x0"))
        np.testing.assert_array_equal(x, np.stack([batch["context"] for batch in batches(plain, 0, STEPS)])[..., 0])  # x as without x0
        np.testing.assert_array_equal(x0, indices(1, 0, STEPS, N, BATCH, "x0"))
        assert all(len(set(epoch)) == 20 for epoch in x0.reshape(8, 20))  # each epoch is a permutation
        assert 1 <= (x == x0).sum() <= 20  # 7 of 160 are expected by chance
        for step, count in ((13, 9), (2, 5)):
            for one, other in zip(found[step : step + count], batches(feed, step, count), strict=True):
                np.testing.assert_array_equal(one["x0"], other["x0"])
        with make(place, np.array([[0, 1], [2, 3]]), split=PAIRS, pairing="shuffle") as two:
            chunk = two.chunk(5, 6)
            for device in range(2):
                local = jax.tree.map(lambda a, d=device: a[d], chunk)
                taken = [TAKE(two.arrays, local, i) for i in range(6)]
                rows = slice(2 * device, 2 * device + 2)
                for name, want in (("x", x), ("x0", x0)):
                    np.testing.assert_array_equal(np.stack([batch[name] for batch in taken])[..., 0], want[5:11, rows])


@pytest.mark.parametrize("workers", [0, 2])
def test_streamed_and_resident_batches_are_the_same(workers):
    with make("device") as resident, make("stream", workers=workers, prefetch=3) as streamed:
        assert resident.arrays is not None and streamed.arrays is None
        want = batches(resident, 0, STEPS)
        assert_same(want, batches(streamed, 0, STEPS))
        np.testing.assert_array_equal(want[0]["x"], SPLIT.x[indices(1, 0, 1, N, BATCH)[0]])
        np.testing.assert_array_equal(want[7]["context"][:, 0], indices(1, 7, 1, N, BATCH)[0])


def test_a_feed_starts_at_any_step_and_goes_back():
    with make("device") as resident, make("stream") as streamed:
        want = batches(resident, 0, STEPS)
        for step, count in ((13, 9), (22, 3), (2, 5), (STEPS - 1, 1)):  # resumed in an epoch, going on, going back, the last step
            assert_same(want[step : step + count], batches(streamed, step, count))
            assert_same(want[step : step + count], batches(resident, step, count))


def test_room_that_is_not_used_is_zero_and_chunks_are_new_arrays():
    for place in ("device", "stream"):
        with make(place) as feed:
            first = feed.chunk(0, 3)
            kept = jax.tree.map(np.copy, first)
            feed.chunk(3, 8)
            for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(kept), strict=True):
                assert a.shape[:2] == (8, BATCH) and not a[3:].any()
                np.testing.assert_array_equal(a, b)  # the device may still be reading it
            with pytest.raises(ValueError, match="in a chunk of 8"):
                feed.chunk(0, 9)


@pytest.mark.parametrize("place", ["device", "stream"])
def test_a_process_gets_its_slots_of_the_global_batch(place):
    with make("device") as whole, make(place, np.array([[0, 1], [2, 3]])) as two, make(place, np.array([[2, 3]])) as second:
        chunk, part = two.chunk(5, 6), second.chunk(5, 6)
        want = batches(whole, 5, 6)
        for device in range(2):
            local = jax.tree.map(lambda a, d=device: a[d], chunk)
            rows = slice(2 * device, 2 * device + 2)
            assert_same([{k: v[rows] for k, v in b.items()} for b in want], [TAKE(two.arrays, local, i) for i in range(6)])
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[1:], b), chunk, part)  # the other process


def test_auto_streams_what_is_too_large_and_bounds_the_chunks(monkeypatch, tmp_path):
    assert make("auto").arrays is not None and make("auto", capacity=10**6).capacity == STEPS
    size = SPLIT.x.nbytes + CONTEXT.nbytes
    monkeypatch.setattr(feed_module, "RESIDENT_BYTES", size - 1)
    monkeypatch.setattr(feed_module, "CHUNK_BYTES", 3 * BATCH * size // N)
    np.save(tmp_path / "x.npy", SPLIT.x)
    split = SPLIT._replace(x=np.load(tmp_path / "x.npy", mmap_mode="r"))
    with make("auto", split=split) as feed, make("device") as resident:
        assert feed.arrays is None and feed.capacity == 3
        assert_same(batches(resident, 0, 7), batches(feed, 0, 7))
    monkeypatch.setattr(feed_module, "CHUNK_BYTES", 1)
    assert make("stream").capacity == 1


def test_closing_ends_the_threads():
    def threads():  # other tests' threads may end at any moment: only the ones that this feed starts are counted
        return {t for t in threading.enumerate() if t.name.startswith("grain-prefetch") and t.is_alive()}

    before = threads()
    feed = make("stream", workers=2, prefetch=4)
    batches(feed, 0, 10)
    started = threads() - before
    assert started
    feed.close()
    for thread in started:
        thread.join(30)
    assert not any(t.is_alive() for t in started)
    assert_same(batches(make("device"), 3, 2), batches(feed, 3, 2))  # and it can start again
    feed.close()


def test_a_batch_without_context_has_none():
    with make("stream", split=SPLIT._replace(context=None)) as feed:
        assert set(feed.chunk(0, 2)) == {"x"}
    with make("device", split=SPLIT._replace(context=None)) as feed:
        assert set(TAKE(feed.arrays, feed.chunk(0, 2), 1)) == {"x"}

"""Labels from latents, and telling another set from the data, on sets where the answers are known."""

from __future__ import annotations

import distrax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tests import toys
from tests.data_toys import images, write_tfds
from tests.diagnose_toys import number, run
from vaeflow.data import Split
from vaeflow.errors import UserError
from vaeflow.evaluation.measures import anomaly, probes
from vaeflow.evaluation.measures.others import MADE, other, regrey, resized
from vaeflow.model import Latent

# The encoder of toys.linear_gaussian sees x along SEEN alone.
SEEN = toys.W[:, 0] / np.linalg.norm(toys.W[:, 0])
HIDDEN = np.array([2.0, 0.0, -1.0], np.float32) / np.sqrt(5)


def clusters(n: int, direction: np.ndarray, seed: int) -> Split:
    """Three classes 20 apart along `direction`, noise of standard deviation 1 in every other."""
    rng = np.random.default_rng(seed)
    label = np.arange(n) % 3
    return Split((rng.normal(size=(n, 3)) + 20 * (label[:, None] - 1) * direction).astype(np.float32), None, label.astype(np.int32))


@pytest.mark.parametrize("direction, right", [(SEEN, True), (HIDDEN, False)])
def test_probes_find_the_classes_that_the_encoder_keeps(direction, right):
    n, settings = 150, probes.ProbesSettings()
    toy = run(toys.linear_gaussian(), clusters(n, direction, 0), clusters(300, direction, 1))
    probes.needs(toy, settings)
    found = probes.check(toy, settings)
    assert found["linear_x"].value == found["knn_x"].value == 1 and found["linear_x"].se == 0
    assert found["largest_class"].value == pytest.approx(1 / 3)
    for probe in ("linear_latents", "knn_latents"):
        p, se = found[probe].value, found[probe].se
        assert p == 1 if right else abs(p - 1 / 3) < 4 * np.sqrt(2 / 9 / n)
        assert se == pytest.approx(np.sqrt(p * (1 - p) / n))
    assert "learnt from 300, tried on 150" in found["linear_latents"].what


def test_probes_need_labels_a_latent_and_other_examples():
    few = clusters(9, SEEN, 0)
    model, settings = toys.linear_gaussian(), probes.ProbesSettings(neighbours=5)
    for toy, message in (
        (run(model, few._replace(label=None)), "has no labels"),
        (run(toys.gaussian_flow(), few), "has no latent"),
        (run(model, few, name="train"), "--split: val or test"),
    ):
        with pytest.raises(UserError, match=message):
            probes.needs(toy, settings)
    codes = Latent(lambda *_: None, lambda params, x, context=None: distrax.Categorical(logits=x), lambda *_: None)
    with pytest.raises(UserError, match=r"codes .int32., which have no mean"):
        probes.needs(run(toys.model(None, "none", codes), few), settings)
    with pytest.raises(UserError, match=r"probes\.neighbours=10 is more than"):
        probes.needs(run(model, few), probes.ProbesSettings())
    missing = few._replace(label=np.array([-1, 0, 1] * 3, np.int32))
    assert probes.labelled(missing).x.shape == (6, 3)


def test_auroc_against_scikit_learn_and_by_hand():
    inside, outside = np.array([0.0, 1, 1, 2, 5]), np.array([1.0, 3, 2])
    assert anomaly.auroc(inside, outside)[0] == pytest.approx((2 + 4 + 3.5) / 15)
    truth = roc_auc_score([0] * 5 + [1] * 3, np.concatenate([inside, outside]))
    assert anomaly.auroc(inside, outside)[0] == pytest.approx(truth)
    assert anomaly.auroc(np.zeros(4), np.ones(6)) == (1, 0) and anomaly.auroc(np.ones(4), np.zeros(6)) == (0, 0)


def test_the_standard_error_of_auroc_is_its_spread():
    rng = np.random.default_rng(0)
    values, errors = np.transpose([anomaly.auroc(rng.normal(size=40), 1 + rng.normal(size=25)) for _ in range(2000)])
    assert np.sqrt((errors**2).mean()) == pytest.approx(values.std(), rel=0.06)


def test_scores_of_a_density_and_of_a_vae(tmp_path):
    flow = run(toys.gaussian_flow(1.0), toys.split(200, (2,)))
    found = anomaly.check(flow, anomaly.AnomalySettings("noise"))
    assert set(found) == {"auroc_nll", "nll", "nll_other"} and "exact" in found["auroc_nll"].what
    value, se = number(found["auroc_nll"])
    assert value > 0.5 + 4 * se and found["nll_other"].value > found["nll"].value
    np.savez(tmp_path / "same.npz", x=np.random.default_rng(1).normal(size=(300, 2)))
    value, se = number(anomaly.check(flow, anomaly.AnomalySettings(str(tmp_path / "same.npz")))["auroc_nll"])
    assert abs(value - 0.5) < 4 * se
    vae = run(toys.linear_gaussian(), Split((toys.split(100).x[:, :1] @ toys.W[:, :1].T).astype(np.float32)))
    np.savez(tmp_path / "off.npz", 5 * np.repeat([[1], [-1]], 25, axis=0) * HIDDEN)
    off = anomaly.check(vae, anomaly.AnomalySettings(str(tmp_path / "off.npz"), k=10))
    assert off["auroc_recon_mse"].value > 0.95 and off["auroc_nll"].value > 0.95 and off["auroc_neg_elbo"].value > 0.95
    assert "50 examples" in off["auroc_nll"].what and "IWAE-10" in off["auroc_nll"].what
    with pytest.raises(UserError, match="no density, no energy and no reconstructions"):
        anomaly.needs(run(toys.model(None, "none"), toys.split(5)), anomaly.AnomalySettings())


def test_made_sets_keep_the_shape_and_the_grey_values():
    split = Split(images(20, (4, 6, 3), top=17))
    toy = run(toys.linear_gaussian(event=(4, 6, 3)), split, levels=17)
    made = {name: other(toy, name).x for name in MADE}
    for name, x in made.items():
        assert x.shape == split.x.shape and x.dtype == split.x.dtype and x.max() <= 16, name
        assert np.array_equal(x, other(toy, name).x)
        assert not np.array_equal(x, split.x)
    np.testing.assert_array_equal(made["inverted"], 16 - split.x)
    np.testing.assert_array_equal(made["flipped"], split.x[:, :, ::-1])

    def pixels(x):
        return [sorted(map(tuple, image.reshape(-1, 3).tolist())) for image in x]

    assert pixels(made["shuffled"]) == pixels(split.x)
    table = run(toys.linear_gaussian(), toys.split(500))
    noise, x = other(table, "noise").x, table.split.x
    assert (noise >= x.min(0)).all() and (noise <= x.max(0)).all() and abs(noise.mean() - (x.min(0) + x.max(0)).mean() / 2) < 0.2
    for name, message in (("inverted", "needs grey values"), ("flipped", "needs images"), ("nois", "did you mean 'noise'")):
        with pytest.raises(UserError, match=message):
            other(table, name)


def test_a_stored_image_set_is_brought_to_the_shape_of_the_runs(tmp_path):
    stored = images(12, (8, 8, 3))
    write_tfds(tmp_path, "colours", {"test": stored})
    toy = run(
        toys.linear_gaussian(event=(4, 4, 1)), Split(images(5, (4, 4, 1), top=17)), levels=17, dir=str(tmp_path), cache_dir=str(tmp_path)
    )
    found = other(toy, "colours").x
    assert found.shape == (5, 4, 4, 1) and found.max() <= 16
    grey = stored[0] @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(found[0, ..., 0], grey.reshape(4, 2, 4, 2).mean((1, 3)) * 16 / 255, atol=0.6)
    with pytest.raises(UserError, match=r"anomaly\.against='colour'.*colours"):
        other(toy, "colour")


def test_resizing_takes_means_of_areas():
    x = images(3, (6, 6, 1))
    np.testing.assert_allclose(resized(x, (2, 3, 1))[..., 0], x.reshape(3, 2, 3, 3, 2).mean((2, 4)), atol=1)  # rounded along each axis
    assert resized(x, (6, 6, 3)).shape == (3, 6, 6, 3)
    assert regrey(np.array([0, 255, 128]), 17, "none").tolist() == [0, 16, 8]
    assert regrey(np.array([0, 127, 128, 255]), 2, "none").tolist() == [0, 0, 1, 1]
    with pytest.raises(UserError, match="continuous"):
        regrey(x, 0, "none")


@pytest.mark.parametrize(
    "arrays, message",
    [
        (dict(a=np.zeros((3, 2)), b=np.zeros(3)), "known: a, b"),
        (dict(x=np.zeros((3, 5))), "of the shape .3,."),
        (dict(x=np.full((3, 3), np.nan)), "finite"),
        (dict(x=np.full((3, 3), 0.5)), "grey values 0 to 16"),
        (dict(x=np.full((3, 3), 17)), "it has 17 to 17"),
    ],
)
def test_a_file_must_hold_what_the_model_reads(tmp_path, arrays, message):
    np.savez(tmp_path / "set.npz", **arrays)
    toy = run(toys.linear_gaussian(), Split(images(5, (3,), top=17)), levels=17)
    with pytest.raises(UserError, match=message):
        other(toy, str(tmp_path / "set.npz"))
    with pytest.raises(UserError, match="cannot be read"):
        other(toy, str(tmp_path / "none.npz"))


def test_contexts_go_with_the_other_set():
    context = np.arange(10, dtype=np.float32)[:, None]
    toy = run(toys.linear_gaussian(), toys.split(10)._replace(context=context))
    found = other(toy, "noise").context
    assert found is not None and jnp.array_equal(found, context)

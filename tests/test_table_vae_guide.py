"""configs/table_vae_guide.py has the protocol of the guide's author: warm-up of the rate, decay, batch, initialisation, std."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import table_vae_guide
from vaeflow import models
from vaeflow.build import call
from vaeflow.config import plain
from vaeflow.training import optimizer
from vaeflow.training.configure import complete

ROWS = sorted(table_vae_guide.PUBLISHED)


@pytest.mark.parametrize("row", ROWS)
def test_a_row_has_the_authors_protocol(row):
    c = complete(table_vae_guide.get_config(f"{row},paper"))
    section, steps = call(optimizer.OptimConfig, plain(c.optim), "optim"), c.train.steps
    rate = optimizer.schedule(section, steps)
    warm = [min(1.0, (t + 1) / 600) if "warm" in row else 1.0 for t in (0, 299, 599, 600, steps - 1)]
    np.testing.assert_allclose([rate(t) for t in (0, 299, 599, 600, steps - 1)], 1e-3 * np.array(warm), rtol=1e-6)
    assert c.model.objective == "elbo" and c.parts.elbo.to_dict() == {"kind": "elbo", "k": 1, "beta": 1.0, "kl": "auto"}
    batch, decay = (128, 1e-4) if row.startswith("ablation") else (100, 0.01)
    assert (c.data.batch, section.weight_decay, section.decay_on, section.name) == (batch, decay, "all", "adamw")
    assert (section.ema, section.clip, section.b1, section.b2, section.eps) == (0.0, 0.0, 0.9, 0.999, 1e-8)
    assert steps == 150 * (60_000 // batch)


def test_the_network_starts_as_pytorchs_does():
    """Kernels and biases uniform on (-1, 1) / sqrt(fan in), and the standard deviations of `bounded` near 5."""
    c = complete(table_vae_guide.get_config("bounded_2,paper"))
    model = models.build_model(models.with_data(c.to_dict(), {"event": (28, 28, 1), "levels": 256}))
    x = jnp.full((4, 28, 28, 1), 128, jnp.uint8)
    params = model.init(jax.random.key(0), {"x": x})
    for net, fans in (("encoder", {"dense_0": 784, "head": 512}), ("decoder", {"dense_0": 2, "head": 512})):
        for name, fan in fans.items():
            for leaf in ("kernel", "bias"):
                values = np.asarray(params[net][name][leaf]) * np.sqrt(fan)
                assert np.abs(values).max() <= 1.0 + 1e-6
                if values.size > 500:  # a uniform's standard deviation
                    np.testing.assert_allclose(values.std(), 3**-0.5, rtol=0.05)
                    assert np.abs(values).max() > 0.98
    std = model.latent.posterior(params, x).stddev()
    np.testing.assert_allclose(std, 5.0, atol=1.5)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 807_700  # as published

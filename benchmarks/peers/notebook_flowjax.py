"""The same flow in FlowJAX, in its own environment: `fit FILE STEPS SEED ...` (notebook_work.py). Counted: from begin to end.

fit_to_data draws its own validation split, here of as many rows, from the same training and validation rows.
"""
# pyright: reportMissingImports=false
# No requirement of vaeflow: the environment that pyright looks into does not have this library.

from __future__ import annotations

import numpy as np

from benchmarks.peers import notebook_work


def fit(x_train, x_val, x_test, *, steps, seed):
    """log p(x_test) [N] in nats."""
    # begin
    import jax
    from flowjax.bijections import RationalQuadraticSpline
    from flowjax.distributions import StandardNormal
    from flowjax.flows import coupling_flow
    from flowjax.train import fit_to_data

    mean, std = x_train.mean(0), x_train.std(0)
    x = (np.concatenate([x_train, x_val]) - mean) / std
    key, init_key = jax.random.split(jax.random.key(seed))
    spline = RationalQuadraticSpline(knots=7, interval=4)
    base = StandardNormal(x.shape[1:])
    flow = coupling_flow(init_key, base_dist=base, transformer=spline, flow_layers=4, nn_width=64, nn_depth=2)
    batch = min(256, len(x_train))
    epochs = steps // (len(x_train) // batch)
    options = dict(learning_rate=1e-3, batch_size=batch, max_epochs=epochs, max_patience=epochs // 4, show_progress=False)
    flow, _ = fit_to_data(key, flow, x, val_prop=len(x_val) / len(x), **options)
    log_prob = flow.log_prob((x_test - mean) / std) - np.log(std).sum()
    # end
    return log_prob


if __name__ == "__main__":
    notebook_work.serve(fit, ("flowjax", "jax"))

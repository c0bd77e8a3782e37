"""A neural spline flow of an array in vaeflow: `fit FILE STEPS SEED ...` (notebook_work.py). Counted: from begin to end."""

from __future__ import annotations

from benchmarks.peers import notebook_work


def fit(x_train, x_val, x_test, *, steps, seed):
    """log p(x_test) [N] in nats."""
    # begin
    import vaeflow as vf

    flow = vf.flows.nsf(event=x_train.shape[1:], layers=4, bins=8, hidden=(64, 64))
    run = vf.fit(flow, x_train, val=x_val, steps=steps, batch=min(256, len(x_train)), optimizer=1e-3, seed=seed)
    log_prob = run.log_prob(x_test)
    # end
    return log_prob


if __name__ == "__main__":
    notebook_work.serve(fit, ("jax",))

"""The same flow in zuko, in its own environment: `fit FILE STEPS SEED ...` (notebook_work.py). Counted: from begin to end."""
# pyright: reportMissingImports=false
# No requirement of vaeflow: the environment that pyright looks into does not have this library.

from __future__ import annotations

import numpy as np

from benchmarks.peers import notebook_work


def fit(x_train, x_val, x_test, *, steps, seed):
    """log p(x_test) [N] in nats."""
    # begin
    import copy

    import torch
    import zuko

    torch.manual_seed(seed)
    mean, std = x_train.mean(0), x_train.std(0)
    train, val, test = (torch.from_numpy((x - mean) / std).float() for x in (x_train, x_val, x_test))
    flow = zuko.flows.NSF(train.shape[1], bins=8, transforms=4, hidden_features=(64, 64), passes=2)
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-3)
    loader = torch.utils.data.DataLoader(train, batch_size=min(256, len(train)), shuffle=True, drop_last=True)
    step, best, best_flow, worse = 0, float("inf"), flow, 0
    while step < steps and worse < 5:
        for x in loader:
            optimizer.zero_grad()
            loss = -flow().log_prob(x).mean()
            loss.backward()
            optimizer.step()
            step += 1
            if step % max(1, steps // 20) == 0:
                with torch.no_grad():
                    loss = -flow().log_prob(val).mean().item()
                worse = 0 if loss < best else worse + 1
                if loss < best:
                    best, best_flow = loss, copy.deepcopy(flow)
            if step == steps or worse == 5:
                break
    with torch.no_grad():
        log_prob = best_flow().log_prob(test).numpy() - np.log(std).sum()
    # end
    return log_prob


if __name__ == "__main__":
    notebook_work.serve(fit, ("zuko", "torch"))

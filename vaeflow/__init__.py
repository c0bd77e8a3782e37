"""vaeflow: variational autoencoders, normalizing flows and continuous-time generative models in JAX.

    import vaeflow as vf
    run = vf.fit(vf.flows.nsf(event=(2,)), x)              # x [N, 2]: numpy, pandas, torch, ...
    run.log_prob(x_test), run.sample(1_000), run.evaluate(x_test), run.plot()
    run = vf.load("runs/digits_vae")                       # a run of the command line

    fit, load, Run      train a model on arrays; read a run back; what both return
    flows               premade models: nsf, maf, realnvp, glow, vae, flow_matching, ...
    flow, chain, repeat, inverse   a flow of layers of your own choice, from vaeflow.bijectors and vaeflow.nets
    split, merge        parameters for a training loop of your own

`python -m experiments.train --help` is the command line. Importing the package imports neither jax nor anything slow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vaeflow import bijectors, data, flows, nets
    from vaeflow.bijectors import chain, inverse, repeat
    from vaeflow.errors import UserError
    from vaeflow.models.flow import flow
    from vaeflow.notebook import Run, fit, load, merge, split

__version__ = "0.1.0"
__all__ = [
    "Run",
    "UserError",
    "__version__",
    "bijectors",
    "chain",
    "data",
    "fit",
    "flow",
    "flows",
    "inverse",
    "load",
    "merge",
    "nets",
    "repeat",
    "split",
]

# Where the public names are made; "": a module of the package.
_HOME = {
    **dict.fromkeys(("Run", "fit", "load", "merge", "split"), "vaeflow.notebook"),
    **dict.fromkeys(("chain", "inverse", "repeat"), "vaeflow.bijectors"),
    **{"flow": "vaeflow.models.flow", "UserError": "vaeflow.errors"},
    **dict.fromkeys(("bijectors", "data", "flows", "nets"), ""),
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'vaeflow' has no attribute {name!r}; public names: {', '.join(__all__)}")
    home = _HOME[name]
    return getattr(importlib.import_module(home), name) if home else importlib.import_module(f"vaeflow.{name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

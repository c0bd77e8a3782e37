"""vaeflow in a notebook: `fit` trains a model on arrays, `load` reads a run back; both return a `Run`.

    import vaeflow as vf
    run = vf.fit(vf.flows.nsf(event=(2,)), x)
    run.log_prob(x_test), run.sample(1_000), run.evaluate(x_test), run.plot()

A fit is a run like those of the command line: the same step, feed, recorder and files. Without `workdir` its folder is temporary and is
deleted with the Run; `Run.save` keeps it.
"""

from __future__ import annotations

from vaeflow.notebook.fit import fit, load, merge, split
from vaeflow.notebook.run import Run

__all__ = ["Run", "fit", "load", "merge", "split"]

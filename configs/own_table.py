"""A spline flow on your own table: a CSV file, or an npz file (row `npz`), or with --config.data.kind a Parquet, npy or HDF5 file.

    python -m experiments.train --config=configs/own_table.py --config.data.path=FILE.csv --config.model.event=6 --workdir=runs/own

Integers of an npz file, 0 to 16 say, need --config.data.levels=17 --config.model.levels=17 --config.model.dequantize=uniform.
An npz file may also have the arrays x0 (the other half of pairs) and mask (True where an entry was observed), see vaeflow/data/tables.py.
data.label names a column that is no number of the density (with data.context=label the flow is conditioned on it). The splits are by a
fixed seed: data.val_fraction and data.test_fraction. ActNorm standardises the columns. Number reached, time: yours.
"""

from ml_collections import ConfigDict

from configs.base import base, mlp, repeat, spline

ROWS = {
    "": "RQ-NSF on the columns of a CSV file (data.kind=csv)",
    "npz": "RQ-NSF on the array x, or train/val/test, of an npz file (data.kind=npz)",
}


def get_config(row: str = "") -> ConfigDict:
    c = base()
    c.data.update(kind=row or "csv", batch=256)
    c.model = dict(kind="flow", layer="flow")
    c.parts = dict(
        flow=dict(kind="chain", of=("norm", "steps")),
        norm=dict(kind="actnorm"),
        steps=repeat("step", 5),
        step=dict(kind="chain", of=("linear", "coupling")),
        linear=dict(kind="lu_linear"),
        coupling=spline("net", "half", False),
        net=mlp(128, 128),
    )
    c.optim.update(learning_rate=5e-4, clip=5.0, schedule="cosine")
    c.train.update(steps=10_000, eval_every=500, checkpoint_every=1000, patience=5)
    return c

"""Parallel WaveNet's distillation on the 8x8 digits as vectors of 64: a MAF teacher learns the data, an IAF student learns the MAF.

    python -m experiments.train --config=configs/digits_distill.py:teacher --workdir=runs/teacher
    python -m experiments.train --config=configs/digits_distill.py:student --workdir=runs/student --config.model.teacher=runs/teacher
    python -m benchmarks.distill --workdir=runs/student

The teacher is trained by maximum likelihood and samples one pixel after another; the student is trained by KL(student || teacher) on
its own samples, which it makes in one pass, and `best` is chosen by the same KL. Of the data it sees the scale that its ActNorm starts
with and nothing else; its NLL on them is reported beside the KL.
Expected (seed 0, 300 test images): teacher NLL (IWAE-100) 94.86 nats, student 97.96, KL(student || teacher) 2.19 +- 0.04 nats; 13 and 215 s
of training on one busy CPU core. Sampling speed: results/speed_distill.md.
"""

from ml_collections import ConfigDict

from configs.base import base, made, repeat

ROWS = {
    "teacher": "MAF: 4 affine autoregressive layers, natural and reversed order in turn",
    "student": "IAF: 8 inverted MAF layers, distilled from the teacher (needs --config.model.teacher)",
}


def get_config(row: str = "teacher") -> ConfigDict:
    c = base()
    c.data.update(kind="digits", batch=64)
    c.model = dict(kind="flow", layer="flow")
    c.parts = dict(
        flow=dict(kind="chain", of=("grey", "logit", "norm", "steps")),
        grey=dict(kind="scale", factor=17.0),
        logit=dict(kind="logit"),
        norm=dict(kind="actnorm"),
        steps=repeat("step", 2),
        step=dict(kind="chain", of=("first", "second")),
    )
    for part, order in (("first", "natural"), ("second", "reverse")):
        c.parts[part] = dict(kind="affine_autoregressive", made=f"made_{part}")
        c.parts[f"made_{part}"] = made(128, 128, order=order)
    c.optim.update(learning_rate=1e-3, clip=5.0, schedule="cosine")
    c.train.update(steps=3000, eval_every=100, checkpoint_every=500, patience=8)
    c.eval.update(k=100, chunk=20)
    if row == "student":
        teacher = "configs/digits_distill.py:teacher"
        c.model = dict(kind="distill", teacher=teacher, layer="student", base="normal")
        c.parts.student = dict(kind="chain", of=("grey", "logit", "norm", "inverted"))
        c.parts.inverted = dict(kind="inverse", of="student_steps")
        c.parts.student_steps = repeat("step", 4)
        c.data.batch = 128
        c.train.update(steps=10_000, eval_every=500, checkpoint_every=1000, patience=0)
    return c

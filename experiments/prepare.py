"""Prepare a TensorFlow Datasets image set for reading without TensorFlow: download it once, store it as array_record."""

from __future__ import annotations

from experiments.flags import parser
from experiments.main import run

EXAMPLES = """\
  python -m experiments.prepare --dataset=mnist --data_dir=data
  python -m experiments.prepare --dataset=binarized_mnist --data_dir=data
  python -m experiments.prepare --dataset=cifar10 --data_dir=data
This command alone needs the network and TensorFlow (pip install tensorflow importlib_resources). Afterwards train with
--config.data.dir=data."""


def main(argv: list[str]) -> None:
    p = parser(__doc__, EXAMPLES)
    p.add_argument("--dataset", required=True, help="name in the catalogue, or name/config: https://www.tensorflow.org/datasets/catalog")
    p.add_argument("--data_dir", required=True, help="where the prepared sets lie; made when it is not there")
    flags = p.parse(argv)
    from vaeflow.data.prepared import prepare

    folder, before = prepare(flags.dataset, flags.data_dir)
    print(f"{flags.dataset} {'was prepared before' if before else 'is prepared'} in {folder}")


if __name__ == "__main__":
    run(main)

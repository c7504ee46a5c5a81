"""Compress a text classifier inside ``transformers.Trainer`` with straight-through factorization.

    python examples/compress_classifier.py classifier/ texts.csv -o lean/

``classifier/`` is a folder that ``AutoModelForSequenceClassification`` loads, ``texts.csv`` has the columns
``text`` and ``label`` (a name of the classifier's ``label2id``). The last fifth of the rows is held out. The
command ``leanmatch compress --task classify`` does the same and plans the layers by itself.
"""

from __future__ import annotations

import argparse
import copy
import csv

import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

import leanmatch
from leanmatch.compression import (
    STF,
    DenseSparseSpec,
    DistillationStrengths,
    Distilled,
    RoundingSpec,
    StateCheckpoints,
    default_spec,
    factorize,
    finalize,
    model_cost,
)
from leanmatch.formats import save_compressed


class CompressingTrainer(StateCheckpoints, Trainer):
    """Its checkpoints hold compressed layers, so that a run can be resumed."""


def accuracy(model, tokenizer, texts: list[str], labels: list[int]) -> float:
    right = 0
    model.eval()
    for start in range(0, len(texts), 64):
        batch = tokenizer(texts[start : start + 64], padding=True, truncation=True, return_tensors="pt")
        with torch.no_grad():
            found = model(**batch).logits.argmax(dim=1)
        right += int((found == torch.tensor(labels[start : start + 64])).sum())
    return right / len(texts)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("classifier")
    parser.add_argument("texts")
    parser.add_argument("--block", type=int, default=32, help="columns a block; must divide all layers")
    parser.add_argument("--atoms", type=int, default=64)
    parser.add_argument("--nonzeros", type=int, default=6, help="a row and block")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("-o", "--output", default="lean")
    options = parser.parse_args(arguments)

    tokenizer = AutoTokenizer.from_pretrained(options.classifier)
    dense = AutoModelForSequenceClassification.from_pretrained(options.classifier).eval()
    with open(options.texts, encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    texts = [row["text"] for row in rows]
    labels = [int(dense.config.label2id[row["label"]]) for row in rows]
    held_out = len(rows) * 4 // 5
    train = [
        {**tokenizer(text, truncation=True), "labels": label}
        for text, label in zip(texts[:held_out], labels[:held_out], strict=True)
    ]

    # Linear layers become codes times atoms; the embedding table is rounded to 8 bits.
    model = copy.deepcopy(dense)
    linear = DenseSparseSpec(block=options.block, atoms=options.atoms, nonzeros=options.nonzeros)
    spec = default_spec(model, linear, embeddings=RoundingSpec())
    factorize(model, spec, calibration_texts=texts[:held_out][:3000], tokenizer=tokenizer)

    stf = STF(model)  # learns where the nonzeros are
    trainer = CompressingTrainer(
        model=Distilled(model, dense, DistillationStrengths(task=0.5, logits=0.5)),
        args=TrainingArguments(
            output_dir=f"{options.output}-checkpoints",
            max_steps=options.steps,
            per_device_train_batch_size=32,
            learning_rate=5e-4,
            save_strategy="no",
            remove_unused_columns=False,
            report_to="none",
        ),
        train_dataset=train,
        data_collator=DataCollatorWithPadding(tokenizer),
        callbacks=[stf.callback()],
    )
    trainer.train()
    finalize(model)

    before, after = (
        accuracy(one.cpu(), tokenizer, texts[held_out:], labels[held_out:]) for one in (dense, model)
    )
    saved = save_compressed(
        model,
        options.output,
        {"base": options.classifier},
        tokenizer=tokenizer,
        spec=spec,
        quality={"metric": "accuracy", "dense": before, "compressed": after},
        overwrite=True,
    )
    print(f"accuracy {after:.3f} of {before:.3f} on {len(texts) - held_out} held-out texts")
    print(f"{saved.bytes:,} bytes; {model_cost(model).mac_ratio:.2f}x fewer multiply-adds")
    again = leanmatch.load(options.output, runtime="transformers", device="cpu")
    print(f"loaded again: accuracy {accuracy(again, tokenizer, texts[held_out:], labels[held_out:]):.3f}")


if __name__ == "__main__":
    main()

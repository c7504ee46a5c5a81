"""Processor time of the default of ``leanmatch train`` against plain fine-tuning, in turns.

    python research/default_cost.py --data FOLDER --model FOLDER --rounds 3

Both train on AskUbuntu for the same number of steps. The default is everything that ``fit`` does: the shifted
slice, both runs, and the choice among five shares on the validation slices; plain is one run.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from shift_settings import SOURCES

from leanmatch.data import split_pairs
from leanmatch.formats.reader import load_matcher
from leanmatch.runtime import TwinEncoders
from leanmatch.training import RegularizerOptions, ScheduleOptions, TrainOptions, fit
from leanmatch.training.selection.evaluator import encode_function


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    source = SOURCES["askubuntu"]
    split = split_pairs(source.table(arguments.data), source.split_options(0))
    schedule = ScheduleOptions(max_steps=arguments.steps, batch_size=arguments.batch, device="cpu")
    recipes = {
        "plain": TrainOptions(
            regularizer=RegularizerOptions(kind="none", weight=0.0), average=1.0, schedule=schedule
        ),
        "default": TrainOptions(schedule=schedule),
    }
    ratios = []
    for number in range(arguments.rounds):
        seconds = {}
        for name in list(recipes)[:: 1 if number % 2 == 0 else -1]:
            model = load_matcher(arguments.model, device="cpu")
            with tempfile.TemporaryDirectory() as folder:
                begun = time.process_time()
                fit(
                    model,
                    split.train,
                    split.valid,
                    recipes[name],
                    folder,
                    group_columns=[source.column],
                    encoder_of=TwinEncoders(encode_function, print),
                )
                seconds[name] = time.process_time() - begun
        ratios.append(seconds["default"] / seconds["plain"])
        runs = ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items())
        print(f"round {number + 1}: {runs}; {ratios[-1]:.2f} times plain", flush=True)
    print(f"median of {len(ratios)}: {statistics.median(ratios):.2f} times plain")


if __name__ == "__main__":
    main()

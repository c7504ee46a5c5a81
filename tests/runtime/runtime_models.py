"""Tiny random encoders of every architecture that the runtime runs, as sentence-transformers folders."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_bert import module

WORDS = ["usb", "dock", "hdmi", "cable", "camera", "lens", "mount", "drive", "how", "do", "on", "the", "red"]
SIZES = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 80,
    "max_position_embeddings": 80,
}
DISTIL = {"dim": 48, "n_layers": 2, "n_heads": 3, "hidden_dim": 80, "max_position_embeddings": 80}
TOKEN_IDS = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "mask_token_id": 4}
T5 = {"d_model": 48, "num_layers": 2, "num_heads": 3, "d_ff": 80, "d_kv": 10}
ARCHITECTURES = {
    "bert": ("Bert", SIZES),
    "distilbert": ("DistilBert", DISTIL),
    "roberta": ("Roberta", {**SIZES, "pad_token_id": 0}),
    "xlm-roberta": ("XLMRoberta", {**SIZES, "pad_token_id": 0}),
    "mpnet": ("MPNet", SIZES),
    "electra": ("Electra", {**SIZES, "embedding_size": 20}),
    "albert": ("Albert", {**SIZES, "embedding_size": 20, "num_hidden_layers": 3}),
    "modernbert": ("ModernBert", {**SIZES, "num_hidden_layers": 4, "local_attention": 8, **TOKEN_IDS}),
    "gte": ("Gte", {**SIZES, "pad_token_id": 0}),
    "nomic_bert": ("NomicBert", SIZES),
    "jina_embeddings_v3": ("JinaEmbeddingsV3", {**SIZES, "pad_token_id": 0}),
    "eurobert": ("EuroBert", {**SIZES, "num_key_value_heads": 1, "head_dim": 10, **TOKEN_IDS}),
    "t5": ("T5", T5),
    "mt5": ("MT5", T5),
}
"""Model type to the class in transformers and its sizes."""
CLASSES = {"t5": "T5EncoderModel", "mt5": "MT5EncoderModel"}

TEXTS = [
    "usb dock with two hdmi ports",
    "",
    "how do i mount a drive on the camera",
    "red",
    "😀 emoji and ünïcödé",
    "Ⓤnknown ⁂ signs [PAD] [MASK]",
    "the " * 200,
    "  leading and trailing  ",
    "usb dock with two hdmi ports",
    *(" ".join(WORDS[: 1 + i % len(WORDS)]) + f" {i}" for i in range(70)),
]


def make_tokenizer():
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [form for letter in "abcdefghijklmnopqrstuvwxyz0123456789" for form in (letter, f"##{letter}")]
    vocabulary = {token: row for row, token in enumerate([*special, *letters, *WORDS])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.add_special_tokens(special)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def build(
    folder: Path,
    kind: str = "bert",
    *,
    pooling: str | tuple[str, ...] = "mean",
    heads=(),
    tokens: int | None = 32,
    length: int = 60,
    side: str = "right",
    **options,
):
    """Save a random encoder; returns the live model.

    Args:
        tokens: ``max_seq_length``; ``length`` is the tokenizer's.
        side: where the tokenizer pads.
        options: of the configuration.
    """
    torch = pytest.importorskip("torch", reason="the train extra (torch) is not installed")
    pytest.importorskip("sentence_transformers", reason="the train extra is not installed")
    import transformers
    from sentence_transformers import SentenceTransformer

    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=make_tokenizer(), model_max_length=length, padding_side=side, **names
    )
    prefix, sizes = ARCHITECTURES[kind]
    torch.manual_seed(0)
    spread = {
        "initializer_factor" if kind in CLASSES else "initializer_range": 2.0 if kind in CLASSES else 0.2
    }
    config = getattr(transformers, f"{prefix}Config")(
        **{"vocab_size": len(tokenizer), **sizes, **spread, **options}
    )
    model = getattr(transformers, CLASSES.get(kind, f"{prefix}Model"))(config)
    for parameter in model.parameters():  # biases and LayerNorms too: zeros and ones would hide mistakes
        if parameter.ndim == 1:
            parameter.data += 0.3 * torch.randn(parameter.shape)
    source = folder / "source"
    model.save_pretrained(source)
    tokenizer.save_pretrained(source)
    width = getattr(config, "hidden_size", None) or config.dim
    modes = pooling if isinstance(pooling, str) else list(pooling)
    modules = [module("Transformer")(str(source), max_seq_length=tokens), module("Pooling")(width, modes)]
    made = SentenceTransformer(modules=[*modules, *heads], device="cpu")
    made.save(str(folder / "model"))
    return made


def build_static(folder: Path):
    """Save a random static embedding; returns the live model."""
    torch = pytest.importorskip("torch", reason="the train extra (torch) is not installed")
    pytest.importorskip("sentence_transformers", reason="the train extra is not installed")
    from sentence_transformers import SentenceTransformer

    torch.manual_seed(0)
    made = SentenceTransformer(
        modules=[module("StaticEmbedding")(make_tokenizer(), embedding_dim=24)], device="cpu"
    )
    made.save(str(folder / "model"))
    return made

"""Tokenizers of every kind give the ids of the Rust library in JavaScript, and the places of their tokens."""

from __future__ import annotations

import random
import unicodedata

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

TEXTS = (
    *("usb c dock with two hdmi ports", "docking station, type c", "Compute the Heaviside step function."),
    *("don't stop-it, 3.5 bar", "  leading spaces", "tabs\tand\nnewlines", "a b  c   d", "", " "),
    *(
        "日本語のテキスト",
        "\U0001f469\u200d\U0001f680 café naïve",
        "ΟΔΟΣ İstanbul",
        "supercalifragilistic",
        "½ ⅷ ﬁ",
    ),
    *("\u200bzero", "e\u0301clair", "[MASK] <s> </s>", "__init__ and _x9", "क्षि ไทย 한국어"),
)


def byte_pairs():
    """As RoBERTa and ModernBERT have it."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "</s>", "<mask>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(TEXTS, trainer)
    made.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0), add_prefix_space=False)
    return made


def unigram():
    """As XLM-RoBERTa and T5 have it, but for their table of characters."""
    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    made.train_from_iterator(TEXTS, trainer)
    ends = [("<s>", 0), ("</s>", 1)]
    made.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    return made


def word_pieces(pre_tokenizer):
    """As static encoders have it."""

    def make():
        made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        made.normalizer, made.pre_tokenizer = normalizers.Lowercase(), pre_tokenizer()
        trainer = trainers.WordPieceTrainer(
            vocab_size=300, special_tokens=["[UNK]", "[MASK]"], show_progress=False
        )
        made.train_from_iterator(TEXTS, trainer)
        return made

    return make


KINDS = {
    "byte pairs": byte_pairs,
    "unigram": unigram,
    "whitespace": word_pieces(pre_tokenizers.Whitespace),
    "whitespace split": word_pieces(pre_tokenizers.WhitespaceSplit),
    "bert": word_pieces(pre_tokenizers.BertPreTokenizer),
}


def trimmed(text, start, end):
    """A place without white space at its ends and marks at its end, which change nothing about its word."""
    while end > start and (text[end - 1].isspace() or unicodedata.combining(text[end - 1])):
        end -= 1
    while start < end and text[start].isspace():
        start += 1
    return (start, end) if start < end else None


def test_ids_and_places(site, node, tmp_path):
    draw = random.Random(5)
    given = [*TEXTS, *(" ".join(draw.sample(TEXTS, 3)) for _ in range(40))]
    jobs, expected = [], []
    for kind, make in KINDS.items():
        made = make()
        made.save(str(tmp_path / f"{kind}.json"))
        for side in ("right", "left"):
            made.enable_truncation(24, direction=side)
            expected.append(made.encode_batch(given))
            jobs.append({"file": str(tmp_path / f"{kind}.json"), "texts": given, "side": side})
    results = node(site, jobs, script="tokens.mjs")
    without = 0
    for job, encodings, texts in zip(jobs, expected, results, strict=True):
        assert len({tuple(encoding.ids) for encoding in encodings}) > 30
        for text, encoding, tokens in zip(given, encodings, texts, strict=True):
            assert tokens["ids"] == encoding.ids, (job["file"], text)
            if tokens["offsets"] is None:
                without += 1
                continue
            places = zip(encoding.offsets, tokens["offsets"], encoding.special_tokens_mask, strict=True)
            for ours, theirs, special in places:
                assert special or trimmed(text, *ours) == trimmed(text, *theirs), (job["file"], text)
    assert without < 0.15 * len(given) * len(jobs)

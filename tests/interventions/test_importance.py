"""Importance against a loop that reads as the definition, and against what must hold of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leanmatch.errors import DataError, ModelError, UsageError
from leanmatch.interventions import importance
from leanmatch.interventions.readers import TextReader, TokenReader
from leanmatch.models import Prompts

sys.path.insert(0, str(Path(__file__).parent))
import tiny_models as models
from slow_importance import slow_importance

TEXTS = st.lists(
    st.sampled_from(
        [
            "usb",
            "USB",
            "dock",
            "the",
            "cabled",
            "don't",
            "caf\u00e9",
            "\U0001f680",
            "3.5",
            "\u4e2d",
            "-",
        ]
    ),
    max_size=5,
).map(" ".join)
PAIRS = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=2)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return models.bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def static():
    return models.static()


@pytest.mark.parametrize("kind", ["bert", "static"])
@given(
    pairs=PAIRS,
    intervention=st.sampled_from(["mask", "delete"]),
    unit=st.sampled_from(["word", "token"]),
    sides=st.sampled_from(["anchor", "positive", "both"]),
)
@settings(max_examples=8, deadline=None)
def test_it_is_what_the_definition_says(request, kind, pairs, intervention, unit, sides):
    model = request.getfixturevalue(kind)
    anchors, positives = [x for x, _ in pairs], [z for _, z in pairs]
    options = {"intervention": intervention, "unit": unit, "sides": sides}
    found = importance(model, anchors, positives, **options)
    expected = slow_importance(model, anchors, positives, **options)
    assert len(found) == len(expected)
    np.testing.assert_allclose(found.effects, expected, atol=1e-6, rtol=0)


def test_the_comparison_bites(bert):
    found = importance(bert, ["usb dock"], ["red dock"], intervention="mask")
    assert np.abs(found.effects).min() > 1e-3
    assert len(set(found.effects.round(5))) == 4


def test_what_is_cut_off_takes_no_part(bert):
    text = " ".join(["dock"] * 12 + ["usb"] * 12)  # 16 tokens are read, two of them special
    found = importance(bert, [text], ["usb"], sides="anchor")
    assert found.words() == ["dock"] * 12 + ["usb"] * 2
    assert text[: found.read[0, 0]].split() == ["dock"] * 12 + ["usb"] * 2
    assert found.read[1, 0] == 3
    np.testing.assert_allclose(
        found.effects,
        slow_importance(bert, [text], ["usb"], intervention="delete", sides="anchor"),
        atol=1e-6,
    )


def test_offsets_are_in_the_users_own_text(bert):
    text = "  The CAF\u00c9 \U0001f469\u200d\U0001f680 don't\tUSB"
    found = importance(bert, [text], ["x"], sides="anchor")
    assert found.words() == ["The", "CAF\u00c9", "\U0001f469\u200d\U0001f680", "don't", "USB"]
    assert found.text(0, 0) == text


def test_equal_work_is_done_once(static, bert):
    calls = []
    text = "usb usb dock"
    reader = TextReader(lambda texts: calls.append(list(texts)) or models.count_letters(texts))
    importance(reader, [text, text, "red"], ["dock", "red", text])
    assert len(calls) == 2
    assert sorted(calls[0]) == sorted({text, "dock", "red"})
    assert sorted(calls[1]) == ["", "usb dock", "usb usb"]


def test_replacing_averages_over_draws_of_the_corpus(bert):
    options = {"intervention": "replace", "sides": "anchor"}
    one = importance(bert, ["usb dock"], ["red dock"], corpus=["red"], samples=3, **options)
    by_hand = bert.encode(["red dock", "usb red", "usb dock", "red dock"])
    cosine = by_hand[:3] @ by_hand[3]
    np.testing.assert_allclose(one.effects, cosine[2] - cosine[:2], atol=1e-6)
    corpus = ["red cable unbelievable", "fast"]
    mean = importance(bert, ["usb dock"], ["red dock"], corpus=corpus, samples=400, **options).effects
    edits = [" ".join([w, "dock"]) for w in ("red", "cable", "unbelievable", "fast")]
    vectors = bert.encode([*edits, "usb dock", "red dock"])
    scores = vectors @ vectors[-1]
    assert abs(mean[0] - (scores[4] - scores[:4].mean())) < 0.1 * np.ptp(scores[:4]) + 1e-6


def test_draws_depend_on_seed_corpus_and_text_alone(bert):
    options = {"intervention": "replace", "corpus": ["red cable fast the"], "sides": "anchor"}
    alone = importance(bert, ["usb dock"], ["red"], **options)
    beside = importance(bert, ["fast", "usb dock"], ["red", "red"], **options)
    np.testing.assert_allclose(alone.effects, beside.effects[beside.pair == 1], atol=1e-6)
    other = importance(bert, ["usb dock"], ["red"], seed=1, **options)
    assert not np.allclose(alone.effects, other.effects)


def test_a_sample_of_units_has_their_very_effects(bert):
    text = "usb dock cable red how fast the"
    everything = importance(bert, [text, "usb"], ["red", "red"])
    some = importance(bert, [text, "usb"], ["red", "red"], max_units=3)
    assert len(some) == 3 + 1 + 1 + 1
    known = {
        (p, s, a): e
        for p, s, (a, _), e in zip(
            everything.pair, everything.side, everything.offsets, everything.effects, strict=True
        )
    }
    for p, s, (a, _), e in zip(some.pair, some.side, some.offsets, some.effects, strict=True):
        assert known[p, s, a] == pytest.approx(e, abs=1e-6)
    assert everything.complete().all()
    assert some.complete().tolist() == [[False, True], [True, True]]


def test_a_function_of_texts():
    found = importance(models.count_letters, ["red usb  x"], ["usb"], sides="anchor", intervention="delete")
    edits = models.count_letters(["usb  x", "red  x", "red usb ", "red usb  x", "usb"])
    unit = edits / np.linalg.norm(edits, axis=1, keepdims=True)
    assert found.level == "text"
    assert found.words() == ["red", "usb", "x"]
    np.testing.assert_allclose(found.effects, unit[3] @ unit[4] - unit[:3] @ unit[4], atol=1e-6)
    masked = importance(
        models.count_letters, ["red"], ["e"], mask_text="[M]", intervention="mask", sides="anchor"
    )
    assert masked.effects[0] == pytest.approx(1 / np.sqrt(3))


def test_text_and_tokens_agree_where_they_mean_the_same(bert):
    pair = ["usb dock unbelievable"], ["the red dock"]
    for kind in ("delete", "mask"):
        tokens = importance(bert, *pair, intervention=kind)
        text = importance(bert, *pair, intervention=kind, level="text")
        assert (tokens.level, text.level) == ("tokens", "text")
        np.testing.assert_allclose(tokens.effects, text.effects, atol=1e-6)


class Light:
    """An encoder without torch: a tokenizer, and vectors of ids."""

    tokenizer = models.tokenizer()
    prompts = Prompts({"query": "red ", "document": "red "})

    def encodings(self, texts, prompt="red "):
        return self.tokenizer.encode_batch([prompt + text for text in texts])

    def encode_tokens(self, rows, add_special_tokens=True):
        assert not add_special_tokens
        table = np.random.default_rng(0).standard_normal((self.tokenizer.get_vocab_size(), 8))
        return np.array([table[row].sum(axis=0) for row in rows])


def test_an_encoder_that_shows_its_tokens():
    found = importance(Light(), ["unbelievable \U0001f680"], ["usb"], intervention="mask", sides="anchor")
    assert (found.level, found.words()) == ("tokens", ["unbelievable", "\U0001f680"])
    ids = [np.array(one.ids) for one in Light().encodings(["unbelievable \U0001f680", "usb"])]
    masked = ids[0].copy()
    masked[2:-2] = Light.tokenizer.token_to_id("[MASK]")
    a, b, c = Light().encode_tokens([ids[0], masked, ids[1]], add_special_tokens=False)
    cosine = lambda u, v: u @ v / np.linalg.norm(u) / np.linalg.norm(v)  # noqa: E731
    assert found.effects[0] == pytest.approx(cosine(a, c) - cosine(b, c), abs=1e-6)


@pytest.mark.parametrize("kind", ["bert", "static"])
def test_the_torch_free_encoder_agrees(request, kind, tmp_path):
    from leanmatch.runtime import NativeEncoder, load

    model = request.getfixturevalue(kind)
    model.save(str(tmp_path / "model"))
    native = load(tmp_path / "model")
    assert isinstance(native, NativeEncoder)
    pairs = ["Caf\u00e9 \U0001f680 usb cabled", "", " ".join(["dock"] * 30)], ["the usb", "red", "usb"]
    for intervention in ("delete", "mask"):
        own = importance(model, *pairs, intervention=intervention)
        light = importance(native, *pairs, intervention=intervention)
        assert light.level == "tokens"
        np.testing.assert_array_equal(light.offsets, own.offsets)
        np.testing.assert_array_equal(light.read, own.read)
        np.testing.assert_allclose(light.effects, own.effects, atol=1e-4)
        assert np.abs(own.effects).max() > 0.01


def test_a_prompt_is_read_and_never_edited(bert):
    bert.prompts = {"query": "red usb ", "document": "the "}
    try:
        found = importance(bert, ["dock cable"], ["fast"], sides="anchor")
        whole = bert.encode_query(["dock cable", "cable", "dock"])
        fast = bert.encode_document(["fast"])[0]
    finally:
        bert.prompts = {}
    assert found.words() == ["dock", "cable"]
    np.testing.assert_allclose(found.effects, (whole[0] - whole[1:]) @ fast, atol=1e-6)


def test_an_encoder_of_formats_is_read_by_tokens(bert):
    from leanmatch.models import TorchEncoder

    found = importance(TorchEncoder.from_model(bert, name="tiny"), ["usb dock"], ["red"], intervention="mask")
    assert found.level == "tokens"
    np.testing.assert_array_equal(
        found.effects, importance(bert, ["usb dock"], ["red"], intervention="mask").effects
    )


def test_modes_and_dropout_are_left_alone(bert):
    bert.train()
    before = [module.training for module in bert.modules()]
    importance(bert, ["usb"], ["dock"])
    assert [module.training for module in bert.modules()] == before
    bert.eval()


@pytest.mark.parametrize("kind", ["bert", "static"])
@pytest.mark.parametrize(("anchor", "units"), [("", 0), ("  \n", 0), ("usb", 1), ("\U0001f680", 1)])
def test_hardly_any_text(request, kind, anchor, units):
    found = importance(request.getfixturevalue(kind), [anchor], ["dock"], sides="anchor")
    assert len(found) == units
    assert np.isfinite(found.effects).all() and np.isfinite(found.scores).all()
    assert len(importance(request.getfixturevalue(kind), [], [])) == 0


def test_ten_thousand_words(static, bert):
    text = " ".join(["dock", "usb"] * 5000)
    assert len(importance(bert, [text], ["usb"])) == 14 + 1
    found = importance(static, [text], ["usb"], max_units=50)
    assert len(found) == 51
    assert found.counts[0, 0] == 10_000


def test_json_has_everything(bert):
    found = importance(bert, ["usb \U0001f680"], ["dock"]).to_json()
    (pair,) = found["pairs"]
    assert found["intervention"] == "delete"
    assert pair["anchor"]["units"][1]["text"] == "\U0001f680" == "usb \U0001f680"[4:5]
    assert (pair["anchor"]["units"][1]["start"], pair["anchor"]["units"][1]["end"]) == (4, 5)


def nan(texts):
    return np.full((len(texts), 3), np.nan, np.float32)


class WithoutTokens:
    pass


@pytest.mark.parametrize(
    ("model", "arguments", "options", "error", "message"),
    [
        (
            models.count_letters,
            (["a"], ["a"]),
            {"intervention": "swap"},
            UsageError,
            "one of mask, delete, replace",
        ),
        (
            models.count_letters,
            (["a"], ["a"]),
            {"sides": "left"},
            UsageError,
            "one of anchor, positive, both",
        ),
        (models.count_letters, (["a"], ["a"]), {"unit": "phrase"}, UsageError, "one of token, word"),
        (models.count_letters, (["a"], ["a"]), {"unit": "token"}, UsageError, "use unit='word'"),
        (models.count_letters, (["a"], ["a"]), {"level": "bytes"}, UsageError, "one of auto, tokens, text"),
        (models.count_letters, (["a"], ["a"]), {"level": "tokens"}, UsageError, "cannot be edited"),
        (models.count_letters, (["a"], ["a"]), {"intervention": "mask"}, UsageError, "needs a mask token"),
        (models.count_letters, (["a"], ["a"]), {"samples": 3}, UsageError, "leave samples out"),
        (
            models.count_letters,
            (["a"], ["a"]),
            {"samples": 0, "intervention": "replace"},
            UsageError,
            "1 or more",
        ),
        (
            models.count_letters,
            (["a"], ["a"]),
            {"corpus": [""], "intervention": "replace"},
            UsageError,
            "no words",
        ),
        (models.count_letters, (["a"], ["a"]), {"max_units": 0}, UsageError, "1 or more"),
        (models.count_letters, ("a", ["a"]), {}, UsageError, "one string"),
        (models.count_letters, (["a"], []), {}, UsageError, "1 anchors and 0 positives"),
        (models.count_letters, (["a"], [None]), {}, DataError, "NoneType"),
        (models.count_letters, ([float("nan")], ["a"]), {}, DataError, "column 'anchor'"),
        (nan, (["a"], ["a"]), {}, ModelError, "NaN or infinity for 1 of 1"),
        (lambda texts: np.ones(3), (["a"], ["a"]), {}, ModelError, "one row a text"),
        (WithoutTokens(), (["a"], ["a"]), {}, UsageError, "is no model"),
    ],
)
def test_errors(model, arguments, options, error, message):
    with pytest.raises(error, match=message):
        importance(model, *arguments, **options)


def test_a_model_without_a_mask_token(tmp_path):
    model = models.bert(tmp_path, mask=False)
    with pytest.raises(UsageError, match="none that is known"):
        importance(model, ["usb"], ["dock"], intervention="mask")
    assert len(importance(model, ["usb"], ["dock"])) == 2


def test_a_tokenizer_that_is_not_the_models_own(bert, monkeypatch):
    own = bert.preprocess if hasattr(bert, "preprocess") else bert.tokenize
    name = "preprocess" if hasattr(bert, "preprocess") else "tokenize"
    monkeypatch.setattr(bert, name, lambda texts, **kw: own([text[::-1] for text in texts], **kw))
    with pytest.raises(ModelError, match=r"level=\"text\""):
        importance(bert, ["usb dock"], ["red"])


def test_it_runs_without_torch():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import numpy as np\n"
        "from leanmatch.interventions import importance, interactions, faithfulness\n"
        "f = lambda texts: np.array([[t.count(c) for c in 'abc '] for t in texts], np.float32) + 1\n"
        "found = importance(f, ['a b'], ['a c'])\n"
        "interactions(f, ['a b'], ['a c']); faithfulness(f, found)\n"
        "print(len(found))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["4"]


def test_token_readers_pass_through():
    reader = TokenReader(lambda texts: [], lambda rows: np.zeros((0, 3), np.float32), None)
    assert len(importance(reader, [], [])) == 0

"""Prompts, token counts and roles, without any model."""

from __future__ import annotations

import numpy as np
import pytest

from leanmatch.errors import ModelError, UsageError
from leanmatch.models import (
    PromptOptions,
    Prompts,
    RoleEncoder,
    SentenceSettings,
    TokenCounts,
    TokenTally,
    roles_differ,
)

OWN = Prompts({"query": "find: ", "passage": "text: ", "sts": "match: "}, "sts")


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({}, "match: "),
        ({"prompt_name": "query"}, "find: "),
        ({"prompt_name": "document"}, ""),
        ({"prompt": "mine "}, "mine "),
        ({"prompt": ""}, ""),
    ],
)
def test_a_prompt_is_resolved_as_sentence_transformers_does(asked, text):
    assert OWN.resolve(**asked) == text


def test_roles_have_prompts_of_their_own():
    assert (OWN.query, OWN.document, OWN.of_role(None)) == ("find: ", "", "match: ")
    assert OWN.any_text and not Prompts().any_text and Prompts().query == Prompts().document == ""


def test_prompts_are_a_mapping_as_in_sentence_transformers():
    assert Prompts() == {"query": "", "document": ""} and len(Prompts()) == 2
    assert OWN["query"] == "find: " and OWN.get("nowhere") is None and "sts" in OWN
    assert dict(OWN) == OWN != {**OWN, "query": ""}
    assert Prompts(OWN.named) != OWN, "the default counts"


def test_a_prompt_goes_before_its_name_with_a_warning():
    with pytest.warns(UserWarning, match="both prompt_name 'query' and prompt 'text'"):
        assert OWN.resolve("query", "text") == "text"


@pytest.mark.parametrize(
    ("options", "prompts"),
    [
        (PromptOptions(), ("find: ", "")),
        (PromptOptions(query=""), ("", "")),
        (PromptOptions(document="item: "), ("find: ", "item: ")),
        (PromptOptions(name="sts"), ("match: ", "match: ")),
        (PromptOptions(name="passage"), ("text: ", "text: ")),
    ],
)
def test_options_override_the_prompts_of_roles_alone(options, prompts):
    changed = OWN.overridden(options)
    assert (changed.query, changed.document) == prompts
    assert changed.resolve() == "match: " and bool(options) == (options != PromptOptions())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: OWN.resolve("nowhere"), "no prompt named 'nowhere'"),
        (lambda: OWN.with_default("nowhere"), "no prompt named 'nowhere'"),
        (lambda: OWN.overridden(PromptOptions(name="nowhere")), "no prompt named 'nowhere'"),
        (lambda: PromptOptions(query="a", name="sts"), "exclude one another"),
    ],
)
def test_wrong_prompts_are_usage_errors_with_a_remedy(call, message):
    with pytest.raises(UsageError, match=message) as refused:
        call()
    assert refused.value.remedy


@pytest.mark.parametrize(
    "config",
    [
        {"prompts": ["a"]},
        {"prompts": {"query": 1}},
        {"default_prompt_name": "x"},
        {"truncate_dim": 0},
        {"truncate_dim": "64"},
        {"truncate_dim": True},
        [],
    ],
)
def test_damaged_settings_are_refused(config):
    with pytest.raises(ModelError, match="somewhere") as refused:
        SentenceSettings.from_config(config, "somewhere")
    assert refused.value.remedy


def test_token_counts_add_up():
    tally = TokenTally()
    tally.add(TokenCounts(2, 9))
    tally.add(TokenCounts(1, 5, 1, 7))
    assert tally.counts == TokenCounts(3, 14, 1, 7)
    assert tally.counts.sentence() == (
        "1 of 3 texts is longer than the model reads: 7 of 21 tokens were cut off"
    )
    assert tally.counts.to_json() == {"texts": 3, "tokens": 14, "truncated": 1, "lost": 7}


def test_a_function_has_no_roles_and_sees_each_text_once():
    calls = []

    def encode(texts):
        calls.append(list(texts))
        return np.array([[len(text)] for text in texts], np.float32)

    encoder = RoleEncoder(encode)
    assert not encoder.roles_differ and not roles_differ(encode)
    for method in (encoder, encoder.encode_query, encoder.encode_document, encoder.of_role("query")):
        assert method(["a", "bcd", "a"]).tolist() == [[1], [3], [1]]
    assert calls == [["a", "bcd"]] * 4


def test_an_encoder_with_roles_is_asked_by_role_with_fixed_options():
    class Sided:
        def encode_query(self, texts, **options):
            return np.full((len(texts), 1), options["batch_size"], np.float32)

        def encode_document(self, texts, **options):
            return -self.encode_query(texts, **options)

    encoder = RoleEncoder(RoleEncoder(Sided()), batch_size=7)
    assert encoder.roles_differ
    assert encoder.encode_query(["a", "a"]).tolist() == [[7], [7]]
    assert encoder.encode_document(["a"]).tolist() == [[-7]]

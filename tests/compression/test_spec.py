"""Compression specifications: rules, JSON, and every message for a wrong one."""

from __future__ import annotations

import json

import pytest

from leanmatch.compression.spec import CompressionSpec, LayerSpec, Rule, Stack
from leanmatch.errors import UsageError


def test_the_first_rule_that_matches_counts():
    spec = CompressionSpec(
        (Rule("*.0.query", LayerSpec(nonzeros=2)), Rule("*query", LayerSpec(method="int", bits=4)))
    )
    assert spec.layer("layer.0.query").nonzeros == 2
    assert spec.layer("layer.1.query").bits == 4
    assert spec.layer("layer.1.key") is None


def test_a_stack_is_found_by_its_parent():
    spec = CompressionSpec((), (Stack("*.self", ("query", "key")),))
    assert spec.stack("a.self.key") == ("a.self", ("query", "key"))
    assert spec.stack("a.self.value") is None
    assert spec.stack("a.other.key") is None


def test_json_goes_there_and_back():
    spec = CompressionSpec(
        (Rule("*", LayerSpec(method="low-rank", rank=7, value_bits=None)),), (Stack("*", ("q", "k")),)
    )
    assert CompressionSpec.from_text(json.dumps(spec.to_json())) == spec
    assert spec.to_json()["rules"][0]["layer"]["rank"] == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "magic"}, "unknown method 'magic'"),
        ({"weighting": "magic"}, "unknown weighting"),
        ({"block": 0}, "block must be at least 1"),
        ({"nonzeros": 65}, "nonzeros must be at most 64"),
        ({"method": "nm", "nonzeros": 17}, "nonzeros must be at most 16"),
        ({"atoms": 70_000}, "atoms must be at most"),
        ({"value_bits": 5}, "unknown value_bits 5"),
        ({"method": "low-rank", "value_bits": 6}, "unknown value_bits 6"),
        ({"atom_bits": 4}, "unknown atom_bits 4"),
        ({"bits": 3}, "unknown bits 3"),
        ({"ratio": 0.5}, "ratio must be at least 1"),
    ],
)
def test_wrong_layer_options_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        LayerSpec(**options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no JSON"),
        ("[]", "must be a mapping"),
        ('{"rule": []}', "unknown key 'rule'"),
        ('{"rules": 3}', "needs a list 'rules'"),
        ('{"rules": [{"layer": {}}]}', "rule 1 needs a 'pattern'"),
        ('{"rules": [{"pattern": "*", "layer": 3}]}', "'layer' must be a mapping"),
        ('{"rules": [{"pattern": "*", "layer": {"blok": 3}}]}', "unknown layer option 'blok'"),
        ('{"rules": [{"pattern": "*", "layer": {"block": "3"}}]}', "'block' must be int"),
        ('{"rules": [{"pattern": "", "layer": {}}]}', "empty pattern"),
        ('{"rules": [], "stacks": [{"parent": "*", "children": ["q"]}]}', "at least two"),
        ('{"rules": [], "stacks": [{"parent": 3}]}', "needs a string 'parent'"),
    ],
)
def test_wrong_specification_files_are_refused(text, message):
    with pytest.raises(UsageError, match=message):
        CompressionSpec.from_text(text)

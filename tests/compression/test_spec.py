"""Compression specifications: rules, JSON, and every message for a wrong one."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from leanmatch.compression.layer_specs import (
    LAYER_SPECS,
    DenseSparseSpec,
    DenseSpec,
    LayerSpec,
    LowRankSpec,
    PruningSpec,
    RoundingSpec,
)
from leanmatch.compression.spec import CompressionSpec, Rule, Stack
from leanmatch.errors import UsageError


def test_the_first_rule_that_matches_counts():
    spec = CompressionSpec(
        (Rule("*.0.query", DenseSparseSpec(nonzeros=2)), Rule("*query", RoundingSpec(bits=4)))
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
    spec = CompressionSpec((Rule("*", LowRankSpec(rank=7, value_bits=None)),), (Stack("*", ("q", "k")),))
    assert CompressionSpec.from_text(json.dumps(spec.to_json())) == spec
    assert spec.to_json()["rules"][0]["layer"]["rank"] == 7


OLD = {
    "method": "dense-sparse",
    "block": 8,
    "atoms": 32,
    "nonzeros": 2,
    "rank": None,
    "ratio": 3.0,
    "value_bits": 4,
    "atom_bits": 8,
    "bits": 4,
    "group": 16,
    "weighting": "none",
    "compensate": False,
}
"""What files of earlier versions hold for every layer, whatever its method."""


@pytest.mark.parametrize(
    ("method", "spec"),
    [
        (
            "dense-sparse",
            DenseSparseSpec(block=8, atoms=32, nonzeros=2, value_bits=4, weighting="none", compensate=False),
        ),
        ("nm", PruningSpec(block=8, nonzeros=2, value_bits=4, weighting="none")),
        ("low-rank", LowRankSpec(ratio=3.0, value_bits=4, weighting="none")),
        ("int", RoundingSpec(bits=4, group=16)),
        ("dense", DenseSpec()),
    ],
)
def test_files_of_earlier_versions_name_the_options_of_all_methods(method, spec):
    assert LayerSpec.from_json(OLD | {"method": method}) == spec
    assert LayerSpec.from_json(spec.to_json()) == spec
    assert set(spec.to_json()) <= set(OLD)


def test_every_method_has_one_dataclass_with_its_own_options():
    assert {method: kind.method for method, kind in LAYER_SPECS.items()} == dict(
        zip(LAYER_SPECS, LAYER_SPECS, strict=True)
    )
    with pytest.raises(TypeError, match="rank"):
        DenseSparseSpec(rank=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "magic"}, "unknown method 'magic'"),
        ({"weighting": "magic"}, "unknown weighting"),
        ({"block": 0}, "block must be at least 1"),
        ({"nonzeros": 65}, "nonzeros must be from 1 to 64"),
        ({"method": "nm", "nonzeros": 17}, "nonzeros must be from 1 to 16"),
        ({"atoms": 70_000}, "atoms must be from 1 to 65536"),
        ({"value_bits": 5}, "value_bits 5 is not supported"),
        ({"method": "low-rank", "value_bits": 6}, "value_bits 6 is not supported"),
        ({"atom_bits": 4}, "atom_bits 4 is not supported"),
        ({"method": "low-rank", "value_bits": 3}, "value_bits 3 is not supported"),
        ({"value_bits": 2}, "value_bits 2 is not supported"),
        ({"method": "int", "bits": 5}, "bits 5 is not supported"),
        ({"method": "int", "bits": 1}, "bits 1 is not supported"),
        ({"method": "int", "group": 0}, "group must be at least 1"),
        ({"method": "low-rank", "ratio": 0.5}, "ratio must be at least 1"),
        ({"method": "low-rank", "rank": 0}, "rank must be at least 1"),
        ({"compensate": 1}, "'compensate' must be bool"),
    ],
)
def test_wrong_layer_options_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        LayerSpec.from_json(options)


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


def test_the_page_on_specification_files_shows_one_that_is_read_and_every_option_with_its_default():
    page = (Path(__file__).parents[2] / "docs" / "reference" / "compression.md").read_text()
    example = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)
    spec = CompressionSpec.from_json(yaml.safe_load(example[1]))
    assert spec.layer("bert.encoder.layer.0.output.dense") == DenseSpec()
    assert spec.layer("bert.encoder.layer.1.output.dense") == DenseSparseSpec()
    assert spec.stack("bert.encoder.layer.1.attention.self.key") is not None
    rows = {
        cells[1].strip(" `"): cells
        for cells in (line.split("|") for line in page.splitlines())
        if len(cells) > 3
    }
    for method, kind in LAYER_SPECS.items():
        assert kind.__name__ in rows[method][2]
        shown = dict(re.findall(r"`(\w+)` (\w[\w.]*)", rows[method][3]))
        shown.pop("saves", None)
        for option in fields(kind):
            assert yaml.safe_load(shown[option.name]) == option.default, (method, option.name)

"""The one table of architectures: the patterns of compression name what the native runtime reads."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from leanmatch.models.architectures import ARCHITECTURES
from leanmatch.runtime.architectures import NATIVE


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_patterns_find_each_linear_layer_and_nothing_else(name):
    architecture = ARCHITECTURES[name]
    prefix = architecture.block.format(i=1)
    variants = [names for names in (architecture.names, architecture.gated_names) if names is not None]
    layers = list(dict.fromkeys(layer for names in variants for layer in names.linear))
    modules = [f"0.auto_model.{prefix}{layer}" for layer in layers]
    for module, pattern in zip(modules, architecture.linear_layers, strict=True):
        assert fnmatchcase(module, pattern)
    norms = (architecture.names.attention_norm, architecture.names.feed_forward_norm)
    others = [*(f"0.auto_model.{prefix}{norm}" for norm in norms), "0.auto_model.pooler.dense"]
    assert not any(fnmatchcase(other, pattern) for other in others for pattern in architecture.linear_layers)
    stacked = [group for names in variants for group in (names.attention_inputs, names.feed_forward_inputs)]
    groups = [group for group in dict.fromkeys(stacked) if len(group) > 1]
    for group, (parent, children) in zip(groups, architecture.stacks, strict=True):
        assert all(fnmatchcase(f"0.auto_model.{prefix}{name}".rpartition(".")[0], parent) for name in group)
        assert tuple(name.rpartition(".")[2] for name in group) == children


def test_all_run_natively_with_positions_of_one_kind():
    assert tuple(ARCHITECTURES) == NATIVE
    for name, architecture in ARCHITECTURES.items():
        kinds = (architecture.positions, architecture.theta, architecture.relative_bias)
        assert sum(kind is not None for kind in kinds) == (2 if name == "mpnet" else 1), name


def test_the_documented_table_is_whole():
    page = Path(__file__).parents[2] / "docs" / "reference" / "models.md"
    if not page.is_file():
        pytest.skip("the documentation is not here: an installed package")
    rows = [line.split("|")[1] for line in page.read_text().splitlines() if line.startswith("| `")]
    assert [name for row in rows for name in re.findall(r"`([\w-]+)`", row)] == ["model_type", *ARCHITECTURES]

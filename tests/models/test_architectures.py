"""The one table of architectures: the patterns of compression name what the native runtime reads."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest

from leanmatch.models.architectures import ARCHITECTURES
from leanmatch.runtime.architectures import NATIVE


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_patterns_find_each_linear_layer_and_nothing_else(name):
    architecture = ARCHITECTURES[name]
    prefix = architecture.block.format(i=1)
    modules = [f"0.auto_model.{prefix}{layer.replace('*', '_0')}" for layer in architecture.names.linear]
    for module, pattern in zip(modules, architecture.linear_layers, strict=True):
        assert fnmatchcase(module, pattern)
    others = [f"0.auto_model.{prefix}{architecture.names.output_norm}", "0.auto_model.pooler.dense"]
    assert not any(fnmatchcase(other, pattern) for other in others for pattern in architecture.linear_layers)
    parent, names = architecture.attention
    assert [fnmatchcase(module.rpartition(".")[0], parent) for module in modules[:3]] == [True] * 3
    assert [module.rpartition(".")[2] for module in modules[:3]] == list(names)


def test_what_runs_natively_has_positions():
    assert tuple(name for name in ARCHITECTURES if name != "t5") == NATIVE
    assert all(ARCHITECTURES[name].positions is not None for name in NATIVE)

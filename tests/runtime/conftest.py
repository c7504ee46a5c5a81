"""Fixtures of the runtime's tests: tiny models, pinned levels, a cache of their own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from leanmatch import native

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))  # for native_linear

from runtime_models import build, build_static


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """``tiny(kind, ...)``: (folder, live model) of an architecture or ``static``, built once for all."""
    made: dict[tuple[object, ...], tuple[Path, object]] = {}

    def get(kind: str = "bert", **options):
        key = kind, *sorted(options.items())
        if key not in made:
            folder = tmp_path_factory.mktemp(kind)
            model = build_static(folder) if kind == "static" else build(folder, kind, **options)
            made[key] = folder / "model", model
        return made[key]

    return get


@pytest.fixture(params=[name for name, variant in native.variants().items() if variant.runs])
def level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each instruction-set level of this machine, pinned in turn."""
    monkeypatch.setenv(native.LIMIT_VARIABLE, request.param)
    return request.param


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measurements of these tests stay out of the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))

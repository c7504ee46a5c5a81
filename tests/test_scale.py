"""The cost model of docs/how-to/scale.md: near what was measured, and the page shows what it says."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


@pytest.fixture(scope="module")
def costs(load_script):
    return load_script("benchmarks/scale_costs.py")


@pytest.fixture(scope="module")
def rates(request):
    return json.loads((request.config.rootpath / "docs" / "results" / "scale.json").read_text("utf-8"))


def test_the_model_is_within_a_fifth_of_what_was_measured(costs, rates):
    points = costs.check(rates)
    assert any(name.startswith("build local 5,000,000") for name, _, _ in points)
    assert {name.split()[0] for name, _, _ in points} == {"encode", "build"} and len(points) >= 3
    for name, measured, model in points:
        assert 0.8 < model / measured < 1.2, name


def test_costs_grow_with_items_and_machines_with_memory(costs, rates):
    machine = costs.Machine(cores=16, memory=64, euros=0.5)
    for engine in rates["build"]:
        small, large = (costs.estimate(rates, engine, items, machine) for items in (1e7, 1e9))
        assert large["encoding, machine hours"] == pytest.approx(
            100 * small["encoding, machine hours"], rel=0.01
        )
        assert large["machines"] >= 20 * small["machines"] > 0
        assert large["memory, GB"] <= large["machines"] * machine.memory
        assert large["euros a month"] == pytest.approx(large["machines"] * 0.5 * 730)
        dear = costs.estimate(rates, engine, 1e7, costs.Machine(cores=16, memory=64, euros=1.0))
        assert dear["euros, once"] == pytest.approx(2 * small["euros, once"])


def test_building_grows_as_the_algorithms_do(costs, rates):
    """Linear without cells, N sqrt(N) with many cells, N log N for graphs; in proportion to the dimension."""
    start = rates["build"]["local"]["start, seconds"]

    def seconds(engine, items, dimension=None):
        return costs.build_seconds(rates, engine, items, dimension)

    assert seconds("local", 200_000) - start == pytest.approx(2 * (seconds("local", 100_000) - start))
    assert seconds("local", 200_001) > 5 * seconds("local", 200_000)
    assert seconds("local", 4e10) == pytest.approx(8 * seconds("local", 1e10), rel=0.05)
    assert seconds("pgvector", 2**24) == pytest.approx(4 * 24 / 22 * seconds("pgvector", 2**22))
    assert seconds("pgvector", 1e6, 768) == pytest.approx(2 * seconds("pgvector", 1e6))


def test_the_page_has_the_table_of_the_script(request):
    root = request.config.rootpath
    command = [
        sys.executable,
        root / "benchmarks" / "scale_costs.py",
        root / "docs" / "results" / "scale.json",
    ]
    table = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    assert table in (root / "docs" / "how-to" / "scale.md").read_text(encoding="utf-8")

"""``leanmatch compress`` as tests call it, and a clock for it."""

from __future__ import annotations

from typer.testing import CliRunner

from leanmatch.cli.app import app
from leanmatch.compression import RoundingSpec
from leanmatch.compression.planner.clock import WORKLOADS


def leanmatch(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def compress(base, pairs, output, *flags):
    fixed = ("--device", "cpu", "--batch-size", "16")
    return leanmatch("compress", base, "--data", pairs, "-o", output, *fixed, *flags)


class FewLayers:
    """A clock by which only what has fewer encoder layers saves time, as on a CPU with AMX."""

    def __init__(self, *arguments):
        self.workload = WORKLOADS["bulk"]
        self.machine = {"cpu": "Abacus", "level": "amx", "spread": 0.0, "noisy": False}

    def layer_seconds(self, options):
        return [1.0 if isinstance(spec, RoundingSpec) else 1.5 for _, spec in options]

    def rest_seconds(self, encoder_layers, linear):
        return float(encoder_layers)

    def faster(self, specs, encoder_layers):
        return 2 / encoder_layers

"""Seconds that `import leanmatch` and `leanmatch --help` take in a fresh interpreter (bar: 0.5 s).

The interpreter's own start is part of the figure, and is shown alone as well. Median of several runs.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

RUNS = 11
COMMANDS = {
    "python, nothing": ["-c", "pass"],
    "import leanmatch": ["-c", "import leanmatch"],
    "leanmatch --help": ["-m", "leanmatch", "--help"],
    "leanmatch doctor": ["-m", "leanmatch", "doctor"],
}


def median_seconds(arguments: list[str]) -> float:
    """The median of RUNS runs after one that warms the file cache."""
    seconds = []
    for _ in range(RUNS + 1):
        begin = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds[1:])


if __name__ == "__main__":
    for name, arguments in COMMANDS.items():
        print(f"{name:20s} {median_seconds(arguments):.3f} s")

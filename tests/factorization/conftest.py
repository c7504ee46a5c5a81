"""Makes :mod:`factor_examples` importable, and pins each instruction-set level in turn."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

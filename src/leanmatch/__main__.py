"""``python -m leanmatch``: the command line."""

from __future__ import annotations

from leanmatch.cli.app import main

if __name__ == "__main__":
    main()

"""``leanmatch index MODEL ITEMS -o CATALOGUE`` and ``--add FILE``, ...: the spelling before subcommands."""

from __future__ import annotations

from collections.abc import Sequence

from leanmatch.cli.common import say
from leanmatch.errors import UsageError

FILE_MODES = ("--add", "--update", "--delete", "--reference")
BARE_MODES = ("--rebuild", "--check")
WITH_VALUE = (
    *("--kind", "--id-column", "--text-column", "--on-error", "--delimiter", "--device"),
    *("--precision", "--weights"),
)
"""Options that go on as they are, with the word behind them."""


def new_spelling(arguments: Sequence[str]) -> list[str]:
    """The subcommand and its arguments; a note says them.

    Raises:
        UsageError: no mode or several, or words that do not go with it.
    """
    words: list[str] = []
    rest: list[str] = []
    modes: dict[str, str] = {}
    catalogue: str | None = None
    remaining = iter(arguments)
    for argument in remaining:
        name, equals, value = argument.partition("=")
        if name in ("-o", "--output", "--catalogue"):
            catalogue = value if equals else next(remaining, None)
        elif name in FILE_MODES:
            modes[name] = value if equals else next(remaining, "")
        elif name in BARE_MODES:
            modes[name] = ""
        elif argument.startswith("-"):
            rest.append(argument)
            if name in WITH_VALUE and not equals:
                rest += [word for word in [next(remaining, None)] if word is not None]
        else:
            words.append(argument)
    command = _command(words, modes, catalogue)
    say(f"note: this spelling goes on working for now; the new one is: leanmatch index {' '.join(command)}")
    return [*command, *rest]


def _command(words: list[str], modes: dict[str, str], catalogue: str | None) -> list[str]:
    if len(modes) > 1:
        raise UsageError(f"{' and '.join(sorted(modes))} together", remedy="give one of them a call")
    if catalogue is None or not (modes or len(words) == 2):
        raise UsageError("there is nothing to do", remedy="leanmatch index --help lists the commands")
    if not modes:
        return ["build", *words, "-o", catalogue]
    ((flag, file),) = modes.items()
    mode = flag.removeprefix("--")
    if len(words) > 1:
        raise UsageError(f"ITEMS does not go with {flag}", remedy="leave it out")
    if mode == "rebuild" and not words:
        raise UsageError("--rebuild needs a model", remedy="leanmatch index rebuild CATALOGUE MODEL")
    if mode == "rebuild":
        return [mode, catalogue, *words]
    model = ["--model", *words] if words and mode in ("add", "update", "reference") else []
    return [mode, catalogue, *([file] if flag in FILE_MODES else []), *model]

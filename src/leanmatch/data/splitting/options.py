"""How to split a pair table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import get_args

from leanmatch.data.splitting.leakage import Leakage
from leanmatch.data.timestamps import parse_timestamp
from leanmatch.errors import UsageError
from leanmatch.types import JsonValue


@dataclass(frozen=True)
class SplitOptions:
    """Which rows are trained on and which are judged on.

    Attributes:
        hold_out: ``"column=value"``: rows with one of these values are out of distribution.
        after: ISO date or epoch seconds: rows with a timestamp at or after it are out of distribution.
        valid_fraction: share of the training rows (of all rows that are in distribution, where there is no
            ``split`` column) that is set aside for validation; unused where the table has valid rows.
        test_fraction: share of the rows in distribution for the test; unused with a ``split`` column.
        seed: of the random choices.
        leakage: remove leaking rows from train and valid, only report them, or do not look (ignore).
        near_duplicates: whether near-duplicate texts count as leakage, too.
        shared_positives: positives are a catalogue that all parts may share, so that only anchors and whole
            pairs leak. None: they are where the table comes with a corpus.
    """

    hold_out: tuple[str, ...] = ()
    after: str | None = None
    valid_fraction: float = 0.1
    test_fraction: float = 0.1
    seed: int = 0
    leakage: Leakage = "remove"
    near_duplicates: bool = True
    shared_positives: bool | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "hold_out", tuple(self.hold_out))
        parse_hold_out(self.hold_out)
        if self.after is not None:
            try:
                parse_timestamp(self.after)
            except ValueError as error:
                raise UsageError(
                    f"after is {self.after!r}: {error}",
                    remedy="an ISO 8601 date, e.g. after='2021-06-01'",
                    command="an ISO 8601 date, e.g. --after 2021-06-01",
                ) from None
        for name in ("valid_fraction", "test_fraction"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                flag = "--" + name.replace("_", "-")
                raise UsageError(f"{name} is {value}", remedy=f"from 0 to below 1 ({flag})")
        if self.valid_fraction + self.test_fraction >= 1:
            raise UsageError(
                f"valid_fraction {self.valid_fraction} and test_fraction {self.test_fraction} leave nothing "
                f"to train on",
                remedy="their sum must be below 1",
            )
        if self.leakage not in get_args(Leakage):
            raise UsageError(f"leakage is {self.leakage!r}", remedy=f"one of: {', '.join(get_args(Leakage))}")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise UsageError(
                f"seed is {self.seed!r}",
                remedy="a whole number from 0",
                command="a whole number from 0: --seed 0",
            )

    def to_json(self) -> JsonValue:
        """As a JSON object."""
        return asdict(self) | {"hold_out": list(self.hold_out)}


def parse_hold_out(conditions: Iterable[str]) -> dict[str, list[str]]:
    """Values by column from ``"column=value"`` strings.

    Raises:
        UsageError: one without ``=``, or without a column before it.

    >>> parse_hold_out(["category=Toys", "category=Games", "site=quora"])
    {'category': ['Toys', 'Games'], 'site': ['quora']}
    """
    values: dict[str, list[str]] = {}
    for condition in conditions:
        column, equals, value = condition.partition("=")
        if not equals or not column or not value:
            raise UsageError(
                f"hold_out is {condition!r}",
                remedy="COLUMN=VALUE, e.g. hold_out=('category=Toys',)",
                command="COLUMN=VALUE, e.g. --hold-out category=Toys",
            )
        values.setdefault(column, []).append(value)
    return values

"""What the user asks for, in one place."""

from __future__ import annotations

from dataclasses import dataclass

from leanmatch.errors import UsageError


@dataclass(frozen=True)
class Budget:
    """At least one field, or a specification beside it.

    Attributes:
        keep: share of the metric that must remain, above 0 and at most 1.
        size: bytes of all weights, those left alone included, and of ``beside``.
        macs: how many times fewer multiply-adds the encoder's linear layers take, above 1.
        faster: how many times as fast as int8 of the same model the encoder is on this machine, above 1.
        beside: bytes within ``size`` that are no weights: tokenizer and configurations.
    """

    keep: float | None = None
    size: int | None = None
    macs: float | None = None
    faster: float | None = None
    beside: int = 0

    def __post_init__(self) -> None:
        if self.keep is not None and not 0 < self.keep <= 1:
            raise UsageError(
                f"keep must be above 0 and at most 1 (found {self.keep})", remedy="for example 0.99"
            )
        if self.size is not None and self.size <= self.beside:
            raise UsageError(
                f"there is no room for weights in the size that was asked for ({self.size:,} bytes)"
                + (f": tokenizer and configurations alone take {self.beside:,}" if self.beside else ""),
                remedy="a number without a unit is bytes: 10_000_000",
                command="a number without a unit is bytes: write --size 10MB",
            )
        for name, example in (("macs", "2.67x"), ("faster", "1.6x")):
            ratio = getattr(self, name)
            if ratio is not None and not 1 < ratio < float("inf"):
                raise UsageError(
                    f"{name} must be above 1 and finite (found {ratio})", remedy=f"for example {example}"
                )

    @property
    def limited(self) -> bool:
        """Whether bytes, multiply-adds or time are limited."""
        return self.size is not None or self.macs is not None or self.faster is not None

    def to_json(self) -> dict[str, float | None]:
        """What was asked for."""
        return {name: getattr(self, name) for name in ("keep", "size", "macs", "faster")}

    def words(self) -> str:
        """The limits, for people.

        >>> Budget(size=9_000_000, faster=1.6).words()
        '9,000,000 bytes and 1.6x faster than int8'
        """
        parts = []
        if self.size is not None:
            parts.append(f"{self.size:,} bytes")
        if self.macs is not None:
            parts.append(f"{self.macs:g}x fewer multiply-adds")
        if self.faster is not None:
            parts.append(f"{self.faster:g}x faster than int8")
        return " and ".join(parts)

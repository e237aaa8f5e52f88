"""The outcomes of a batch, counted, and what the request is answered with because of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pushd.bus import Outcome
from pushd.errors import Refused, Unprocessable
from pushd.wire import json_line

__all__ = ["Tally"]


@dataclass(slots=True)
class Tally:
    """What became of the lines of one request so far."""

    published: int = 0
    duplicate: int = 0
    refused: int = 0
    refusals: list[Refused] = field(default_factory=list)
    """The first refusal of each status."""

    def count(self, outcomes: Sequence[Outcome | None], refused: Sequence[Refused]) -> None:
        """Count the outcomes of lines, among them those that were `refused`; None is a line without an outcome."""
        for one in refused:
            if one.status not in [known.status for known in self.refusals]:
                self.refusals.append(one)
        self.refused += len(refused)
        for outcome in outcomes:
            if outcome is None or (refused and isinstance(outcome, Refused)):
                continue
            if outcome.is_duplicate:  # type: ignore[union-attr]
                self.duplicate += 1
            else:
                self.published += 1

    @property
    def refusal(self) -> Refused | None:
        """What the request is refused with, if all lines are: the status that all share, or 422; else None."""
        if self.published or self.duplicate or not self.refused:
            return None
        if len(self.refusals) > 1:
            return Unprocessable("all lines were refused, for several reasons")
        return self.refusals[0]

    @property
    def summary(self) -> bytes:
        """The last line of a response whose status was sent before all outcomes were known."""
        counts = {"published": self.published, "duplicate": self.duplicate, "refused": self.refused}
        return json_line({"summary": counts})

"""The events of the next transaction: some of each owner whose submissions wait."""

from __future__ import annotations

from pushd.bus import Batch, FairQueue, Subscription
from pushd.store.sqlite.submission import Limit, Staged, Submission, Task

__all__ = ["stage"]

_PER_BATCH = 80
"""The most publishers acknowledged after one transaction: each takes up to 50 microseconds."""

_EACH = 4
"""The least number of events per owner's turn, however many owners there are."""


def stage(
    waiting: FairQueue[Submission | Task], batch: Batch[Subscription], limit: Limit
) -> list[tuple[Submission, list[Staged]]]:
    """Add some events of each owner to `batch`, up to the first task; return them.

    A submission may be returned more than once, its events in order.
    """
    staged: list[tuple[Submission, list[Staged]]] = []
    owners = waiting.owners
    most = limit.entries if owners == 1 else max(_EACH, _PER_BATCH // owners)
    left = most
    while waiting and len(staged) < _PER_BATCH and isinstance(first := waiting.first, Submission):
        events = first.stage(batch, limit, left)
        staged.append((first, events))
        left -= len(events)
        if first.is_staged and waiting.pop():
            left = most
        elif left <= 0:
            waiting.next_owner()
            left = most
        if not limit.has_room():
            break
    if left < most and waiting:
        waiting.next_owner()
    return staged

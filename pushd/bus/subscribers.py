"""List the subscribers of a channel in steps: there may be tens of thousands."""

from __future__ import annotations

from collections.abc import Generator, Iterable

from pushd.bus.clientinfo import ClientInfo
from pushd.bus.recipients import Recipient

__all__ = ["Present", "present"]

Present = tuple[int, int, list[ClientInfo]]
"""The number of clients, the number of users, and one page of clients."""

_CALLERS = 200
"""How many clients are counted in one step."""


def present(recipients: Iterable[Recipient], after: int, limit: int) -> Generator[None, None, Present]:
    """Count the clients and their users, and return the counts with one page of clients.

    The page has the first `limit` clients whose numbers are greater than `after`, ordered by number.
    """
    count, users, page, some = 0, set[str](), list[ClientInfo](), list[ClientInfo]()
    for recipient in recipients:
        for subscription in list(recipient.subscriptions):
            caller = subscription.caller
            count += 1
            if caller.user is not None:
                users.add(caller.user)
            if caller.number > after:
                some.append(caller)
            if not count % _CALLERS:
                page, some = sorted(page + some, key=_number)[:limit], []
                yield None
    yield None
    return count, len(users), sorted(page + some, key=_number)[:limit]


def _number(caller: ClientInfo) -> int:
    return caller.number

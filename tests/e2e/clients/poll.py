"""python poll.py URL CHANNEL COUNT: follow a channel with treq over /poll, and print the data of its events."""

from __future__ import annotations

import sys
from typing import Any

import treq
from twisted.internet import defer, task


async def poll(reactor: Any, url: str, channel: str, count: str) -> None:
    """Print `count` events."""
    since, seen = "latest", 0
    while seen < int(count):
        response = await treq.get(f"{url}/poll", params={"channel": channel, "since": since}, timeout=60)
        (since,) = response.headers.getRawHeaders("Event-Position")
        events = (await response.json())["events"] if response.code == 200 else []
        await response.content() if response.code != 200 else None
        print(response.code, *(event["data"] for event in events), flush=True)
        seen += len(events)


task.react(lambda *arguments: defer.ensureDeferred(poll(*arguments)), sys.argv[1:])

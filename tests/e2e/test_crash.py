"""The crash test: kill -9 at random moments under load, and nothing that was acknowledged is lost.

Publishers load a daemon, which is killed and started again ten times; a `Ledger` holds what they were told against
what subscribers got and what the history shows in the end. The long form, of 200 times, takes some minutes::

    PUSHD_TEST_KILLS=200 .venv/bin/python -m pytest -s --timeout=0 tests/e2e/test_crash.py

What it prints begins with the seed of its random numbers; ``PUSHD_TEST_SEED`` sets it. Since the threads and the
kernel have their own ideas, the same seed is a similar run, not the same.
"""

from __future__ import annotations

import os
import secrets
from functools import partial
from random import Random
from signal import SIGKILL
from time import monotonic, sleep
from typing import Any

import pytest

from pushd.store.sqlite.check import check
from tests.e2e.daemon import Daemon, free_port, running, tcp
from tests.e2e.programs import eventually
from tests.e2e.traffic import (
    BatchPublisher,
    PostPublisher,
    Publisher,
    SseSubscriber,
    Subscriber,
    WebSocketPublisher,
    WebSocketSubscriber,
    history,
)
from tests.rigs.ledger import Ledger, View

KILLS = int(os.environ.get("PUSHD_TEST_KILLS", "10"))
SEED = int(os.environ.get("PUSHD_TEST_SEED", "0")) or secrets.randbelow(1 << 32)

KEPT = ("kept/a", "kept/b", "both")
"""Channels that keep everything."""

FORGETFUL = ("few", "short", "small")
"""Channels that drop events all the while."""

CONFIG = """
[channels]
history_size = 10000000
history_bytes = 1024GiB
history_age = 1d

[channels:few]
history_size = 30
[channels:short]
history_age = 1s
[channels:small]
history_bytes = 64KiB

"""

CHANNELS = [("kept/a",), ("kept/b",), ("kept/a", "both"), ("both", "few"), *((name,) for name in FORGETFUL)]


class Run:
    """One run: a daemon, its traffic and the ledger."""

    def __init__(self, daemon: Daemon, address: str, random: Random) -> None:
        self.daemon = daemon
        self.address = address
        self.random = random
        self.ledger = Ledger(FORGETFUL)
        self.kills = 0
        common: tuple[Any, ...] = (self.ledger, CHANNELS, lambda name: name in KEPT)
        self.publishers: list[Publisher] = [
            PostPublisher("post-1", address, self._random(), *common),
            PostPublisher("post-2", address, self._random(), *common),
            BatchPublisher("batch", address, self._random(), *common),
            WebSocketPublisher("ws", address, self._random(), *common),
        ]
        self.subscribers: list[Subscriber] = [
            *(
                SseSubscriber(f"sse {name}", address, self._random(), self.ledger, (name,))
                for name in ("kept/a", *FORGETFUL)
            ),
            WebSocketSubscriber("ws kept/*", address, self._random(), self.ledger, ("kept/a", "kept/b"), "kept/*"),
            *(
                WebSocketSubscriber(f"ws {name}", address, self._random(), self.ledger, (name,), name)
                for name in ("both", "few", "short")
            ),
        ]

    def _random(self) -> Random:
        return Random(self.random.getrandbits(64))

    def begin(self) -> None:
        """Start the publishers once all subscribers are there: others would miss what was forgotten before."""
        for subscriber in self.subscribers:
            subscriber.start()
        eventually(
            lambda: all(subscriber.position != "earliest" for subscriber in self.subscribers),
            "all have subscribed",
            30,
        )
        for publisher in self.publishers:
            publisher.start()

    def kill(self) -> None:
        """Kill the daemon some time after it was started, now and then before it has come up."""
        self.daemon.signal(SIGKILL)
        self.daemon.wait()
        self.kills += 1
        while self.random.random() < 0.2:
            self.daemon.launch()
            sleep(self.random.uniform(0, 0.6))
            self.daemon.signal(SIGKILL)
            self.daemon.wait()
            self.kills += 1
        self.daemon.start()

    def check_traffic(self) -> None:
        """Fail if a publisher or a subscriber has ended by itself."""
        for one in (*self.publishers, *self.subscribers):
            assert one.fault is None, (one.name, one.fault)

    def finish(self) -> None:
        """Let the publishers have all answers and the subscribers all events."""
        for publisher in self.publishers:
            publisher.stopping.set()
        for publisher in self.publishers:
            publisher.join(30)
        self.check_traffic()
        self.daemon.signal(SIGKILL)
        self.daemon.wait()
        self._check_store()
        self.daemon.start()
        self._check_store()
        self.daemon.stop()
        self._check_store()
        for subscriber in self.subscribers:
            subscriber.stays.set()
        self.daemon.start()
        ends = {name: self._publish_end(name) for name in (*KEPT, *FORGETFUL)}
        for subscriber in self.subscribers:
            wanted = {ends[name] for name in subscriber.view.channels}
            eventually(partial(_has_all, subscriber.view, wanted), f"{subscriber.name} has all", 30)
        for subscriber in self.subscribers:
            subscriber.stopping.set()
        self.check_traffic()
        self.ledger.histories = {name: history(self.address, name) for name in (*KEPT, *FORGETFUL)}

    def _check_store(self) -> None:
        """Fail if the store is damaged."""
        checked = check(self.daemon.directory / "state")
        assert checked is not None
        assert not checked.damages, "\n".join(checked.damages)

    def _publish_end(self, channel: str) -> str:
        """Publish the last event of a channel, and answer its id."""
        sent = self.ledger.send(f"end of {channel}", (channel,), monotonic())
        answer = self.daemon.publish(channel, sent.data)
        sent.answers.append((answer["id"], answer["offset"], monotonic()))
        found: str = answer["id"]
        return found


def _has_all(view: View, ids: set[str]) -> bool:
    """Return whether a subscriber has the latest events of its channels, or was told that it cannot have them."""
    seen = list(view.seen)
    return (bool(seen) and seen[-1] is None) or ids <= {one.id for one in seen[-5000:] if one is not None}


@pytest.mark.timeout(60 + KILLS * 10)
@pytest.mark.parametrize("durability", ["process", "power"])
def test_nothing_acknowledged_is_lost_by_kill_9(durability: str) -> None:
    print(f"PUSHD_TEST_SEED={SEED} PUSHD_TEST_KILLS={KILLS} durability={durability}")
    port = free_port()
    state = f"state_directory = {{directory}}/state\nstop_timeout = 2s\ndurability = {durability}\n"
    with running(
        CONFIG, listeners=tcp("http", port), state=state + "store_size = 1024GiB\nstore_memory = 1MiB\n"
    ) as daemon:
        run = Run(daemon, f"127.0.0.1:{port}", Random(f"{SEED}-{durability}"))
        began = monotonic()
        run.begin()
        while run.kills < KILLS:
            sleep(run.random.uniform(0, 0.9))
            run.check_traffic()
            run.kill()
        run.finish()
        faults = run.ledger.faults()
        print(
            f"{run.kills} kills in {monotonic() - began:.0f} s; {len(run.ledger.sent)} events, "
            f"{run.ledger.acknowledged} acknowledged; "
            + ", ".join(f"{view.name}: {len(view.seen)}" for view in run.ledger.views)
        )
        assert not faults, f"PUSHD_TEST_SEED={SEED}:\n" + "\n".join(faults)
        assert "Traceback" not in daemon.log, daemon.log
        assert "is not the one that was left" not in daemon.log
        for view in run.ledger.views:
            assert any(seen is not None for seen in view.seen), view.name

"""Events to many channels, and ids that publishers give, with the real daemon."""

from __future__ import annotations

import json
from signal import SIGHUP, SIGKILL
from typing import Any

from tests.e2e.daemon import Daemon, request, running
from tests.e2e.programs import eventually

_RATE = "[limits]\nchannels = 1000000\n"


def batch(daemon: Daemon, *lines: dict[str, Any]) -> list[dict[str, Any]]:
    """Publish lines in one request; return the answers."""
    body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    return [json.loads(line) for line in request(f"{daemon.http}/publish", "POST", body).body.splitlines()]


def stored_bytes(daemon: Daemon) -> int:
    """Return how much the database and its write-ahead log take."""
    state = daemon.directory / "state"
    return sum((state / name).stat().st_size for name in ("pushd.db", "pushd.db-wal"))


def names(first: int, count: int = 100) -> list[str]:
    """Return the names of `count` channels."""
    return [f"m/{number:06}".ljust(255, "x") for number in range(first, first + count)]


def test_a_line_with_thousands_of_names_is_refused_and_costs_nothing() -> None:
    with running(_RATE, measures_turns=True) as daemon:
        batch(daemon, {"channel": "warm", "data": "x"})
        assert daemon.turns is not None
        before = stored_bytes(daemon)
        daemon.turns.reset()
        for count in (101, 600):
            (answer,) = batch(daemon, {"channels": names(0, count), "data": "x"})
            assert answer["error"]["field"] == "channels", answer
        answer, *_ = batch(daemon, {"channels": [f"{number}" for number in range(20_000)], "data": "x"})
        assert answer["error"]["status"] in (400, 413), answer
        assert daemon.turns.longest_ms < 20
        assert stored_bytes(daemon) - before < 100_000


def test_events_to_as_many_channels_as_may_be_cost_what_their_channels_do() -> None:
    with running(_RATE, measures_turns=True) as daemon:
        assert daemon.turns is not None
        batch(daemon, {"channels": names(0), "data": "x"})
        before, resident = stored_bytes(daemon), daemon.resident_bytes
        daemon.turns.reset()
        answers = batch(daemon, *({"channels": names(number * 100), "data": "x"} for number in range(20)))
        assert not [answer for answer in answers if "error" in answer]
        assert daemon.turns.longest_ms < 20
        assert stored_bytes(daemon) - before < 2_000 * 2000  # of which the names of new channels are most
        assert daemon.resident_bytes - resident < 2_000 * 20_000
        grown = []
        for lines in [{"channels": names(0), "data": "x"}], [{"channel": name, "data": "x"} for name in names(0)]:
            before = stored_bytes(daemon)
            batch(daemon, *lines * 20)
            grown.append(stored_bytes(daemon) - before)
        assert grown[0] < 1.5 * grown[1]
        page = request(f"{daemon.http}/poll?channel=m/*&since=earliest&limit=100").json()
        assert len(page["events"]) == 100


def test_what_was_published_with_an_id_is_known_again_after_kill_9() -> None:
    with running() as daemon:
        together = {"channels": ["a", "b"], "data": "one", "id": "order-17"}
        (first,) = batch(daemon, together)
        assert daemon.publish("b", "two", "?id=order-17")["offset"] == 2
        for _ in range(2):
            daemon.signal(SIGKILL)
            daemon.wait()
            daemon.start()
            others = {**together, "data": "other"}, {**together, "channels": ["a"]}
            same, *refused = batch(daemon, together, *others)
            assert same == {**first, "subscribers": 0, "duplicate": True}
            assert [(answer["error"]["status"], answer["error"]["field"]) for answer in refused] == [
                (422, "id")
            ] * 2
            again = request(f"{daemon.http}/channels/b?id=order-17", "POST", b"two")
            assert (again.status, again.headers["idempotent-replayed"]) == (200, "true")
            assert again.headers["location"] == "/channels/b/events/order-17"
            assert request(f"{daemon.http}/channels/b?id=order-17", "POST", b"one").status == 422
            found = {name: request(f"{daemon.http}/channels/{name}/events/order-17").body for name in "ab"}
            assert found == {"a": b"one", "b": b"two"}


def test_the_limit_is_that_of_the_configuration_also_after_a_reload() -> None:
    with running("[limits]\nchannels_per_event = 3\n") as daemon:
        lines = [{"channels": names(0, count), "data": "x"} for count in (3, 4)]
        assert ["error" in answer for answer in batch(daemon, *lines)] == [False, True]
        text = daemon.config.read_text()
        daemon.config.write_text(text.replace("channels_per_event = 3", "channels_per_event = 4"))
        daemon.signal(SIGHUP)
        eventually(lambda: "reloaded the configuration" in daemon.log, "it is reloaded")
        assert ["error" in answer for answer in batch(daemon, *lines)] == [False, False]

"""What comes through is exactly what the rights allow, whatever is done over whatever transport.

A model that is written from the documentation decides what is allowed: it knows nothing of pushd, and finds out by
trying names which patterns a pattern covers. The daemon must answer and deliver what it says, and nothing else.

``HYPOTHESIS_PROFILE=long`` makes many more and longer runs, and shrinks what fails, which may take minutes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote, urlencode

from hypothesis import HealthCheck
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pushd.bus.grants import Identity
from pushd.daemon.integrations import Integrations
from tests.rigs.daemon import DaemonRig, StoredDaemonRig
from tests.rigs.effort import model
from tests.rigs.http2_client import Http2Client
from tests.rigs.http_client import HttpClient, Response, batch_replies
from tests.rigs.subscribers import (
    JsonSubscriber,
    JsonTunnelSubscriber,
    PollSubscriber,
    PushSubscriber,
    RawSubscriber,
    RawTunnelSubscriber,
    SseSubscriber,
    StreamSubscriber,
    Subscriber,
)
from tests.rigs.vouching import FakeTokens, identity, with_token
from tests.unit.bus.test_patterns import means

CHANNELS = ("a", "b", "a/x", "a/y", "a.x", "b/x/y", "none/x")
"""The last keeps no events."""

PATTERNS = ("*", "**", "a/*", "a/**", "*/x", "**/x", "a/**/x", "*/*", "a.*", "b/**/y", "none/**")
SEEN_BY_SUBSCRIBERS = ("a", "a/x", "b/x/y")
"""Channels whose presence is shown to who may subscribe."""

_NAMES = tuple(
    segments[0] + "".join(map("".join, zip(separators, segments[1:], strict=True)))
    for size, of in ((1, "abxyno"), (2, "abxyno"), (3, "abxyno"), (4, "axo"))
    for segments in product([{"n": "none", "o": "other"}.get(letter, letter) for letter in of], repeat=size)
    for separators in product("/.", repeat=size - 1)
)
"""Enough names to tell any two of the patterns apart."""


# What the documentation says


@cache
def meant(text: str) -> frozenset[str]:
    """Return the names that a pattern or name stands for, of those that are tried."""
    return frozenset(name for name in {*_NAMES, *CHANNELS} if means(text, name))


@dataclass(frozen=True)
class Rights:
    """What somebody may do."""

    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()
    operator: bool = False
    user: str | None = None

    def may_publish(self, *channels: str) -> bool:
        """To all of these channels."""
        return all(any(channel in meant(text) for text in self.publish) for channel in channels)

    def may_subscribe(self, *texts: str) -> bool:
        """To all of these: one pattern that it has must cover the whole of each."""
        return all(any(meant(text) <= meant(wide) for wide in self.subscribe) for text in texts)

    def may_see(self, channel: str) -> bool:
        """Its presence."""
        return self.operator or (channel in SEEN_BY_SUBSCRIBERS and self.may_subscribe(channel))

    @property
    def status(self) -> int:
        """Say how it is refused: to who shows no token, that one would help."""
        return 401 if self.user is None else 403


@dataclass(frozen=True)
class Fact:
    """An event that was published."""

    number: int
    channels: tuple[str, ...]
    id: str

    @property
    def data(self) -> str:
        return f"event {self.number}"


@dataclass(eq=False)
class Member:
    """A subscriber that was let in, and what it is to get."""

    subscriber: Subscriber
    rights: Rights
    texts: dict[str, None]
    events: list[str] = field(default_factory=list)
    """The data of what has to be delivered when the reactor has had its turn, and nothing else."""
    replayed: dict[int, str] | None = None
    """What comes at the end of the turn, by its number, because the past was asked for."""
    answers: list[tuple[object, ...]] = field(default_factory=list)
    """What is to be said to a WebSocket beside events."""
    heard: int = 0
    open: set[str] = field(default_factory=set)
    """What it was last told to be subscribed to."""

    def gets(self, *channels: str) -> bool:
        return any(channel in meant(text) for text in self.texts for channel in channels)

    def take(self, fact: Fact) -> None:
        if not self.gets(*fact.channels):
            return
        if self.replayed is None:
            self.events.append(fact.data)
        else:
            self.replayed[fact.number] = fact.data

    def lose(self, text: str, facts: list[Fact]) -> None:
        """Be subscribed to `text` no more: what was to be replayed of it is not."""
        del self.texts[text]
        if self.replayed is not None:
            self.replayed = {n: data for n, data in self.replayed.items() if self.gets(*facts[n].channels)}

    def end_of_turn(self) -> None:
        if self.replayed is not None:
            self.events += [data for _, data in sorted(self.replayed.items())]
            self.replayed = None


# What is tried

_Kind = tuple[type[Subscriber], bool]

KINDS: tuple[_Kind, ...] = (
    *((kind, False) for kind in (SseSubscriber, StreamSubscriber, PollSubscriber)),
    *((kind, True) for kind in (SseSubscriber, StreamSubscriber, PollSubscriber, PushSubscriber)),
    *((kind, False) for kind in (JsonSubscriber, RawSubscriber, JsonTunnelSubscriber, RawTunnelSubscriber)),
    *((kind, False) for kind in (JsonSubscriber, JsonTunnelSubscriber)),
)
"""Each with whether it speaks HTTP/2."""

CHANNEL = st.sampled_from(CHANNELS)
TEXT = st.one_of(CHANNEL, st.sampled_from(PATTERNS))
REACH = st.lists(TEXT, max_size=3, unique=True).map(tuple)
WHO = st.sampled_from((None, "first", "second", "third", "third", "all", "another"))
"""A token, or none."""

WHICH = st.integers(0, 99)
CONFIG = (
    "[site]\ndemo = no\n[auth]\nanonymous =\nanonymous_publish = {}\nanonymous_subscribe = {}\n"
    "[channels]\nhistory_size = 10000\n[channels:none/**]\nhistory_size = 0\n"
    + "".join(f"[channels:{name}]\npresence = subscribers\n" for name in SEEN_BY_SUBSCRIBERS)
)


class GrantsMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.members: list[Member] = []
        self.gone: list[tuple[Member, int]] = []
        """Those that have ended, with how much they had got."""
        self.facts: list[Fact] = []
        self.kept: dict[str, list[Fact]] = {name: [] for name in CHANNELS}

    @initialize(
        publish=REACH,
        subscribe=REACH,
        first=REACH,
        second=REACH,
        third=REACH,
        more=REACH,
        is_operator=st.booleans(),
    )
    def begin(
        self,
        publish: tuple[str, ...],
        subscribe: tuple[str, ...],
        first: tuple[str, ...],
        second: tuple[str, ...],
        third: tuple[str, ...],
        more: tuple[str, ...],
        is_operator: bool,
    ) -> None:
        self.rights: dict[str | None, Rights] = {
            None: Rights(publish, subscribe),
            "first": Rights(second, first, user="alice"),
            "second": Rights(first, second, is_operator, "alice"),
            "third": Rights((*third, *more), (*more, *first), user="alice"),
            "all": Rights(("**",), ("**",), True, "alice"),
            "another": Rights(more, third, not is_operator, "bob"),
        }
        tokens = FakeTokens(**{who: _identity(has) for who, has in self.rights.items() if who is not None})
        self.rig = self.make_rig(CONFIG.format(", ".join(publish), ", ".join(subscribe)), Integrations(tokens))

    def make_rig(self, config: str, integrations: Integrations) -> DaemonRig:
        return DaemonRig(config, integrations=integrations)

    def turn(self) -> None:
        """Let the reactor have its turn, and compare what everybody has got."""
        self.rig.turn()
        for member in self.members:
            member.end_of_turn()
            if isinstance(member.subscriber, JsonSubscriber):
                self.compare_messages(member, member.subscriber)
            else:
                got = member.subscriber.events()
                assert [event.data.decode() for event in got] == member.events, member
                for event in got:
                    assert event.channel is None or member.gets(event.channel), (member, event)
            assert member.subscriber.is_open, member

    def go_on(self, hurries: bool) -> None:
        """Let the reactor have its turn, unless what follows is to be done in the same."""
        if not hurries:
            self.turn()

    def compare_messages(self, member: Member, subscriber: JsonSubscriber) -> None:
        messages = subscriber.socket.json
        for message in messages[member.heard :]:
            if message["type"] == "event":
                assert any(message["channel"] in meant(text) for text in member.open), (member, message)
            elif message["type"] == "subscribed":
                member.open.add(message["channel"])
            elif message["type"] == "unsubscribed":
                member.open.discard(message["channel"])
        member.heard = len(messages)
        assert [message["data"] for message in messages if message["type"] == "event"] == member.events, member
        answers = [_answer(message) for message in messages if message["type"] != "event"]
        assert answers == member.answers, member
        assert member.open == set(member.texts), member

    def ask(self, who: str | None, method: str, target: str, body: bytes, where: int) -> tuple[Rights, Response]:
        """Make a request that shows the token of `who`, if it has one, somewhere."""
        headers = []
        if who is not None and where % 2:
            headers.append(("authorization", f"Bearer {who}"))
        elif who is not None:
            target += f"{'&' if '?' in target else '?'}access_token={who}"
        self.rig._http = lambda rig: (Http2Client if where % 4 > 1 else HttpClient)(rig)
        return self.rights[who], self.rig.request(method, target, headers=headers, body=body)

    def end(self, member: Member) -> None:
        """Record that a member has left."""
        self.members.remove(member)
        self.gone.append((member, len(member.subscriber.events())))

    # Publishing

    def published(self, event_id: str, *channels: str) -> int:
        """Record an event; return the number of members that must get it."""
        fact = Fact(len(self.facts), channels, event_id)
        self.facts.append(fact)
        for channel in channels:
            if not channel.startswith("none"):
                self.kept[channel].append(fact)
        for member in self.members:
            member.take(fact)
        return sum(member.gets(*channels) for member in self.members)

    @property
    def next_data(self) -> str:
        return Fact(len(self.facts), (), "").data

    @rule(who=WHO, channel=CHANNEL, where=WHICH, hurries=st.booleans())
    def post(self, who: str | None, channel: str, where: int, hurries: bool) -> None:
        target, data = f"/channels/{quote(channel, safe='')}", self.next_data
        rights, response = self.ask(who, "POST", target, data.encode(), where)
        if rights.may_publish(channel):
            assert response.status == 201, response
            assert response.json["subscribers"] == self.published(response.json["id"], channel)
        else:
            assert response.status == rights.status, response
        self.go_on(hurries)

    @rule(who=WHO, lines=st.lists(st.lists(CHANNEL, min_size=1, max_size=3, unique=True), min_size=1, max_size=3),
          where=WHICH, hurries=st.booleans())  # fmt: skip
    def post_many(self, who: str | None, lines: list[list[str]], where: int, hurries: bool) -> None:
        rights = self.rights[who]
        number, body = len(self.facts), b""
        for channels in lines:
            draft = {"channels": channels, "data": Fact(number, (), "").data}
            number += rights.may_publish(*channels)
            body += json.dumps(draft).encode() + b"\n"
        _, response = self.ask(who, "POST", "/publish", body, where)
        if not rights.publish:
            assert response.status == rights.status, response
            self.go_on(hurries)
            return
        for channels, answer in zip(lines, batch_replies(response), strict=True):
            if rights.may_publish(*channels):
                assert answer["subscribers"] == self.published(answer["id"], *channels)
            else:
                assert answer["error"]["status"] == rights.status
        self.go_on(hurries)

    # Subscribing

    @rule(kind=st.sampled_from(KINDS), who=WHO, texts=st.lists(TEXT, max_size=3, unique=True), since=st.booleans())
    def subscribe(
        self, kind: tuple[type[Subscriber], bool], who: str | None, texts: list[str], since: bool
    ) -> None:
        self.turn()
        how, is_http2 = kind
        if not texts and not issubclass(how, JsonSubscriber):
            texts = ["a/x"]
        self.rig._http = lambda rig: (Http2Client if is_http2 else HttpClient)(rig)
        rights, shown = self.rights[who], how if who is None else with_token(how, who)
        subscriber = shown(self.rig, texts, "earliest" if since else None)
        if not rights.may_subscribe(*texts):
            refusal = subscriber.refusal
            assert refusal is not None and refusal.status == rights.status, refusal
            subscriber.disconnect()
            return
        assert subscriber.is_open and subscriber.refusal is None
        member = Member(subscriber, rights, dict.fromkeys(texts))
        if since:
            self.replay(member, *texts)
        if isinstance(subscriber, JsonSubscriber):
            member.answers = [("subscribed", text) for text in texts]
        self.members.append(member)
        self.turn()

    def replay(self, member: Member, *texts: str) -> None:
        """Have a member get all that these channels keep, too."""
        if member.replayed is None:
            member.replayed = {}
        for channel in CHANNELS:
            if any(channel in meant(text) for text in texts):
                member.replayed |= {fact.number: fact.data for fact in self.kept[channel]}

    @precondition(lambda self: self.members)
    @rule(which=WHICH)
    def leave(self, which: int) -> None:
        self.turn()
        member = self.members[which % len(self.members)]
        self.end(member)
        member.subscriber.disconnect()

    # Over WebSocket

    def speakers(self, kind: type[Subscriber]) -> list[Member]:
        return [member for member in self.members if isinstance(member.subscriber, kind)]

    def say(self, which: int, hurries: bool, **message: object) -> Member:
        """Send a message over a WebSocket."""
        speakers = self.speakers(JsonSubscriber)
        member = speakers[which % len(speakers)]
        assert isinstance(member.subscriber, JsonSubscriber)
        self.go_on(hurries)
        member.subscriber.socket.say(**message)
        return member

    @precondition(lambda self: self.speakers(JsonSubscriber))
    @rule(which=WHICH, channels=st.lists(CHANNEL, min_size=1, max_size=2, unique=True), hurries=st.booleans())
    def say_publish(self, which: int, channels: list[str], hurries: bool) -> None:
        member = self.say(which, hurries, type="publish", channels=channels, data=self.next_data, id=self.own_id)
        if member.rights.may_publish(*channels):
            self.published(self.own_id, *channels)
            member.answers.append(("published",))
        else:
            member.answers.append(("error", member.rights.status))
        self.go_on(hurries)

    @property
    def own_id(self) -> str:
        return f"id of {len(self.facts)}"

    @precondition(lambda self: self.speakers(JsonSubscriber))
    @rule(which=WHICH, text=TEXT, since=st.booleans(), hurries=st.booleans())
    def say_subscribe(self, which: int, text: str, since: bool, hurries: bool) -> None:
        asked = {"since": "earliest"} if since else {}
        member = self.say(which, hurries, type="subscribe", channel=text, **asked)
        if not member.rights.may_subscribe(text):
            member.answers.append(("error", member.rights.status))
            return
        member.texts[text] = None
        member.answers.append(("subscribed", text))
        if since:
            self.replay(member, text)

    @precondition(lambda self: self.speakers(JsonSubscriber))
    @rule(which=WHICH, text=TEXT, hurries=st.booleans())
    def say_unsubscribe(self, which: int, text: str, hurries: bool) -> None:
        member = self.say(which, hurries, type="unsubscribe", channel=text)
        if text in member.texts:
            member.lose(text, self.facts)
            member.answers.append(("unsubscribed", text))
        else:
            member.answers.append(("error", 404))

    @precondition(lambda self: self.speakers(JsonSubscriber))
    @rule(which=WHICH, who=st.sampled_from(("first", "second", "third", "all", "another", "forged")),
          hurries=st.booleans())  # fmt: skip
    def say_renew(self, which: int, who: str, hurries: bool) -> None:
        member = self.say(which, hurries, type="renew", token=who)
        rights = self.rights.get(who)
        if rights is None or rights.user != member.rights.user:
            member.answers.append(("error", 401 if rights is None else 403))
            return
        member.rights = rights
        for text in [text for text in member.texts if not rights.may_subscribe(text)]:
            member.lose(text, self.facts)
            member.answers.append(("unsubscribed", text))
        member.answers.append(("renewed",))

    @precondition(lambda self: self.speakers(RawSubscriber))
    @rule(which=WHICH)
    def say_raw(self, which: int) -> None:
        self.turn()
        speakers = self.speakers(RawSubscriber)
        member = speakers[which % len(speakers)]
        subscriber = member.subscriber
        assert isinstance(subscriber, RawSubscriber)
        subscriber.socket.send(self.next_data)
        (text, *others) = member.texts
        if text in CHANNELS and not others and member.rights.may_publish(text):
            self.published("unknown", text)
            self.turn()
        else:
            self.end(member)
            self.rig.turn()
            assert subscriber.socket.close is not None and subscriber.socket.close[0] == 1008
        self.turn()

    # Reading

    @rule(who=WHO, channel=CHANNEL, where=WHICH, method=st.sampled_from(("GET", "GET", "HEAD")))
    def read_history(self, who: str | None, channel: str, where: int, method: str) -> None:
        target = f"/channels/{quote(channel, safe='')}/events?limit=1000"
        rights, response = self.ask(who, method, target, b"", where)
        assert response.status == (200 if rights.may_subscribe(channel) else rights.status), response
        if response.status == 200 and method == "GET":
            assert [event["data"] for event in response.json["events"]] == [one.data for one in self.kept[channel]]

    @rule(who=WHO, texts=st.lists(TEXT, min_size=1, max_size=2, unique=True), where=WHICH)
    def poll(self, who: str | None, texts: list[str], where: int) -> None:
        kept: dict[int, str] = {}
        for channel in CHANNELS:
            if any(channel in meant(text) for text in texts):
                kept |= {fact.number: fact.data for fact in self.kept[channel]}
        if not kept and self.rights[who].may_subscribe(*texts):
            return  # it would wait
        query = urlencode({"channel": texts, "since": "earliest", "limit": 1000}, doseq=True)
        rights, response = self.ask(who, "GET", f"/poll?{query}", b"", where)
        assert response.status == (200 if rights.may_subscribe(*texts) else rights.status), response
        if response.status == 200:
            assert [event["data"] for event in response.json["events"]] == [
                data for _, data in sorted(kept.items())
            ]

    @precondition(lambda self: self.facts)
    @rule(who=WHO, channel=CHANNEL, which=WHICH, where=WHICH)
    def read_event(self, who: str | None, channel: str, which: int, where: int) -> None:
        fact = self.facts[which % len(self.facts)]
        target = f"/channels/{quote(channel, safe='')}/events/{quote(fact.id)}"
        rights, response = self.ask(who, "GET", target, b"", where)
        if not rights.may_subscribe(channel):
            assert response.status == rights.status, response
        elif fact in self.kept[channel] and fact.id != "unknown":
            assert (response.status, response.body.decode()) == (200, fact.data)
        else:
            assert response.status == 404, response

    @rule(who=WHO, channel=CHANNEL, where=WHICH)
    def read_state(self, who: str | None, channel: str, where: int) -> None:
        rights, response = self.ask(who, "GET", f"/channels/{quote(channel, safe='')}", b"", where)
        is_allowed = rights.operator or rights.may_subscribe(channel)
        assert response.status == (200 if is_allowed else rights.status), response
        if is_allowed:
            subscribers = sum(member.gets(channel) for member in self.members)
            state = response.json
            assert (state["retained"], state["subscribers"]) == (len(self.kept[channel]), subscribers)

    @rule(who=WHO, where=WHICH)
    def list_channels(self, who: str | None, where: int) -> None:
        rights, response = self.ask(who, "GET", "/channels", b"", where)
        is_allowed = rights.operator or rights.may_subscribe("**")
        assert response.status == (200 if is_allowed else rights.status), response
        if is_allowed:
            kept = {one["channel"]: one["retained"] for one in response.json["channels"] if one["retained"]}
            assert kept == {channel: len(facts) for channel, facts in self.kept.items() if facts}

    @rule(who=WHO, channel=CHANNEL, where=WHICH)
    def see_presence(self, who: str | None, channel: str, where: int) -> None:
        rights, response = self.ask(who, "GET", f"/channels/{quote(channel, safe='')}/presence", b"", where)
        assert response.status == (200 if rights.may_see(channel) else rights.status), response
        if response.status == 200:
            there = [member.rights.user for member in self.members if member.gets(channel)]
            assert response.json["count"] == len(there)
            assert sorted(map(str, (one["user"] for one in response.json["connections"]))) == sorted(
                map(str, there)
            )

    @rule(who=WHO, where=WHICH)
    def list_connections(self, who: str | None, where: int) -> None:
        rights, response = self.ask(who, "GET", "/connections", b"", where)
        assert response.status == (200 if rights.operator else rights.status), response
        if rights.operator:
            shown = [(one["user"], one["channels"]) for one in response.json["connections"]]
            there = [(member.rights.user, list(member.texts)) for member in self.members]
            assert sorted(shown, key=str) == sorted(there, key=str)

    # Looking after things

    @rule(who=WHO, channel=CHANNEL, where=WHICH)
    def delete(self, who: str | None, channel: str, where: int) -> None:
        self.turn()
        named = [member for member in self.members if channel in member.texts]
        is_there = bool(self.kept[channel] or named or self.rig.parts.bus.log.get(channel))
        rights, response = self.ask(who, "DELETE", f"/channels/{quote(channel, safe='')}", b"", where)
        if not rights.operator:
            assert response.status == rights.status, response
            return
        assert response.status == (204 if is_there else 404), response
        self.kept[channel] = []
        for member in named:
            self.end(member)
        self.turn()
        assert all(not member.subscriber.is_open or member.subscriber.closed_reason for member in named)

    @rule(who=WHO, channel=CHANNEL, where=WHICH)
    def close_connections(self, who: str | None, channel: str, where: int) -> None:
        self.turn()
        there = [member for member in self.members if member.gets(channel)]
        rights, response = self.ask(who, "DELETE", f"/connections?channel={quote(channel, safe='')}", b"", where)
        if not rights.operator:
            assert response.status == rights.status, response
            return
        assert (response.status, response.json) == (200, {"closed": len(there)})
        for member in there:
            self.end(member)
        self.turn()

    @invariant()
    def who_is_gone_is_gone(self) -> None:
        if hasattr(self, "rig"):
            assert self.rig.traces.subscribers == len(self.members)

    def teardown(self) -> None:
        if not hasattr(self, "rig"):
            return
        self.turn()
        for member, count in self.gone:
            assert len(member.subscriber.events()) == count, member
        for member in self.members:
            member.subscriber.disconnect()
        self.rig.turn()
        assert (self.rig.traces.subscribers, self.rig.traces.sessions) == (0, 0)


def _identity(rights: Rights) -> Identity:
    return identity(publish=rights.publish, subscribe=rights.subscribe, operator=rights.operator, user=rights.user)


def _answer(message: dict[str, Any]) -> tuple[object, ...]:
    if message["type"] == "error":
        return ("error", message["status"])
    return (message["type"], message["channel"]) if "channel" in message else (message["type"],)


class StoredGrantsMachine(GrantsMachine):
    """The same with a store, which takes what is published at the end of the turn."""

    def make_rig(self, config: str, integrations: Integrations) -> DaemonRig:
        self.directory = TemporaryDirectory(prefix="pushd-grants-")
        return StoredDaemonRig(Path(self.directory.name), config, integrations=integrations)

    def go_on(self, hurries: bool) -> None:
        self.turn()

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "rig"):
            assert isinstance(self.rig, StoredDaemonRig)
            self.rig.abandon()
            self.directory.cleanup()


SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]

GrantsTests = GrantsMachine.TestCase
GrantsTests.settings = model(150, 40, long=(2000, 80), suppress_health_check=SLOW)
StoredGrantsTests = StoredGrantsMachine.TestCase
StoredGrantsTests.settings = model(60, 40, long=(500, 80), suppress_health_check=SLOW)

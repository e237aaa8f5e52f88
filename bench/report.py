"""The report of a run of the suite, in Markdown. ``python bench/report.py`` recreates it from the results."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.bounds import Verdict, judge
from bench.cases import CASES, Case
from bench.chart import svg
from bench.results import Results, waiting
from bench.servers import PEERS

__all__ = ["bounds_table", "markdown", "number", "summary", "table", "write"]

_DOCUMENTS = Path(__file__).parent.parent / "docs" / "benchmarks"

_INTRODUCTION = """\
Each figure is the median of {rounds}. In a round the servers take turns, each with a fresh process, pinned to
one core; the load client, a C program, has the other. A ratio is the median of the ratios within the rounds, so
it need not be exactly that of two medians beside it. CPU is user and system time of all the server's processes.
Believe the ratios; the absolute figures are those of this machine.

The load client does not sleep: it looks for input every 50 µs. Otherwise every server that is slower than the
client would also pay for waking it, once for each delivery, which subscribers elsewhere do not cost.

**How events are published.** Each server is published to as its users would: pushd over a WebSocket, in JSON;
nchan by `POST` over connections that are kept, one for each event in flight; ws, websockets and aiohttp, which
are libraries, by a WebSocket message that their server program passes on; the bare C loop by a line over TCP. A
row says so where it is otherwise. With 16 in flight, an event is published whenever one has reached everybody;
what falls due in one turn of the load client goes out together, if it is for one connection.

**What is kept.** The others keep what is published in memory, or not at all, and so does pushd, with
`store = memory`, except where a row says that it is with its store.

**What subscribers get.** The data of an event has {payload} bytes. pushd sends it in its JSON messages with
everything else that they have, nchan and the libraries send the bare data; over SSE all but aiohttp send an id
too. SSE beside ws is Node's own `http`. Every delivery is checked: each subscriber has to get each event once,
and in order if they are published over one connection.

**The bare C loop** (`bench/peers/floor.c`) makes a frame once and calls `send()` for each subscriber and event.
It is the least that a server can do that does not join events, so a figure below it comes from joining.

**TLS**: one certificate for all, ECDSA on P-256, and no resumption. nginx has the protocols of Debian's
configuration, TLS 1.2 and 1.3; sessions, tickets and ciphers are everybody's defaults. The publisher does not
use TLS.

**Latency** is from the call that publishes to the arrival at a subscriber, over all of them; *last* is the
median of the times until the last of them had the event. Clients connect all at once, up to 4,000 of them."""

_HEAD_FAN_OUT = (
    "in flight",
    "server",
    "CPU per delivery, µs",
    "÷ C loop",
    "÷ pushd",
    "deliveries/s",
    "÷ pushd",
    "p50, ms",
    "p99, ms",
    "max, ms",
    "last, ms",
)
_HEAD_CONNECT = (
    "server",
    "CPU per connection, µs",
    "÷ C loop",
    "÷ pushd",
    "until all are connected, s",
    "resident per connection, KB",
    "÷ pushd",
)
_HEAD_PUBLISH = ("how", "server", "events/s", "÷ twisted.web", "÷ pushd", "CPU per event, µs")


def number(value: float | None) -> str:
    """Format a number with three significant digits."""
    if value is None:
        return "-"
    if abs(value) >= 1000:
        return f"{round(value, 2 - len(str(int(abs(value)))) + 1):,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.0001 else "0"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown; columns of numbers are aligned to the right."""
    is_text = [any(row[at][:1].isalpha() for row in rows) for at in range(len(head))]
    rule = "|".join("---" if text else "--:" for text in is_text)
    return (
        "\n".join(f"| {' | '.join(row)} |" for row in [head])
        + f"\n|{rule}|\n"
        + "\n".join(f"| {' | '.join(row)} |" for row in rows)
    )


@dataclass(frozen=True, slots=True)
class _Cells:
    """The cells of one server in one case."""

    results: Results
    case: str
    peer: str

    def plain(self, name: str, scale: float = 1) -> str:
        value = self.results.median(self.case, self.peer, name)
        return number(None if value is None else value * scale)

    def ratio(self, name: str, to: str, case: str = "") -> str:
        return number(self.results.ratio((self.case, self.peer, name), (case or self.case, to, name)))


def _title(peer: str) -> str:
    return PEERS[peer].title if peer in PEERS else peer


def _fan_out(results: Results, case: Case) -> str:
    rows = []
    has_peak = case.name in ("readers", "stalled")
    for level in case.in_flight:
        for peer in results.peers(case.name):
            cells = _Cells(results, case.name, peer)
            names = [f"{level}:{name}" for name in ("p50_ms", "p99_ms", "max_ms", "last_p50_ms")]
            row = [str(level) if not case.rate else "-", _title(peer)]
            row += [
                cells.plain(f"{level}:cpu_us"),
                *(cells.ratio(f"{level}:cpu_us", to) for to in ("floor", "pushd")),
            ]
            row += [cells.plain(f"{level}:per_s"), cells.ratio(f"{level}:per_s", "pushd")]
            row += [cells.plain(name) for name in names]
            rows.append([*row, *([cells.plain("peak_bytes", 1 / 1024**2)] if has_peak else [])])
    return table([*_HEAD_FAN_OUT, *(["peak memory, MB"] if has_peak else [])], rows)


def _connect(results: Results, case: Case) -> str:
    rows = []
    for peer in results.peers(case.name):
        cells = _Cells(results, case.name, peer)
        row = [_title(peer), cells.plain("connect_cpu_us")]
        row += [cells.ratio("connect_cpu_us", to) for to in ("floor", "pushd")]
        rows.append([*row, cells.plain("connect_s"), cells.plain("bytes", 1 / 1024), cells.ratio("bytes", "pushd")])
    return table(_HEAD_CONNECT, rows)


def _publish(results: Results, cases: Sequence[Case]) -> str:
    rows = []
    for case in cases:
        for peer in results.peers(case.name):
            cells = _Cells(results, case.name, peer)
            row = [case.title, _title(peer), cells.plain("events_per_s")]
            row += [cells.ratio("events_per_s", "twisted.web", "publish-post")]
            rows.append([*row, cells.ratio("events_per_s", "pushd"), cells.plain("event_cpu_us")])
    return table(_HEAD_PUBLISH, rows)


def bounds_table(verdicts: Sequence[Verdict]) -> str:
    """Return the table of requirements and measured values."""
    rows = []
    for verdict in verdicts:
        bound = verdict.bound
        unit = f" {bound.unit}" if bound.unit else ""
        value = "-" if verdict.value is None else f"{number(verdict.value)}{unit}"
        rows.append([bound.text, f"{bound.relation} {number(bound.limit)}{unit}", value, verdict.text])
    return table(("what", "wanted", "measured", ""), rows)


def _sections(results: Results) -> Iterator[str]:
    measured = [case for case in CASES if results.peers(case.name)]
    headings: Sequence[tuple[str, Callable[[Case], bool]]] = (
        ("Fan-out", lambda case: case.mode == "fanout" and not case.rate and case.transport != "http2"),
        ("Latency", lambda case: case.name.startswith("latency")),
        ("Clients that do not read", lambda case: case.name in ("readers", "stalled")),
        ("HTTP/2", lambda case: case.transport == "http2"),
        ("Connecting, and memory while idle", lambda case: case.mode == "connect"),
    )
    for heading, belongs in headings:
        cases = [case for case in measured if belongs(case)]
        if cases:
            yield f"## {heading}"
        for case in cases:
            yield f"### {case.title}"
            yield _connect(results, case) if case.mode == "connect" else _fan_out(results, case)
    publishing = [case for case in measured if case.mode == "publish"]
    if publishing:
        yield "## Publishing"
        yield "Into a channel without subscribers. ws and aiohttp keep nothing of what is published."
        yield _publish(results, publishing)


def _disturbance(results: Results) -> str:
    """Describe the share of time in which server or client waited for their core."""
    shares = [share for run in results.runs for share in waiting(run.result)]
    if not shares:
        return ""
    return (
        "While something was measured, the server or the load client was ready but had to wait, because something"
        f" else ran on its core, {statistics.median(shares):.0%} of the time (the median of all measurements;"
        f" {max(shares):.0%} at most). That lowers rates and raises latencies; figures of CPU suffer less."
    )


def _errors(results: Results) -> Iterator[str]:
    errors = results.errors()
    if errors:
        yield "## What went wrong"
        yield "\n".join(
            f"- {run.case}, {_title(run.peer)}, round {run.round}: {run.result.get('error', 'events were missed')}"
            for run in errors
        )


def _measured(about: Mapping[str, Any]) -> str:
    """Return the date and the command of the run, and the commands of parts measured separately."""
    also = [f"; {part} with `{command}`" for part, command in about.get("also", {}).items()]
    return f"Measured on {about['date']} with `{about['command']}`{''.join(also)}."


def markdown(results: Results) -> str:
    """Return the report."""
    about = results.about
    rounds = "one round" if about["rounds"] == 1 else f"{about['rounds']} rounds"
    parts = [
        "# Fan-out: pushd and others",
        _measured(about),
        "![CPU per delivery](fan-out.svg)",
        "## What is wanted",
        bounds_table(judge(results)),
        "## How it was measured",
        _INTRODUCTION.format(rounds=rounds, payload=100),
        _disturbance(results),
        "\n".join(f"- {name}: {text}" for name, text in {**about["machine"], **about["versions"]}.items()),
        *_sections(results),
        *_errors(results),
        "Made by `python bench/report.py` from `fan-out.json`.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def summary(results: Results) -> str:
    """Return the requirements and the measured values, for a terminal."""
    lines = []
    for verdict in judge(results):
        if verdict.value is not None:
            bound = verdict.bound
            wanted = f"{bound.relation} {number(bound.limit)}"
            lines.append(f"{verdict.text.strip('*'):14} {number(verdict.value):>7}  {wanted:15} {bound.text}")
    failed = [f"failed: {run.case}, {run.peer}, round {run.round}" for run in results.errors()]
    return "\n".join([*lines, *failed])


def write(results: Results, to: Path) -> None:
    """Write report and chart into a folder."""
    (to / "fan-out.md").write_text(markdown(results))
    (to / "fan-out.svg").write_text(svg(results))


def main(arguments: Sequence[str]) -> None:
    """Recreate the report from the results in a folder."""
    folder = Path(arguments[0]) if arguments else _DOCUMENTS
    write(Results.load(folder / "fan-out.json"), folder)


if __name__ == "__main__":
    main(sys.argv[1:])

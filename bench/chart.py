"""The chart of the report: CPU per delivery, by transport and by events in flight, as SVG."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from bench.results import Results
from bench.servers import PEERS

__all__ = ["svg"]

_ROWS = (
    ("websocket-1000", "WebSocket"),
    ("sse-1000", "Server-Sent Events"),
    ("websocket-tls-1000", "WebSocket over TLS"),
)
_LEVELS = ((1, "one publish in flight"), (16, "16 publishes in flight"))

_WIDTH = 920
_MARGIN = 24
_NAMES = 150
_BARS = 270
_GAP = 60
_BAR = 16
_STEP = 24
_TOP = 92
_BETWEEN = 46
_FOOT = 40

_STYLE = """\
svg { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; }
.page { fill: #ffffff; stroke: #d0d7de; } .text { fill: #1f2328; } .soft { fill: #59636e; }
.title { font-size: 17px; font-weight: 600; } .head { font-weight: 600; }
.line { stroke: #d0d7de; } .other { fill: #b6bfc9; } .floor { fill: #59636e; } .pushd { fill: #0969da; }
.ours { font-weight: 600; }
@media (prefers-color-scheme: dark) {
.page { fill: #0d1117; stroke: #3d444d; } .text { fill: #f0f6fc; } .soft { fill: #9198a1; }
.line { stroke: #3d444d; } .other { fill: #4a525c; } .floor { fill: #9198a1; } .pushd { fill: #4493f8; }
}"""


def svg(results: Results) -> str:
    """Draw the rows with results, without the others."""
    rows = [row for row in _ROWS if results.peers(row[0])]
    body = list(_head())
    y = float(_TOP)
    for case, title in rows:
        body.extend(_row(results, case, title, y))
        y += _BETWEEN + _STEP * len(results.peers(case))
    height = y + _FOOT - _BETWEEN / 2
    note = (
        f"Medians of {results.about['rounds']} rounds, {results.about['date']}. User and system time of the server."
    )
    body.append(_text(_MARGIN, height - 18, note, "soft"))
    page = f'<rect class="page" x="0.5" y="0.5" width="{_WIDTH - 1}" height="{height - 1:g}" rx="6"/>'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:g}"'
            f' width="{_WIDTH}" height="{height:g}" role="img">',
            "<title>CPU per delivered event</title>",
            f"<style>\n{_STYLE}\n</style>",
            page,
            *body,
            "</svg>\n",
        ]
    )


def _head() -> Iterator[str]:
    yield _text(_MARGIN, 34, "CPU per delivered event, in microseconds: less is better", "text title")
    yield _text(_MARGIN, 54, "1,000 subscribers, 100 bytes, the server on one core", "soft")
    for column, (_, title) in enumerate(_LEVELS):
        yield _text(_left(column), _TOP - 12, title, "text head")


def _left(column: int) -> int:
    return _MARGIN + _NAMES + column * (_BARS + _GAP)


def _row(results: Results, case: str, title: str, y: float) -> Iterator[str]:
    """Draw one transport: a line per server and a column per number of events in flight, on one scale."""
    peers = results.peers(case)
    values = {
        (peer, level): results.median(case, peer, f"{level}:cpu_us") for peer in peers for level, _ in _LEVELS
    }
    most = max((value for value in values.values() if value is not None), default=1.0)
    yield _text(_MARGIN, y + 12, title, "text head")
    for at, peer in enumerate(peers):
        top = y + 22 + at * _STEP
        kind = peer if peer in ("pushd", "floor") else "other"
        yield _text(
            _MARGIN, top + 13, PEERS[peer].title.replace("`", ""), "text ours" if peer == "pushd" else "text"
        )
        for column, (level, _) in enumerate(_LEVELS):
            value, left = values[peer, level], _left(column)
            if value is None:
                yield _text(left, top + 13, "-", "soft")
                continue
            width = max(1.0, value / most * _BARS)
            yield f'<rect class="{kind}" x="{left}" y="{top:g}" width="{width:.1f}" height="{_BAR}" rx="2"/>'
            yield _text(left + width + 6, top + 13, f"{value:.3g}", "text ours" if peer == "pushd" else "text")
    for column in range(len(_LEVELS)):
        bottom = y + 18 + len(peers) * _STEP
        yield f'<line class="line" x1="{_left(column)}" x2="{_left(column)}" y1="{y + 18:g}" y2="{bottom:g}"/>'


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'

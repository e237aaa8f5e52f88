"""The figures in the README. ``python -m bench.readme`` updates them from the last run."""

from __future__ import annotations

from pathlib import Path

from bench.report import number
from bench.results import Results
from bench.servers import PEERS

__all__ = ["figures", "main", "put_in"]

_ROOT = Path(__file__).parent.parent
_BEGIN, _END = ".. figures begin; see bench/readme.py\n", ".. figures end\n"
_SERVERS = ("pushd", "floor", "nchan", "ws", "websockets", "aiohttp")
_COLUMNS = (
    ("websocket-1000", "1:cpu_us", 1.0),
    ("websocket-1000", "16:cpu_us", 1.0),
    ("websocket-1000", "16:per_s", 1.0),
    ("connect-websocket", "connect_cpu_us", 1.0),
    ("connect-websocket", "bytes", 1 / 1024),
)
_HEAD = (
    ("Server", "CPU per delivery,", "the same,", "deliveries/s,", "CPU per", "KB per idle"),
    ("", "1 in flight, us", "16 in flight, us", "16 in flight", "connection, us", "connection"),
)


def figures(results: Results) -> str:
    """Return the table and its introduction, in reStructuredText."""
    rows = [list(row) for row in _HEAD]
    for peer in _SERVERS:
        values = [(results.median(case, peer, name), scale) for case, name, scale in _COLUMNS]
        cells = [number(None if value is None else value * scale) for value, scale in values]
        rows.append([PEERS[peer].title.replace("`", ""), *cells])
    widths = [max(len(row[at]) for row in rows) for at in range(len(_HEAD[0]))]
    rule = "  ".join("=" * width for width in widths)
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    table = "\n".join([rule, *lines[:2], rule, *lines[2:], rule])
    return (
        f"Measured on {results.about['date']}: 1,000 WebSocket subscribers of one channel, events of 100 bytes;\n"
        "the server has one core and the load client, a C program, the other. The bare C loop is a program that\n"
        f"only calls ``send()`` for each subscriber: what is below it comes from joining.\n\n{table}\n"
    )


def put_in(readme: str, results: Results) -> str:
    """Return the README with the figures of `results`."""
    begin, rest = readme.split(_BEGIN)
    return f"{begin}{_BEGIN}\n{figures(results)}\n{_END}{rest.split(_END)[1]}"


def main() -> None:
    """Write the figures into the README."""
    readme = _ROOT / "README.rst"
    results = Results.load(_ROOT / "docs" / "benchmarks" / "fan-out.json")
    readme.write_text(put_in(readme.read_text(), results))


if __name__ == "__main__":
    main()

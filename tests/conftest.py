"""How much Hypothesis tries (profile ``dev``, ``ci`` or ``long``), and what no test leaves behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from pushd.bus import memory
from tests.rigs.effort import PROFILE

# No deadline: the duration of one example is that of a shared machine. What work costs is counted, not timed.
settings.register_profile("dev", max_examples=10, stateful_step_count=20, deadline=None)
settings.register_profile("ci", max_examples=100, stateful_step_count=50, deadline=None)
settings.register_profile("long", max_examples=1000, stateful_step_count=100, deadline=None)
settings.load_profile(PROFILE)


@pytest.fixture(autouse=True)
def enough_memory() -> Iterator[None]:
    """Undo what a test did to the headroom of the process: while memory is short, slower code is used."""
    before = memory.ask, memory.changed, memory.is_short
    yield
    memory.ask, memory.changed, memory.is_short = before

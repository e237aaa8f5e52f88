"""How much Hypothesis tries: the profiles ``dev``, ``ci`` and ``long``, chosen by ``HYPOTHESIS_PROFILE``."""

from __future__ import annotations

from hypothesis import settings

from tests.rigs.effort import PROFILE

# No deadline: the duration of one example is that of a shared machine. What work costs is counted, not timed.
settings.register_profile("dev", max_examples=10, stateful_step_count=20, deadline=None)
settings.register_profile("ci", max_examples=100, stateful_step_count=50, deadline=None)
settings.register_profile("long", max_examples=1000, stateful_step_count=100, deadline=None)
settings.load_profile(PROFILE)

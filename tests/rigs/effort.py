"""How many examples a property or a model tries, under each profile of Hypothesis."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import Phase, settings

__all__ = ["PROFILE", "examples", "model"]

PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "ci")
"""``dev`` is what ``make check`` uses, ``ci`` the gate; ``long`` is for a night."""

_IS_LONG, _IS_DEV = PROFILE == "long", PROFILE == "dev"


def examples(count: int, **more: Any) -> settings:
    """Return the settings of a property that is tried `count` times.

    Under ``dev`` it is ten times at most, under ``long`` ten times as many.
    """
    return settings(max_examples=min(count, 10) if _IS_DEV else count * 10 if _IS_LONG else count, **more)


def model(count: int, steps: int, *, long: tuple[int, int], **more: Any) -> settings:
    """Return the settings of a model that is run `count` times for `steps` steps; `long` has both under ``long``.

    Only ``long`` shrinks what it finds: that takes minutes.
    """
    if _IS_LONG:
        count, steps = long
    elif _IS_DEV:
        count, steps = min(count, 10), min(steps, 20)
    phases = tuple(Phase) if _IS_LONG else (Phase.explicit, Phase.reuse, Phase.generate)
    return settings(max_examples=count, stateful_step_count=steps, phases=phases, **more)

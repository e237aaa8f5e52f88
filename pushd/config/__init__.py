"""The configuration: one table of options, and everything derived from it.

``options`` is the table. ``loader`` converts an ini file to frozen dataclasses and back; ``reference`` generates
the sample file and the reference page.
"""

from pushd.config.addresses import parse_endpoint
from pushd.config.loader import changed_options, default, parse_bytes, print_config, state_directory
from pushd.config.restart import fixed_differences
from pushd.config.settings import Auth, Config, Hooks, Key, Limits, Listener, Log, Proxies, Site
from pushd.config.timeouts import Timeouts
from pushd.config.types import PATTERNS, OptionType, duration

__all__ = [
    "PATTERNS",
    "Auth",
    "Config",
    "Hooks",
    "Key",
    "Limits",
    "Listener",
    "Log",
    "OptionType",
    "Proxies",
    "Site",
    "Timeouts",
    "changed_options",
    "default",
    "duration",
    "fixed_differences",
    "parse_bytes",
    "parse_endpoint",
    "print_config",
    "state_directory",
]

"""The configuration: each option declared once, and everything derived from the declarations.

``settings`` has the frozen dataclasses whose fields declare the options, ``options`` the table of them. ``loader``
converts an ini file to the dataclasses and back; ``changes`` compares two configurations; ``reference`` generates
the sample file and the reference page.
"""

from pushd.config.access import Auth, Key, Proxies
from pushd.config.addresses import parse_endpoint
from pushd.config.changes import changed_options, fixed_differences
from pushd.config.hooks import Hooks
from pushd.config.limits import Limits
from pushd.config.loader import default, parse_bytes, print_config, state_directory
from pushd.config.settings import Config, Listener, Log, Site
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

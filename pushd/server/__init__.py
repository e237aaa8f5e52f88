"""The HTTP server: everything from the socket to the request."""

from pushd.server.access_log import RequestRecord
from pushd.server.half_close import outlast
from pushd.server.http2.promises import Answer, Outcome
from pushd.server.http2.stream import Stream
from pushd.server.incomplete_bodies import IncompleteBodies, IncompleteBody
from pushd.server.net import tls
from pushd.server.net.connection_limits import ConnectionLimiter
from pushd.server.net.connections import TwoWay
from pushd.server.net.listen import Port, prepare, wants_certificate
from pushd.server.net.polling import serve_few
from pushd.server.net.proxy_protocol import ProxyProtocolSettings
from pushd.server.net.systemd_sockets import unclaimed
from pushd.server.net.timers import Timer, TimerWheel
from pushd.server.net.tls import check_directory
from pushd.server.net.trusted_proxies import TrustedProxies
from pushd.server.net.turns import Turns
from pushd.server.net.writer import Send, Writer, writer
from pushd.server.problems import answer_problem, unlogged_problem
from pushd.server.request import Request
from pushd.server.web.credentials import TOKEN, subprotocols
from pushd.server.web.guard import RequestGuard
from pushd.server.web.preload import Assets, link_to
from pushd.server.web.resource import (
    DEFAULT_LIMIT,
    MAX_LIMIT,
    Answering,
    Branch,
    Endpoint,
    answer,
    answer_later,
    answer_nothing,
    decoded,
    event_fields,
    json_answer,
    parameter,
    path_of_event,
    since_of,
    subscribed_patterns,
    whole_number,
)
from pushd.server.web.site import PushdSite, Serving
from pushd.server.web.static import StaticFiles, tree

__all__ = [
    "DEFAULT_LIMIT",
    "MAX_LIMIT",
    "TOKEN",
    "Answer",
    "Answering",
    "Assets",
    "Branch",
    "ConnectionLimiter",
    "Endpoint",
    "IncompleteBodies",
    "IncompleteBody",
    "Outcome",
    "Port",
    "ProxyProtocolSettings",
    "PushdSite",
    "Request",
    "RequestGuard",
    "RequestRecord",
    "Send",
    "Serving",
    "StaticFiles",
    "Stream",
    "Timer",
    "TimerWheel",
    "TrustedProxies",
    "Turns",
    "TwoWay",
    "Writer",
    "answer",
    "answer_later",
    "answer_nothing",
    "answer_problem",
    "check_directory",
    "decoded",
    "event_fields",
    "json_answer",
    "link_to",
    "outlast",
    "parameter",
    "path_of_event",
    "prepare",
    "serve_few",
    "since_of",
    "subprotocols",
    "subscribed_patterns",
    "tls",
    "tree",
    "unclaimed",
    "unlogged_problem",
    "wants_certificate",
    "whole_number",
    "writer",
]

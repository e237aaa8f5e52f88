"""What is promised over HTTP/1.1 is promised over HTTP/2."""

from __future__ import annotations

from tests.component.api import test_channels as test_channels_api
from tests.component.api import test_health, test_publish
from tests.component.server import test_cookies, test_resource, test_site
from tests.component.server import test_guard as test_gate
from tests.component.server import test_guard_tokens as test_gate_tokens
from tests.component.transports import test_longpoll as test_poll
from tests.component.transports import test_ndjson as test_stream
from tests.component.transports import test_sse
from tests.rigs.daemon import DaemonTests
from tests.rigs.http2_client import Http2Client


class OverHttp2(DaemonTests):
    """Tests whose clients speak HTTP/2."""

    http = Http2Client


class PublishOneTests(OverHttp2, test_publish.PublishOneTests):
    """``POST /channels/{channel}``."""


class PublishManyTests(OverHttp2, test_publish.PublishManyTests):
    """``POST /publish``."""


class LongBatchTests(OverHttp2, test_publish.LongBatchTests):
    """``POST /publish`` with more than fits into one turn of the reactor."""


class ChannelTests(OverHttp2, test_channels_api.ChannelTests):
    """``/channels/{channel}``."""


class ChannelListTests(OverHttp2, test_channels_api.ChannelListTests):
    """``GET /channels``."""


class HistoryTests(OverHttp2, test_channels_api.HistoryTests):
    """``GET /channels/{channel}/events``."""


class EventTests(OverHttp2, test_channels_api.EventTests):
    """``GET /channels/{channel}/events/{id}``."""


class SseTests(OverHttp2, test_sse.SseTests):
    """``GET /sse``."""


class StreamTests(OverHttp2, test_stream.StreamTests):
    """``GET /stream``."""


class PollTests(OverHttp2, test_poll.PollTests):
    """``GET /poll``."""


class DemoTests(OverHttp2, test_site.DemoTests):
    """The demo page."""


class StaticFileTests(OverHttp2, test_site.StaticFileTests):
    """The files of ``[site] root``."""


class HealthTests(OverHttp2, test_health.HealthTests):
    """``GET /healthz``."""


class ResourceTests(OverHttp2, test_resource.ResourceTests):
    """What holds for every endpoint."""


class OriginTests(OverHttp2, test_gate.OriginTests):
    """Which pages are let in."""


class TokenPlaceTests(OverHttp2, test_gate_tokens.PlaceTests):
    """Where a token may be."""


class TokenAnswerTests(OverHttp2, test_gate_tokens.AnswerTests):
    """What is answered to who has no right."""


class PreflightTests(OverHttp2, test_gate_tokens.PreflightTests):
    """What a browser asks first."""


class WaitingTests(OverHttp2, test_gate_tokens.WaitingTests):
    """Requests that wait until it is known what their token means."""


class CookieTests(OverHttp2, test_cookies.CookieTests):
    """Tokens in cookies."""


class CredentialsTests(OverHttp2, test_cookies.CredentialsTests):
    """What a browser is told of cookies."""

"""The HTTP interface: publishing, channels and health, one resource each."""

from pushd.api.channels import ChannelList
from pushd.api.demo import page as demo_page
from pushd.api.descriptions import OPENAPI, Description
from pushd.api.health import Readiness
from pushd.api.history import History, OneEvent
from pushd.api.metrics.gauges import Gauges
from pushd.api.metrics.lag import ReactorLag
from pushd.api.metrics.prometheus import PrometheusExposition
from pushd.api.operations import OperatorEndpoints
from pushd.api.presence import PresenceEndpoint
from pushd.api.publish import PublishMany
from pushd.api.status.events import Watchers
from pushd.api.status.snapshot import StatusSnapshot

__all__ = [
    "OPENAPI",
    "ChannelList",
    "Description",
    "Gauges",
    "History",
    "OneEvent",
    "OperatorEndpoints",
    "PresenceEndpoint",
    "PrometheusExposition",
    "PublishMany",
    "ReactorLag",
    "Readiness",
    "StatusSnapshot",
    "Watchers",
    "demo_page",
]

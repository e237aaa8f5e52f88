"""Tell twistd that there is a pushd (no import of pushd itself: this runs for every twistd)."""

from twisted.application.service import ServiceMaker

__all__ = ["pushd"]

pushd = ServiceMaker("pushd", "pushd.tap", "Push events to clients over WebSocket, SSE and HTTP.", "pushd")

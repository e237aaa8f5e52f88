"""Protocol errors, with the error codes of RFC 9113, section 7."""

from __future__ import annotations

from enum import IntEnum

from pushd.errors import PushdError

__all__ = ["Code", "ConnectionFault", "Malformed", "StreamFault", "code_name"]


class Code(IntEnum):
    """The error codes of HTTP/2."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


def code_name(code: int) -> str:
    """Return the name of an error code from the client, in hexadecimal if unknown."""
    try:
        return Code(code).name
    except ValueError:
        return f"{code:#x}"


class ConnectionFault(PushdError):
    """A connection error (RFC 9113, section 5.4.1). The text is for the log and the client."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code


class StreamFault(PushdError):
    """A stream error (RFC 9113, section 5.4.2)."""

    def __init__(self, stream_id: int, code: Code, text: str) -> None:
        super().__init__(text)
        self.stream_id = stream_id
        self.code = code


class Malformed(PushdError):
    """A header section breaks RFC 9113, sections 8.1 to 8.3; with a stream, it becomes a `StreamFault`."""

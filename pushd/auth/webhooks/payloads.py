"""The JSON bodies of webhooks."""

from __future__ import annotations

from base64 import b64encode
from urllib.parse import urlsplit

from pushd.bus import ClientInfo, Draft
from pushd.wire import json_bytes

__all__ = ["connect_question", "notice", "publish_question", "shown", "subscribe_question"]


def shown(url: str) -> str:
    """Return a URL for the log, without its query, which may hold a secret."""
    return urlsplit(url)._replace(query="").geturl()


def _who(caller: ClientInfo) -> dict[str, object]:
    return {
        "connection": caller.id,
        "transport": caller.transport.name,
        "address": caller.address,
        "user": caller.user,
    }


def _question(hook: str, caller: ClientInfo) -> dict[str, object]:
    return {"hook": hook, **_who(caller), "payload": caller.identity.payload}


def connect_question(caller: ClientInfo) -> bytes:
    """Return the body of ``before_connect`` for `caller`."""
    return json_bytes(_question("before_connect", caller))


def subscribe_question(caller: ClientInfo, channel: str, since: str) -> bytes:
    """Return the body of ``before_subscribe`` for a channel or pattern, from the position `since`."""
    return json_bytes({**_question("before_subscribe", caller), "channel": channel, "since": since})


def publish_question(caller: ClientInfo, draft: Draft) -> bytes:
    """Return the body of ``before_publish`` for an event."""
    if draft.is_text:
        data = {"data": draft.data.decode()}
    else:
        data = {"data_base64": b64encode(draft.data).decode()}
    event = {"channels": list(draft.channels), **data, "event": draft.type, "id": draft.id}
    return json_bytes({**_question("before_publish", caller), **event}, draft.data)


def notice(event: str, notice_id: str, time: float, caller: ClientInfo | None, **more: object) -> bytes:
    """Return one notification, caused by `caller` if it is a client, at `time` in seconds since 1970."""
    message: dict[str, object] = {"event": event, "id": notice_id, "time": time}
    if caller is not None:
        message |= _who(caller)
        if caller.identity.payload is not None:
            message["payload"] = caller.identity.payload
    return json_bytes({**message, **more})

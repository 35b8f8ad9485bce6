"""Errors as the protocol says them: a code, a status, one sentence."""

from __future__ import annotations

from streamer.errors import (
    AudioError,
    AvatarError,
    CapacityError,
    EngineError,
    MissingExtraError,
    PictureError,
    ProtocolError,
    RateError,
    SessionError,
    TextError,
    UnknownAvatarError,
)

STATUS = {
    "bad_json": 400,
    "bad_message": 400,
    "bad_sdp": 400,
    "bad_audio": 400,
    "bad_picture": 400,
    "bad_text": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "unknown_session": 404,
    "unknown_connection": 404,
    "unknown_avatar": 404,
    "unknown_type": 400,
    "not_found": 404,
    "method_not_allowed": 405,
    "not_acceptable": 406,
    "out_of_order": 409,
    "timeout": 408,
    "stale": 412,
    "too_large": 413,
    "unsupported_media": 415,
    "too_many": 429,
    "no_voice": 501,
    "busy": 503,
    "engine_lost": 503,
    "internal": 500,
}
INTERNAL = "The server made a mistake; its log says more."


def sentence(message: str) -> str:
    """An error's message as a sentence: begins large, ends with a full stop."""
    message = message.strip() or INTERNAL
    return message[:1].upper() + message[1:] + ("" if message.endswith((".", "!", "?")) else ".")


def code_of(error: AvatarError) -> str:
    """The protocol's word for an error."""
    if isinstance(error, (ProtocolError, SessionError)):
        return error.code
    for kind, code in (
        (RateError, "too_many"),
        (CapacityError, "busy"),
        (EngineError, "engine_lost"),
        (MissingExtraError, "no_voice"),
        (UnknownAvatarError, "unknown_avatar"),
        (AudioError, "bad_audio"),
        (PictureError, "bad_picture"),
        (TextError, "bad_text"),
    ):
        if isinstance(error, kind):
            return code
    return "internal"

"""Errors a user of the streamer can meet. Each message is one sentence that says what to change.

AvatarError
├── InputError              what was given cannot be used
│   ├── AudioError          no such file, no sound in it, broken, empty
│   ├── PictureError        no such picture, broken, too small, too large
│   ├── TextError           nothing to say, or too much
│   └── UnknownAvatarError  a name that is not in the gallery
├── OutputError             the result cannot be written
├── MissingExtraError       an optional part of the package is not installed
├── ProtocolError           a message, an SDP or a request that cannot be used
├── SessionError            a session or connection that is not there, or not in a state for what was asked
├── CapacityError           no room for another session; try again later
│   └── RateError           one client asks too often
├── ChildError              a child process cannot be started, fails, or does not answer
│   └── ChildLost           it ended while it was asked for something
├── StepCancelled           a step of the engine was taken back before its frames were there
└── EngineError             the engine process cannot be started, or does not answer
    └── EngineLost          it died while it was working on this; it is started again
"""

from __future__ import annotations


class AvatarError(Exception):
    """Base of all; `exit_code` is what the command line ends with."""

    exit_code = 1


class InputError(AvatarError, ValueError):
    """What the caller gave cannot be used."""

    exit_code = 2


class AudioError(InputError):
    """A sound file is missing, broken, empty, or has no sound track."""


class PictureError(InputError):
    """A reference picture is missing, broken, too small or too large."""


class TextError(InputError):
    """The text is empty, too long, or holds nothing that can be spoken."""


class UnknownAvatarError(InputError):
    """There is no avatar of that name in the gallery."""


class OutputError(AvatarError):
    """A result cannot be written where it should go."""


class MissingExtraError(AvatarError):
    """An optional dependency is not installed; the message names the extra."""


class ProtocolError(AvatarError):
    """A message, an SDP or a request cannot be used; `code` is the protocol's word for it."""

    def __init__(self, message: str, code: str = "bad_message"):
        super().__init__(message)
        self.code = code


class SessionError(AvatarError):
    """There is no such session or connection, or it cannot do that now; `code` as in `ProtocolError`."""

    def __init__(self, message: str, code: str = "unknown_session"):
        super().__init__(message)
        self.code = code


class CapacityError(AvatarError):
    """No room for another session; asking again after `retry_after_s` may do."""

    def __init__(self, message: str, retry_after_s: int = 10):
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ChildError(AvatarError):
    """A child process cannot be started, fails, or does not answer."""


class ChildLost(ChildError):
    """A child process ended while it was asked for something, or before."""


class RateError(CapacityError):
    """One client, or one session's clients together, ask more often than they may."""


class StepCancelled(AvatarError):
    """The step was taken back by `EngineStream.rewind` before its frames were there."""


class EngineError(AvatarError):
    """The engine process cannot be started, or does not answer."""


class EngineLost(EngineError):
    """The engine died while it was working on this; it is started again."""

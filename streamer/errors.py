"""Errors a user of the streamer can meet. Each message is one sentence that says what to change.

AvatarError
├── InputError              what was given cannot be used
│   ├── AudioError          no such file, no sound in it, broken, empty
│   ├── PictureError        no such picture, broken, too small, too large
│   ├── TextError           nothing to say, or too much
│   └── UnknownAvatarError  a name that is not in the gallery
├── OutputError             the result cannot be written
└── MissingExtraError       an optional part of the package is not installed
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

"""Who can be shown: presenters of the gallery by name, and the frames of their presets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamer.errors import InputError, UnknownAvatarError

if TYPE_CHECKING:
    from models.gallery import Avatar


def find_avatar(name: str | None, avatars: list[Avatar]) -> Avatar:
    """Avatar by name, without regard to case; the first for None.

    Raises:
        UnknownAvatarError: if there is none.
    """
    if not avatars:
        raise UnknownAvatarError("the gallery is empty: no weights are installed; give a --reference picture")
    if name is None:
        return avatars[0]
    for avatar in avatars:
        if avatar.name.lower() == name.lower():
            return avatar
    known = ", ".join(avatar.name for avatar in avatars)
    raise UnknownAvatarError(f"there is no avatar {name!r}; there are {known}")


def preset_frame_size(name: str) -> tuple[int, int]:
    """Height and width of a preset's frames, pixels, without loading its models.

    Raises:
        InputError: if there is no preset of that name.
    """
    from models.families import frame_size

    try:
        return frame_size(name)
    except ValueError as error:
        raise InputError(str(error)) from error


def prompt_bytes(preset: str) -> int | None:
    """How much of a prompt its models read, bytes of UTF-8; None for a preset without such models."""
    from models import presets

    try:
        return presets.preset(preset).text.max_bytes
    except ValueError:
        return None


def showable(avatars: list[Avatar], preset: str) -> list[Avatar]:
    """The presenters whose weights are loaded; all of them where none is made for these weights."""
    from models.families import is_portrait

    own = [one for one in avatars if one.preset == preset or is_portrait(one.preset) and is_portrait(preset)]
    return own or avatars

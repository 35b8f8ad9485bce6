"""Speech in, video of a presenter saying it out: in files (`render`), live (`server`), in your process (`avatar`)."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamer.avatar import Avatar, Picture, Sound, UtteranceEnd

__all__ = ["Avatar", "Picture", "Sound", "UtteranceEnd"]


def __getattr__(name: str) -> object:
    """`from streamer import Avatar`, without loading the engine for whoever wants something else."""
    if name in __all__:
        from streamer import avatar

        return getattr(avatar, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

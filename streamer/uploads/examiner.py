"""The process that looks for faces in pictures: it has torch and the networks loaded and answers one picture at a time.

It is given pixels only, which the process for uploads has decoded.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from streamer.child import ChildChannel
from streamer.child.arrays import array_file, read_array


@dataclass(frozen=True)
class Ready:
    """The networks are loaded."""


@dataclass(frozen=True)
class Examine:
    """A picture uint8 [height, width, 3], with its descriptor, and the height and width that it is to be cut to."""

    height: int
    width: int
    cut_height: int
    cut_width: int


@dataclass(frozen=True)
class Examined:
    """What the doctor says: {name, verdict, advice} a check; with the descriptor of the picture cut to the face, unless
    it is refused."""

    checks: list[dict[str, str]]
    is_refused: bool


MESSAGES = (Ready, Examine, Examined)


def run(channel: ChildChannel) -> None:
    """The process's whole life."""
    from models.threads import calm_threads

    calm_threads()
    from models.portrait.doctor import examine, is_refused
    from models.portrait.landmarks import find_faces
    from models.presenter import cut_around, cut_out

    channel.send(Ready())
    while (arrived := channel.receive()) is not None:
        wanted, (descriptor,) = arrived
        assert isinstance(wanted, Examine)
        picture = read_array(descriptor, (wanted.height, wanted.width, 3), "uint8")
        faces = find_faces(picture)
        checks = examine(picture, faces)
        rows = [asdict(check) for check in checks]
        if is_refused(checks):
            channel.send(Examined(rows, True))
            continue
        size = wanted.cut_height, wanted.cut_width
        landmarks = faces[0].landmarks
        cut, _ = cut_out(picture, landmarks, cut_around(landmarks, picture.shape[:2], size), size)
        channel.send(Examined(rows, False), [array_file(cut)])

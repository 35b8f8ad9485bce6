"""The process that reads an upload: sound as blocks of samples, or a picture as RGB.

What it is given may be made to break it. It may: nobody else lives in here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from streamer.audio_in import AudioFile
from streamer.child import ChildChannel
from streamer.child.arrays import array_file
from streamer.errors import AudioError, InputError
from streamer.media.sound import PLAYED_RATE_HZ, to_int16
from streamer.picture import read_rgb

MAX_SOUND_S = 4 * 3600
BLOCK_SAMPLES = PLAYED_RATE_HZ
# Containers a sound file may come in. Everything else FFmpeg knows is left out, above all its playlists and
# scripts, which would make the server open other files and addresses.
SOUND_FORMATS = (
    "aac,ac3,aiff,amr,ape,asf,au,caf,dts,eac3,f32le,flac,g722,gsm,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mp2,mp3,"
    "mpeg,mpegts,oga,ogg,opus,tta,w64,wav,wv,avi,flv"
)
PICTURE_FORMATS = ("JPEG", "PNG", "WEBP")


@dataclass(frozen=True)
class Ready:
    """The process waits for its file."""


@dataclass(frozen=True)
class OpenSound:
    """A sound file, of which so many samples are known already; with its descriptor."""

    skip_samples: int


@dataclass(frozen=True)
class Opened:
    """There is sound in it; as far as the file says."""

    duration_s: float | None


@dataclass(frozen=True)
class More:
    """The next block, please."""


@dataclass(frozen=True)
class Block:
    """So many samples, int16 at 48 kHz, with their descriptor; 0 without one: the end."""

    samples: int


@dataclass(frozen=True)
class ReadPicture:
    """A picture file, to be made as small as this; with its descriptor."""

    longest_side: int


@dataclass(frozen=True)
class Picture:
    """uint8 [height, width, 3], with its descriptor."""

    height: int
    width: int


MESSAGES = (Ready, OpenSound, Opened, More, Block, ReadPicture, Picture)


def run(channel: ChildChannel) -> None:
    """The process's whole life: one file.

    Raises:
        InputError: if it cannot be used.
    """
    channel.send(Ready())
    arrived = channel.receive()
    assert arrived is not None
    wanted, (descriptor,) = arrived
    path = Path(f"/dev/fd/{descriptor}")
    with in_words(path):
        if isinstance(wanted, OpenSound):
            send_sound(channel, path, wanted.skip_samples)
        else:
            pixels = read_picture(path, wanted.longest_side)
            channel.send(Picture(*pixels.shape[:2]), [array_file(pixels)])


@contextlib.contextmanager
def in_words(path: Path) -> Iterator[None]:
    """What goes wrong with a file, as a sentence that does not say where it lies.

    Raises:
        InputError: whatever it was.
    """
    try:
        yield
    except EOFError:  # nobody is there to be told
        raise
    except InputError as error:
        raise InputError(str(error).replace(str(path), "the file")) from error
    except MemoryError as error:
        raise InputError("reading the file takes too much memory") from error
    except Exception as error:  # PyAV and its resampler raise anything
        raise InputError("the file cannot be read") from error


def send_sound(channel: ChildChannel, path: Path, skip_samples: int) -> None:
    """Blocks of a file's sound, each when it is asked for, from sample `skip_samples` on.

    Raises:
        AudioError: as `AudioFile`, or if there is more than `MAX_SOUND_S` of it.
    """
    sound = UploadedFile(path)
    blocks = _joined(sound.blocks(PLAYED_RATE_HZ))
    count = 0
    while count < skip_samples:
        block = next(blocks)
        count += len(block)
    rest = block[len(block) - (count - skip_samples) :] if skip_samples else np.zeros(0, np.int16)
    channel.send(Opened(sound.duration_s))
    for _ in channel:
        block = rest if len(rest) else next(blocks, rest)
        rest = rest[:0]
        count += len(block)
        if count > MAX_SOUND_S * PLAYED_RATE_HZ:
            raise AudioError(f"{path} holds more than {MAX_SOUND_S // 3600} hours of sound")
        channel.send(Block(len(block)), [array_file(block)] if len(block) else [])


def _joined(blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Blocks int16 of about a second."""
    parts: list[np.ndarray] = []
    for block in blocks:
        parts.append(to_int16(block))
        if sum(map(len, parts)) >= BLOCK_SAMPLES:
            yield np.concatenate(parts)
            parts = []
    if parts:
        yield np.concatenate(parts)


class UploadedFile(AudioFile):
    """A sound file of a kind that cannot lead anywhere else."""

    def _container(self) -> av.container.InputContainer:
        options = {"format_whitelist": SOUND_FORMATS, "protocol_whitelist": "file"}
        return av.open(str(self.path), metadata_errors="replace", container_options=options)


def read_picture(path: Path, longest_side: int) -> np.ndarray:
    """As `read_rgb`, of the kinds that cameras and phones make; HEIC where pillow-heif is installed."""
    try:
        import pillow_heif
    except ImportError:
        return read_rgb(path, longest_side, PICTURE_FORMATS)
    pillow_heif.register_heif_opener(thumbnails=False)
    return read_rgb(path, longest_side, (*PICTURE_FORMATS, "HEIF"))

"""Sound to Opus packets of 20 ms."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
import numpy as np

from streamer.media import BLOCK_SAMPLES, SOUND_RATE_HZ

BITRATE_BPS = 48_000
EXPECTED_LOSS_PERCENT = 10  # turns in-band FEC on and sets how much of it there is


class OpusEncoder:
    """48 kHz mono Opus with in-band FEC. Mono goes to every peer: RFC 7587 has all receivers take it, whatever
    `stereo` they negotiated, and the sound has one channel. About 0.3 ms a packet; not for the event loop.
    """

    def __init__(self) -> None:
        context: Any = av.CodecContext.create("libopus", "w")
        context.bit_rate = BITRATE_BPS
        context.format, context.layout, context.sample_rate = "s16", "mono", SOUND_RATE_HZ
        context.time_base = Fraction(1, SOUND_RATE_HZ)
        context.options = {
            "application": "voip",
            "frame_duration": "20",
            "fec": "1",
            "packet_loss": str(EXPECTED_LOSS_PERCENT),
        }
        context.open()
        self._context = context

    def encode(self, samples: np.ndarray, block: int) -> av.Packet:
        """Encodes one block.

        Args:
            samples: int16 [960].
            block: its index; gaps are allowed.

        Returns:
            One packet; pts is the block's media time in units of 1/48000 s.
        """
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples)[None], format="s16", layout="mono")
        frame.sample_rate = SOUND_RATE_HZ
        frame.time_base = Fraction(1, SOUND_RATE_HZ)
        frame.pts = block * BLOCK_SAMPLES
        packets = self._context.encode(frame)
        if len(packets) != 1:
            raise RuntimeError(f"Opus gave {len(packets)} packets for one block of {len(samples)} samples")
        packet = packets[0]
        packet.time_base = Fraction(1, SOUND_RATE_HZ)
        packet.pts = packet.dts = block * BLOCK_SAMPLES
        return packet

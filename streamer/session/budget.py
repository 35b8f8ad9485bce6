"""How long before its first frame plays the sound of a chunk is cut: what recent chunks took, and no more."""

from __future__ import annotations

from collections import deque

from streamer.media import BLOCK_S
from streamer.media.broadcast import SOUND_LEAD_S

START_FACTOR = 1.15  # of the compute measured at the start, until chunks have told
CHUNKS = 32  # ten seconds: as long as it takes to fall
MIN_CHUNKS = 16  # before it falls at all
OUTLIERS = 8  # one chunk in so many may take longer, and always one
RISE_S = 0.005  # less is not worth a gap in the caller's sound
LARGEST_FALL_BLOCKS = 2  # at once
MAX_CHUNKS_LONG = 1.25  # what takes longer is the ladder's business
PATIENCE_CHUNKS = 8  # on a lower rung, before the full one is given more time


class Budget:
    """The budget of one session. It rises as soon as chunks take longer, and falls slowly, while nobody speaks.

    It is what recent chunks took from being cut to being put, but for one in 8, and the lead that sound has over its
    picture: below that the lead is lost with every chunk, and browsers make up for it with a longer buffer.

    Args:
        compute_s: of a chunk, measured when the engine started.
        chunk_s: length of a chunk.
    """

    def __init__(self, compute_s: float, chunk_s: float):
        self._max_s = MAX_CHUNKS_LONG * chunk_s
        self.seconds = min(START_FACTOR * compute_s + SOUND_LEAD_S, self._max_s)
        self._took_s: deque[float] = deque(maxlen=CHUNKS)
        self._lower_chunks = 0

    def record(self, took_s: float, full_took_s: float | None) -> None:
        """Notes a chunk, and rises if it has to.

        Args:
            took_s: from being cut to being put where it is played from.
            full_took_s: None for a chunk of the full rung; else what it would have taken on that, with room to climb.
        """
        self._lower_chunks = 0 if full_took_s is None else self._lower_chunks + 1
        if full_took_s is None:
            self._took_s.append(took_s)
        elif self._lower_chunks > PATIENCE_CHUNKS:  # or it would never have the time to climb
            self._took_s.append(full_took_s)
        wanted_s = self._wanted_s()
        if wanted_s is not None and wanted_s > self.seconds + RISE_S:
            self.seconds = wanted_s

    def fall(self) -> int:
        """Falls as far as it may while nobody speaks.

        Returns:
            By how many blocks of 20 ms: so much of the caller's silence is left out.
        """
        wanted_s = self._wanted_s()
        if wanted_s is None or len(self._took_s) < MIN_CHUNKS:
            return 0
        blocks = max(0, min(int((self.seconds - wanted_s) / BLOCK_S), LARGEST_FALL_BLOCKS))
        self.seconds -= blocks * BLOCK_S
        return blocks

    def _wanted_s(self) -> float | None:
        """None while there is only one chunk to go by."""
        if len(self._took_s) < 2:
            return None
        longest = sorted(self._took_s, reverse=True)
        return min(longest[max(1, len(longest) // OUTLIERS)] + SOUND_LEAD_S, self._max_s)

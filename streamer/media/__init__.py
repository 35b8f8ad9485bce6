"""The media process's side of a session: one clock, playout, encoders, WebRTC peers. Never imports torch.

Units: 25 frames a second; frame k covers media time [k·40 ms, (k+1)·40 ms); sound is played in blocks of 20 ms,
block b covers [b·20 ms, (b+1)·20 ms), 960 samples at 48 kHz.
"""

from models.timing import FPS, SOUND_RATE_HZ
from models.timing import FRAME_SAMPLES as FRAME_SAMPLES

FRAME_S = 1.0 / FPS
BLOCK_SAMPLES = 960
BLOCK_S = BLOCK_SAMPLES / SOUND_RATE_HZ
VIDEO_CLOCK_HZ = 90_000

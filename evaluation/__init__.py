"""How good the generated video is: metrics, tables and contact sheets.

Shapes in this package: T frames, N samples of a set, S picture size; videos are uint8 [T, H, W, 3] RGB, keypoints
float32 [T, 143, 3] = x and y in 0 … 1 of the picture, visibility; sound is float32 mono at 16 kHz, 640 samples a
frame. Lengths called `px256` are in pixels of a picture scaled to 256 rows.
"""

from models.threads import calm_threads

calm_threads()  # here, because it has to be before the modules of this package import torch

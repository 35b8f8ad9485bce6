"""Check of the audio front end: rings of both families, a whole file, and a length that really interpolates."""

from __future__ import annotations

import json
import math

import numpy as np
import torch
from torch import Tensor

from models.public.conformance import rule
from models.public.conformance.fixture import Fixture, FixtureError
from models.public.wav2vec2 import SAMPLES_PER_FRAME, AudioFrontEnd, Ring, normalised, windows

LIMIT = 2e-5
ODD_LIMIT = 1e-4
FRAMES = 33
SWEEPS = {1: (100.0, 900.0), 2: (220.0, 700.0)}  # by seed: Hz at the start, and Hz more a second


def sweep(seed: int, samples: int) -> Tensor:
    """The rule's sound [samples].

    Raises:
        FixtureError: for a seed that the rule names no sweep of.
    """
    if seed not in SWEEPS:
        raise FixtureError(f"no sweep is known of seed {seed}")
    start, growth = SWEEPS[seed]
    time = np.arange(samples) / 16000
    return torch.from_numpy((0.5 * np.sin(2 * math.pi * (start * time + growth * time**2 / 2))).astype(np.float32))


@torch.inference_mode()
def check_audio(fixture: Fixture) -> None:
    """Three chunks of each family."""
    about = fixture.about
    weights = rule.weights(about["state_dict"], fixture.seed, prefix="wav2vec2.")
    front_end = AudioFrontEnd.from_tensors(json.dumps(about["wav2vec2_config"]), weights)
    slices = {"pro": about["pro.slice_samples"], "lite": about["lite.slice_samples"]}
    sound = sweep(fixture.seed, 3 * max(slices.values()))
    for family, samples in slices.items():
        ring = Ring.silent()
        for chunk in range(3):
            ring = ring.with_sound(sound[chunk * samples : (chunk + 1) * samples])
            heard = front_end.hear(ring.samples[None], FRAMES)
            name = f"{family}.chunk{chunk}"
            fixture.compare(f"{name}.windows", heard, LIMIT)
            fixture.compare(f"{name}.embedding_last33", heard[0, :, 2], LIMIT)
            if f"{name}.conv_features" in about["tensors"]:
                _check_parts(fixture, name, front_end, ring)
    whole = sound[: 3 * slices["pro"]]
    frames = len(whole) // SAMPLES_PER_FRAME
    fixture.compare("once.windows", windows(front_end.encode(whole[None], frames), frames), LIMIT)
    odd = sound[:50000]
    fixture.compare("odd50000.embedding", front_end.encode(odd[None], len(odd) // SAMPLES_PER_FRAME)[0], ODD_LIMIT)


def _check_parts(fixture: Fixture, name: str, front_end: AudioFrontEnd, ring: Ring) -> None:
    even = normalised(ring.samples[None])
    features = front_end.model.feature_extractor(even)
    fixture.compare(f"{name}.normalised_audio", even[0], LIMIT)
    fixture.compare(f"{name}.conv_features", features, LIMIT)
    fixture.compare(
        f"{name}.interpolated", front_end.stretched(features, len(ring.samples) // SAMPLES_PER_FRAME), LIMIT
    )

"""What the FlashHead families hear: all hidden states of wav2vec2, one set a frame of video, with those around it.

The convolutions' frames are stretched to the frames of the video before the transformer, not after it. A stream keeps
the last 8 s of its sound and encodes all of them with every chunk, so a frame's states change from chunk to chunk.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from models.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import Wav2Vec2Model

SAMPLE_RATE = 16000
FPS = 25
SAMPLES_PER_FRAME = SAMPLE_RATE // FPS
RING_SAMPLES = 8 * SAMPLE_RATE
WINDOW = 5  # frames whose states a frame hears, itself in the middle
_VARIANCE_FLOOR = 1e-7
_PREFIX = "wav2vec2."
# What older files call the two parts of a weight of the convolution that tells places apart.
_RENAMED = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}


@dataclass(frozen=True)
class Ring:
    """The last 8 s of a stream, [128000] fp32; silence before its start."""

    samples: Tensor

    @classmethod
    def silent(cls, device: torch.device | str = "cpu") -> Ring:
        return cls(torch.zeros(RING_SAMPLES, device=device))

    def with_sound(self, samples: Tensor) -> Ring:
        """The ring after more sound [n]."""
        return Ring(torch.cat([self.samples, samples.to(self.samples)])[-RING_SAMPLES:])


class AudioFrontEnd:
    """wav2vec2 on one device, in fp32; holds no stream's state."""

    def __init__(self, model: Wav2Vec2Model) -> None:
        self.model = model.eval().requires_grad_(False)

    @classmethod
    def from_tensors(cls, config: str, published: Mapping[str, Tensor]) -> AudioFrontEnd:
        """Of the text of a `config.json` and the tensors of a published file, with or without a head for words.

        Raises:
            CheckpointError: if they do not fit each other.
        """
        model = empty_model(config)
        wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        tensors = {own_name(name): tensor.float() for name, tensor in published.items() if own_name(name) in wanted}
        for name, shape in wanted.items():
            if name not in tensors:
                raise CheckpointError(f"wav2vec2 lacks {name}")
            if tuple(tensors[name].shape) != shape:
                raise CheckpointError(f"wav2vec2's {name} has shape {list(tensors[name].shape)}, wanted {list(shape)}")
        model.load_state_dict(tensors, assign=True)
        return cls(model)

    def to(self, device: torch.device | str) -> AudioFrontEnd:
        self.model.to(device)
        return self

    @property
    def layers(self) -> int:
        return len(self.model.encoder.layers)

    @torch.inference_mode()
    def encode(self, sound: Tensor, frames: int) -> Tensor:
        """Sound [B, n] → hidden states after each layer [B, frames, layers, width], over all of the sound at once."""
        features = self.stretched(self.model.feature_extractor(normalised(sound)), frames)
        hidden, _ = self.model.feature_projection(features)
        encoder, states = self.model.encoder, []
        hidden = encoder.layer_norm(hidden + encoder.pos_conv_embed(hidden))
        for layer in encoder.layers:
            hidden = layer(hidden)
            states.append(hidden)
        return torch.stack(states, dim=2)

    def hear(self, rings: Tensor, frames: int) -> Tensor:
        """Rings [B, 128000] → windows [B, frames, 5, layers, width] of their last frames."""
        return windows(self.encode(rings, rings.shape[1] // SAMPLES_PER_FRAME), frames)

    @staticmethod
    def stretched(features: Tensor, frames: int) -> Tensor:
        """The convolutions' features [B, C, n] → [B, frames, C]."""
        return F.interpolate(features, size=frames, mode="linear", align_corners=True).transpose(1, 2)


def normalised(sound: Tensor) -> Tensor:
    """Sound [B, n] with mean 0 and variance 1 over all of it."""
    centred = sound - sound.mean(dim=1, keepdim=True)
    return centred / (centred.square().mean(dim=1, keepdim=True) + _VARIANCE_FLOOR).sqrt()


def windows(states: Tensor, frames: int) -> Tensor:
    """Each of the last `frames` with the two before and after it: [B, F, …] → [B, frames, 5, …]; the ends repeat."""
    count = states.shape[1]
    places = torch.arange(count - frames, count, device=states.device)[:, None]
    around = torch.arange(-(WINDOW // 2), WINDOW // 2 + 1, device=states.device)
    return states[:, (places + around).clamp(0, count - 1)]


def empty_model(config: str) -> Wav2Vec2Model:
    """The model of a `config.json`, on the meta device.

    Raises:
        CheckpointError: if the file is of another model, or transformers is not there.
    """
    try:
        from transformers import Wav2Vec2Config, Wav2Vec2Model
    except ImportError as error:
        raise CheckpointError("public weights need the extra: pip install 'infinity-avatar[public]'") from error
    try:
        given: dict[str, Any] = json.loads(config)
        kind = given.get("model_type")
    except (ValueError, AttributeError) as error:
        raise CheckpointError(f"wav2vec2's config.json is no JSON object: {error}") from error
    if kind not in (None, "wav2vec2"):
        raise CheckpointError(f"wav2vec2's config.json is of a {kind!r}")
    if given.get("do_stable_layer_norm"):
        raise CheckpointError("wav2vec2 with do_stable_layer_norm is not what these families were trained with")
    # Nothing is masked, so that there is no embedding of what was.
    settings = {**given, "apply_spec_augment": False, "mask_time_prob": 0.0, "mask_feature_prob": 0.0}
    with torch.device("meta"):
        return Wav2Vec2Model(Wav2Vec2Config(**settings))


def own_name(published: str) -> str:
    """A tensor's name in `Wav2Vec2Model`."""
    name = published.removeprefix(_PREFIX)
    front, _, last = name.rpartition(".")
    return f"{front}.{_RENAMED[last]}" if last in _RENAMED else name

"""Checks of the chunk loops on stand-ins for network and auto-encoder, and with the small networks themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from einops import rearrange, repeat
from torch import Tensor

from models.public.chunk_loop import ChunkShape, Sample, make_chunk, still_of
from models.public.conformance.denoisers import flashhead
from models.public.conformance.fixture import Fixture
from models.public.sampling import Velocity, bridge, euler, few_steps, few_timesteps, guided, teacher_timesteps

LIMIT = 1e-4
END_LIMIT = 2e-4  # fp32, behind the small networks
END_BF16_LIMIT = 0.08  # rms
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
BRIDGE_STEPS = {"fp32": torch.float32, "fp32_cfg2": torch.float32, "bf16": torch.bfloat16}


@dataclass
class ToyCoder:
    """An auto-encoder whose latents are the means of patches of a few frames; it keeps what passes through it."""

    stride: int  # frames a latent
    patch: int
    channels: int
    is_clamped: bool
    passed: dict[str, Tensor] = field(default_factory=dict)

    def encode(self, video: Tensor) -> Tensor:
        self.passed["encoded"] = video
        means = rearrange(video.float(), "b c f (h p) (w q) -> b c f h w (p q)", p=self.patch, q=self.patch).mean(-1)
        first = means[:, :, :1].expand(-1, -1, self.stride, -1, -1)  # the first frame, once for each of a latent
        grouped = torch.cat([first, means[:, :, 1:]], dim=2)
        latents = 2 * rearrange(grouped, "b c (j k) h w -> b (k c) j h w", k=self.stride)
        rest = self.channels - 3 * self.stride
        latents = torch.cat([latents, latents.mean(dim=1, keepdim=True).expand(-1, rest, -1, -1, -1)], dim=1)
        return latents.to(video.dtype)

    def decode(self, latents: Tensor) -> Tensor:
        self.passed["latents"] = latents
        frames = 0.5 * rearrange(latents[:, : 3 * self.stride].float(), "b (k c) j h w -> b c (j k) h w", k=self.stride)
        frames = repeat(frames[:, :, self.stride - 1 :], "b c f h w -> b c f (h p) (w q)", p=self.patch, q=self.patch)
        self.passed["decoded"] = frames = (frames.clamp(-1, 1) if self.is_clamped else frames).to(latents.dtype)
        return frames


def toy_velocity(audio: Tensor, reference: Tensor, seen: list[Tensor]) -> Velocity:
    """A network of one line, that rounds its time step as the real one does; it keeps what it is given."""

    def velocity(latents: Tensor, t: Tensor) -> Tensor:
        seen.append(latents)
        tau = t.to(latents.dtype).double()
        constant = 10 * audio.float().mean() + 0.5 * torch.sin(tau).float()
        return (0.1 * latents.float() + 0.05 * reference.float() + constant).to(latents.dtype)

    return velocity


def picture_of(height: int, width: int, dtype: torch.dtype) -> Tensor:
    """The rule's picture, [1, 3, 1, H, W] in -1 … 1, from bytes to there in its dtype."""
    rows = (32 * torch.arange(height) // height)[:, None]
    columns = (48 * torch.arange(width) // width)[None]
    red, green, blue = 30 + 4 * rows + columns, 200 - 3 * columns + 0 * rows, 60 + 2 * rows + 2 * columns
    return ((torch.stack([red, green, blue]).to(dtype) / 255 - 0.5) * 2)[None, :, None]


@dataclass
class Setting:
    """What a loop's item says of its geometry, and the stand-ins for it."""

    fixture: Fixture
    dtype: torch.dtype

    def __post_init__(self) -> None:
        g: dict[str, Any] = self.fixture.about["geometry"]
        self.patch = g["p"]
        self.coder = ToyCoder(g["s"], g["p"], g["C"], is_clamped=g["s"] == 4)
        self.shape = ChunkShape(g["motion"])
        self.still = still_of(picture_of(g["H"], g["W"], self.dtype), self.coder.encode, self.shape)
        self.latent_shape = tuple(self.still.latents.shape)

    def noise(self, chunk: int) -> Callable[[int], Tensor]:
        return lambda i: self.fixture.draw(f"noise.chunk{chunk}.draw{i}", self.latent_shape).to(self.dtype)

    def chunk(self, sample: Sample, prefix: Tensor) -> tuple[Tensor, Tensor]:
        coder, motion_frames = self.coder, self.shape.motion_frames
        return make_chunk(sample, prefix, self.still.colours, coder.encode, coder.decode, motion_frames)

    def pixels(self, frames: Tensor) -> Tensor:
        """Frames [1, 3, F, H, W] → [3, F, h, w], one pixel a patch: all of a patch are equal."""
        return frames[0, :, :, :: self.patch, :: self.patch].float()

    def pixels_255(self, frames: Tensor) -> Tensor:
        """[F, 3, h, w] in 0 … 255, not rounded."""
        return ((self.pixels(frames) + 1) / 2 * 255).transpose(0, 1)


@torch.inference_mode()
def check_loop(fixture: Fixture) -> None:
    """Three chunks of the distilled loop in both dtypes, and a chunk of the teacher's where there is one."""
    for name, dtype in DTYPES.items():
        _check_few_steps(fixture, name, dtype)
    if any(tensor.startswith("teacher20") for tensor in fixture.about["tensors"]):
        setting = Setting(fixture, torch.float32)
        audio, y = fixture.draw("input.audio.chunk0", (1, 33, 5, 2, 4)), setting.still.latents
        velocity = guided(toy_velocity(audio, y, []), toy_velocity(torch.zeros_like(audio), y, []), 3.0)
        latents = euler(velocity, setting.noise(0), setting.still.prefix, teacher_timesteps(20))
        fixture.compare("teacher20.chunk0.latent_to_decode", latents[0], LIMIT)


def _check_few_steps(fixture: Fixture, name: str, dtype: torch.dtype) -> None:
    setting = Setting(fixture, dtype)
    limit = LIMIT if dtype is torch.float32 else 0.0
    prefix, coder = setting.still.prefix, setting.coder
    fixture.compare(f"{name}.ref_latent", setting.still.latents[0].float(), limit)
    fixture.compare(f"{name}.motion.before_chunk0", prefix[0].float(), limit)
    for chunk in range(3):
        seen: list[Tensor] = []
        velocity = toy_velocity(
            fixture.draw(f"input.audio.chunk{chunk}", (1, 33, 5, 2, 4)), setting.still.latents, seen
        )
        sample = partial(few_steps, velocity, setting.noise(chunk), timesteps=few_timesteps(4))
        frames, prefix = setting.chunk(sample, prefix)
        for step, latents in enumerate(seen):
            fixture.compare(f"{name}.chunk{chunk}.net_in.step{step}", latents[0].float(), limit)
        made = {
            "latent_to_decode": coder.passed["latents"][0].float(),
            "decoded": setting.pixels(coder.passed["decoded"]),
            "reencoded_frames": setting.pixels(coder.passed["encoded"]),
            "next_motion": prefix[0].float(),
            "frames_0_255": setting.pixels_255(frames),
        }
        for part, tensor in made.items():
            fixture.compare(f"{name}.chunk{chunk}.{part}", tensor, limit)


@torch.inference_mode()
def check_leaptalk_loop(fixture: Fixture) -> None:
    """Three chunks of one step, with and without guidance and in bf16, and one of four steps."""
    for name, dtype in BRIDGE_STEPS.items():
        setting = Setting(fixture, dtype)
        limit = LIMIT if dtype is torch.float32 else 0.0
        prefix, y = setting.still.prefix, setting.still.latents
        for chunk in range(3):
            seen: list[Tensor] = []
            audio = fixture.draw(f"input.audio.chunk{chunk}", (1, 33, 5, 2, 4)).to(dtype)  # here it is, before the mean
            velocity = toy_velocity(audio, y, seen)
            if name.endswith("cfg2"):
                velocity = guided(velocity, toy_velocity(torch.zeros_like(audio), y, []), 2.0)
            sample = partial(bridge, velocity, setting.noise(chunk), timesteps=few_timesteps(1)[:-1], reference=y)
            frames, prefix = setting.chunk(sample, prefix)
            made = {
                "net_in": seen[0][0].float(),
                "latent_to_decode": setting.coder.passed["latents"][0].float(),
                "next_history": prefix[0].float(),
                "emitted_0_255": setting.pixels((frames + 1) / 2 * 255).transpose(0, 1)[setting.shape.motion_frames :],
            }
            for part, tensor in made.items():
                fixture.compare(f"{name}.chunk{chunk}.{part}", tensor, limit)
    setting = Setting(fixture, torch.float32)
    velocity = toy_velocity(fixture.draw("input.audio.chunk0", (1, 33, 5, 2, 4)), setting.still.latents, [])
    noise = partial(_bridge_noise, fixture, setting.latent_shape)
    times = few_timesteps(4)[:-1]
    latents = bridge(velocity, noise, setting.still.prefix, times, setting.still.latents)
    fixture.compare("fp32.four_steps.latent", latents[0], LIMIT)


def _bridge_noise(fixture: Fixture, shape: tuple[int, ...], step: int) -> Tensor:
    return fixture.draw(f"noise.bridge.draw{step}", shape)


@torch.inference_mode()
def check_end_to_end(fixture: Fixture) -> None:
    """Two chunks of the distilled loop behind a small network, in both dtypes."""
    model = flashhead(fixture)
    for name, dtype in DTYPES.items():
        model, setting = model.to(dtype), Setting(fixture, dtype)
        limit, measure = (LIMIT, "max") if dtype is torch.float32 else (END_BF16_LIMIT, "rms")
        limit = END_LIMIT if dtype is torch.float32 else limit
        prefix = setting.still.prefix
        for chunk in range(2):
            audio = fixture.draw(f"input.audio_full.chunk{chunk}", (1, 33, 5, 12, 768)).to(dtype)
            velocity = partial(_velocity, model, setting.still.latents, model.hear(audio))
            sample = partial(few_steps, velocity, setting.noise(chunk), timesteps=few_timesteps(4))
            frames, prefix = setting.chunk(sample, prefix)
            made = {
                "latent_to_decode": setting.coder.passed["latents"][0].float(),
                "next_motion": prefix[0].float(),
                "frames_0_255": setting.pixels_255(frames),
            }
            for part, tensor in made.items():
                fixture.compare(f"{name}.chunk{chunk}.{part}", tensor, limit, measure)


def _velocity(model: Any, reference: Tensor, heard: Any, latents: Tensor, t: Tensor) -> Tensor:
    return model(latents, t, reference, heard)

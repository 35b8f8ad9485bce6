"""AvatarPipeline: one chunk of sound in, one chunk of frames out; the same call offline and live."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.low_pass import low_pass_noise, standard_normal
from models import checkpoints
from models.conditions import SAMPLE_RATE, SAMPLES_PER_FRAME, AudioEncoder, TextEncoder
from models.configs import Preset, SamplingConfig
from models.lr_a2v import LRA2V
from models.motion import FPS, motion_frames
from models.pose import BACKGROUND, PERSON_POINTS, KeypointNet, PoseEstimator, background_points, pose_tokens
from models.presets import preset as preset_by_name
from models.refiner import PGRefiner, upsample_latents
from models.sampling import euler, guided
from models.state import ChunkState
from models.vae import CausalVAE

_FRAMES_PER_LATENT = 4


class AvatarPipeline:
    """The models of one preset on one device. Holds no stream's state; one pipeline serves many streams."""

    fps = FPS
    sample_rate = SAMPLE_RATE

    def __init__(self, preset: Preset, device: torch.device | str = "cpu") -> None:
        self.preset = preset
        self.device = torch.device(device)
        with torch.device(self.device):
            self.vae = CausalVAE(preset.vae)
            self.audio = AudioEncoder(preset.audio)
            self.text = TextEncoder(preset.text)
            self.lr_a2v = LRA2V(preset.lr_a2v)
            self.refiner = PGRefiner(preset.refiner)
            self.pose = KeypointNet(preset.pose)
        self.pose_estimator: PoseEstimator = self.pose
        for component in checkpoints.COMPONENTS:
            getattr(self, component).eval().requires_grad_(False)

    @classmethod
    def load(
        cls, preset: str = "presenter-256", weights: Path | None = None, device: torch.device | str = "cpu"
    ) -> AvatarPipeline:
        """Pipeline with weights: those that come with the package, or those of a folder.

        Raises:
            ValueError: if there is no such preset.
            CheckpointError: if the weights are missing, broken, or made for another preset.
        """
        config = preset_by_name(preset)
        folder = weights or checkpoints.shipped_weights(preset)
        checkpoints.check_config(folder, config)
        pipeline = cls(config, device)
        for component in checkpoints.COMPONENTS:
            checkpoints.load_component(folder, component, getattr(pipeline, component))
        if pipeline.device.type == "cpu":
            pipeline.vae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return pipeline

    @property
    def delay_frames(self) -> int:
        """Frames of a step show the sound this many frames before its end: the look-ahead."""
        return self.preset.audio.look_ahead_frames

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width of the frames."""
        return self.preset.hr_size

    @torch.inference_mode()
    def start(
        self,
        reference: Tensor,
        prompt: str = "",
        seed: int = 0,
        chunk_latents: int | None = None,
        motion_energy: float = 1.0,
    ) -> ChunkState:
        """State of a new stream.

        Args:
            reference: float [3, H, W] in 0 … 1, the presenter at rest, of the preset's HR size.
            prompt: emotion and manner in words; cut at the text encoder's length.
            seed: of noise and motion plan.
            chunk_latents: n, latents of a step; a step may also be called with another n. Default: the preset's.
            motion_energy: 0 … 2, scale of head and torso motion.

        Raises:
            ValueError: if the reference has another size or type, or chunk_latents is not within 1 … 6.
        """
        if tuple(reference.shape) != (3, *self.preset.hr_size) or not reference.is_floating_point():
            raise ValueError(
                f"reference must be float [3, {self.preset.hr_size[0]}, {self.preset.hr_size[1]}],"
                f" got {reference.dtype} {list(reference.shape)}"
            )
        chunk_latents = self.preset.chunk_latents if chunk_latents is None else chunk_latents
        if not 1 <= chunk_latents <= 6:
            raise ValueError(f"chunk_latents must be within 1 … 6, got {chunk_latents}")
        picture = reference.to(self.device)[None, None]
        small = F.interpolate(picture[:, 0], size=self.preset.lr_size, mode="area")[:, None]
        lr_reference, hr_reference = self.vae.encode(small), self.vae.encode(picture)
        lr_frames, lr_cache = self.vae.decode_chunk(lr_reference, None)
        _, hr_cache = self.vae.decode_chunk(hr_reference, None)
        keypoints = self.pose_estimator(lr_frames[0].clamp(0, 1))[0]
        keypoints[BACKGROUND] = background_points(picture[0, 0], keypoints[:PERSON_POINTS])
        silence = torch.zeros((self._token_context + self.delay_frames) * SAMPLES_PER_FRAME, device=self.device)
        audio_tokens, audio = self.audio.step(silence, self.audio.start(self.device))
        return ChunkState(
            seed=seed,
            chunk_latents=chunk_latents,
            frame_index=-self.delay_frames,
            latent_index=0,
            text=self.text(self.text.tokenize([prompt]).to(self.device)),
            lr_reference=lr_reference,
            hr_reference=hr_reference,
            reference_keypoints=keypoints,
            audio=audio,
            audio_tokens=audio_tokens[-self._token_context :],
            lr_cache=lr_cache,
            hr_cache=hr_cache,
            motion_energy=motion_energy,
        )

    @torch.inference_mode()
    def step(
        self, samples: Tensor, state: ChunkState, sampling: SamplingConfig | None = None
    ) -> tuple[Tensor, ChunkState]:
        """Generate the next chunk.

        Args:
            samples: float [n·2560] mono 16 kHz in -1 … 1, the next n latents of sound, n in 1 … 6.
            state: of the stream; not changed.
            sampling: steps and guidance; default: the preset's.

        Returns:
            frames [4n, 3, H, W] float32 in 0 … 1, and the next state. The frames end `delay_frames` before the
            sound does.

        Raises:
            ValueError: if the number of samples is not n·2560 with n in 1 … 6.
        """
        new, rest = divmod(samples.shape[0], _FRAMES_PER_LATENT * SAMPLES_PER_FRAME)
        if rest or not 1 <= new <= 6:
            raise ValueError(
                f"samples must be 1 … 6 times {_FRAMES_PER_LATENT * SAMPLES_PER_FRAME}, got {samples.shape[0]}"
            )
        sampling = sampling or self.preset.sampling
        state = replace(state, stage_ms=dict(state.stage_ms))
        with self._timed(state, "audio"):
            tokens, audio = self.audio.step(samples.to(self.device, torch.float32), state.audio)
            tokens = torch.cat([state.audio_tokens, tokens])
        with self._timed(state, "lr_a2v"):
            lr_latents = self._generate_lr(tokens, new, state, sampling)
        with self._timed(state, "lr_decode"):
            lr_frames, lr_cache = self.vae.decode_chunk(lr_latents, state.lr_cache)
        with self._timed(state, "pose"):
            keypoints = self.pose_estimator(lr_frames[0].clamp(0, 1))
            keypoints[:, BACKGROUND] = state.reference_keypoints[BACKGROUND]
        hr_latents = self._refine(lr_latents, keypoints, new, state, sampling)
        with self._timed(state, "decode"):
            frames, hr_cache = self.vae.decode_chunk(hr_latents, state.hr_cache)
            frames = frames[0].clamp(0, 1)
        m = self.preset.motion_latents
        return frames, replace(
            state,
            frame_index=state.frame_index + _FRAMES_PER_LATENT * new,
            latent_index=state.latent_index + new,
            audio=audio,
            audio_tokens=tokens[-self._token_context :],
            lr_motion=_last(state.lr_motion, lr_latents, m),
            hr_motion=_last(state.hr_motion, hr_latents, m),
            motion_keypoints=_last_frames(state.motion_keypoints, keypoints, _FRAMES_PER_LATENT * m),
            lr_cache=lr_cache,
            hr_cache=hr_cache,
        )

    @property
    def _token_context(self) -> int:
        """Audio tokens before a chunk that its windows reach back to."""
        extra = self.preset.lr_a2v.audio_window - _FRAMES_PER_LATENT
        return _FRAMES_PER_LATENT * self.preset.motion_latents + extra

    @contextmanager
    def _timed(self, state: ChunkState, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        state.stage_ms[stage] = state.stage_ms.get(stage, 0.0) + (time.perf_counter() - started) * 1e3

    def _generate_lr(self, tokens: Tensor, new: int, state: ChunkState, sampling: SamplingConfig) -> Tensor:
        """Audio tokens [context + 4n, D] → new LR latents [1, C, n, h, w]."""
        motion_latents = 0 if state.lr_motion is None else state.lr_motion.shape[2]
        frames = 1 + motion_latents + new
        window_tokens = tokens.unfold(0, self.preset.lr_a2v.audio_window, 1).transpose(1, 2)[::_FRAMES_PER_LATENT]
        window_tokens = window_tokens[len(window_tokens) - motion_latents - new :]
        audio = F.pad(window_tokens, (0, 0, 0, 0, 1, 0))[None, None]
        plan = None
        if self.preset.lr_a2v.motion_dim:
            count = _FRAMES_PER_LATENT * (motion_latents + new)
            first = state.frame_index - _FRAMES_PER_LATENT * motion_latents
            rows = torch.from_numpy(motion_frames(state.seed, first, count, state.motion_energy))
            plan = F.pad(rows.unflatten(0, (-1, _FRAMES_PER_LATENT)), (0, 0, 0, 0, 1, 0))[None].to(self.device)
        prefix = [state.lr_reference] + ([state.lr_motion] if state.lr_motion is not None else [])
        null_text = self.text(self.text.tokenize([""]).to(self.device)) if sampling.text_guidance != 1 else None

        def denoise(latents: Tensor, t: Tensor) -> Tensor:
            window = torch.cat([*prefix, latents], dim=2)
            timesteps = torch.cat([t.new_ones(1, frames - new), t[:, None].expand(-1, new)], dim=1)
            denoised = self.lr_a2v(window, timesteps, new, state.text, audio, plan)
            if sampling.audio_guidance != 1:
                without = self.lr_a2v(window, timesteps, new, state.text, torch.zeros_like(audio), plan)
                denoised = guided(denoised, without, sampling.audio_guidance)
            if null_text is not None:
                without = self.lr_a2v(window, timesteps, new, null_text, audio, plan)
                denoised = guided(denoised, without, sampling.text_guidance)
            return denoised

        return euler(denoise, self._noise(state, new, state.lr_reference, stream=0), sampling.lr_steps)

    def _refine(
        self, lr_latents: Tensor, keypoints: Tensor, new: int, state: ChunkState, sampling: SamplingConfig
    ) -> Tensor:
        """New LR latents [1, C, n, h, w] and keypoints [4n, 143, 3] → new HR latents [1, C, n, 2h, 2w]."""
        motion_latents = 0 if state.hr_motion is None else state.hr_motion.shape[2]
        frames = 1 + motion_latents + new
        if state.lr_motion is not None:
            lr_latents = torch.cat([state.lr_motion, lr_latents], dim=2)
        with self._timed(state, "low_pass"):
            seeds = self._latent_seeds(state, motion_latents + new, first=-motion_latents, stream=1)
            rows = lr_latents[0].transpose(0, 1).unsqueeze(2)  # a row a latent: its noise is its own
            degraded = low_pass_noise(
                rows.contiguous(), self.preset.low_pass_sigma, self.preset.degradation_noise, seeds
            )
            degraded = upsample_latents(degraded[:, :, 0].transpose(0, 1)[None])
            degraded = F.pad(degraded, (0, 0, 0, 0, 1, 0))
        with self._timed(state, "pose"):
            points = [state.reference_keypoints.expand(_FRAMES_PER_LATENT, -1, -1)]
            points += [] if state.motion_keypoints is None else [state.motion_keypoints]
            tokens = pose_tokens(torch.cat([*points, keypoints])[None], *self.preset.lr_latent_size)
        prefix = [state.hr_reference] + ([state.hr_motion] if state.hr_motion is not None else [])

        def denoise(latents: Tensor, t: Tensor) -> Tensor:
            window = torch.cat([*prefix, latents], dim=2)
            timesteps = torch.cat([t.new_ones(1, frames - new), t[:, None].expand(-1, new)], dim=1)
            denoised = self.refiner(window, timesteps, new, degraded, tokens)
            if sampling.pose_guidance != 1:
                without = self.refiner(window, timesteps, new, degraded, torch.zeros_like(tokens))
                denoised = guided(denoised, without, sampling.pose_guidance)
            return denoised

        with self._timed(state, "refiner"):
            return euler(denoise, self._noise(state, new, state.hr_reference, stream=2), sampling.refiner_steps)

    def _latent_seeds(self, state: ChunkState, count: int, first: int, stream: int) -> Tensor:
        """A seed [count] int64 for each latent of the stream, whatever the chunk it is made in."""
        index = torch.arange(count, device=self.device) + state.latent_index + first
        return (state.seed * 1_000_003 + index) * 3 + stream

    def _noise(self, state: ChunkState, new: int, like: Tensor, stream: int) -> Tensor:
        """Unit normal noise [1, C, n, H, W] that depends on the seed and the latents' places in the stream."""
        shape = (new, like.shape[1], *like.shape[3:])
        noise = standard_normal(shape, self._latent_seeds(state, new, 0, stream), device=self.device)
        return noise.transpose(0, 1)[None]


def _last(before: Tensor | None, latents: Tensor, count: int) -> Tensor:
    """The last `count` latents of a stream, [1, C, count, h, w]."""
    joined = latents if before is None else torch.cat([before, latents], dim=2)
    return joined[:, :, -count:]


def _last_frames(before: Tensor | None, keypoints: Tensor, count: int) -> Tensor:
    """Keypoints of the last `count` frames, [count, 143, 3]."""
    joined = keypoints if before is None else torch.cat([before, keypoints])
    return joined[-count:]

"""AvatarPipeline: one chunk of sound in, one chunk of frames out; the same call offline and live."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.low_pass import low_pass_noise, standard_normal
from models import checkpoints
from models.animator import Animator, with_planned_features
from models.conditions import SAMPLE_RATE, SAMPLES_PER_FRAME, AudioEncoder, AudioState, TextEncoder
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

    def __init__(self, preset: Preset, device: torch.device | str = "cpu", is_bf16: bool = False) -> None:
        self.preset = preset
        self.is_bf16 = is_bf16
        self.device = torch.device(device)
        with torch.device(self.device):
            self.vae = CausalVAE(preset.vae)
            self.audio = AudioEncoder(preset.audio)
            self.text = TextEncoder(preset.text)
            self.lr_a2v = LRA2V(preset.lr_a2v)
            self.refiner = PGRefiner(preset.refiner)
            self.pose = KeypointNet(preset.pose)
            self.animator = None if preset.animator is None else Animator(preset.animator)
        self.pose_estimator: PoseEstimator = self.pose
        self.point_planner: Callable[..., Tensor] | None = None if self.animator is None else self.animator.points
        for component in checkpoints.components(preset):
            getattr(self, component).eval().requires_grad_(False)

    @classmethod
    def load(
        cls,
        preset: str = "presenter-256",
        weights: Path | None = None,
        device: torch.device | str = "cpu",
        precision: str = "auto",
    ) -> AvatarPipeline:
        """Pipeline with weights: those that come with the package, or those of a folder.

        Args:
            precision: of convolutions and matrix products, "fp32", "bf16", or "auto": bf16 where the device has
                instructions for it. Keypoints, sound and sums stay in fp32.

        Raises:
            ValueError: if there is no such preset or precision.
            CheckpointError: if the weights are missing, broken, or made for another preset.
        """
        config = preset_by_name(preset)
        folder = weights or checkpoints.shipped_weights(preset)
        checkpoints.check_config(folder, config)
        if precision not in ("auto", "fp32", "bf16"):
            raise ValueError(f"precision must be auto, fp32 or bf16, got {precision!r}")
        is_bf16 = precision == "bf16" or precision == "auto" and _has_bf16(torch.device(device))
        pipeline = cls(config, device, is_bf16)
        for component in checkpoints.components(config):
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
        first_frame: int = 0,
    ) -> ChunkState:
        """State of a new stream.

        Args:
            reference: float [3, H, W] in 0 … 1, the presenter at rest, of the preset's HR size.
            prompt: emotion and manner in words; cut at the text encoder's length.
            seed: of noise and motion plan.
            chunk_latents: n, latents of a step; a step may also be called with another n. Default: the preset's.
            motion_energy: 0 … 2, scale of head and torso motion.
            first_frame: media time of the sound that comes first, in frames, a multiple of 4: noise and motion plan
                are those of a stream that has come so far already.

        Raises:
            ValueError: if the reference has another size or type, or another argument is out of range.
        """
        if tuple(reference.shape) != (3, *self.preset.hr_size) or not reference.is_floating_point():
            raise ValueError(
                f"reference must be float [3, {self.preset.hr_size[0]}, {self.preset.hr_size[1]}],"
                f" got {reference.dtype} {list(reference.shape)}"
            )
        chunk_latents = self.preset.chunk_latents if chunk_latents is None else chunk_latents
        if not 1 <= chunk_latents <= 6:
            raise ValueError(f"chunk_latents must be within 1 … 6, got {chunk_latents}")
        if first_frame < 0 or first_frame % _FRAMES_PER_LATENT:
            raise ValueError(f"first_frame must be a multiple of {_FRAMES_PER_LATENT}, at least 0, got {first_frame}")
        _check_energy(motion_energy)
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
            frame_index=first_frame - self.delay_frames,
            latent_index=first_frame // _FRAMES_PER_LATENT,
            text=self._encode_text(prompt),
            lr_picture=small[:, 0],
            hr_picture=picture[:, 0],
            lr_reference=lr_reference,
            hr_reference=hr_reference,
            reference_keypoints=keypoints,
            audio=audio,
            audio_tokens=audio_tokens[-self._token_context :],
            lr_cache=lr_cache,
            hr_cache=hr_cache,
            motion_index=first_frame - self.delay_frames,
            motion_energy=motion_energy,
        )

    @torch.inference_mode()
    def set_prompt(
        self, state: ChunkState, prompt: str | None = None, motion_energy: float | None = None
    ) -> ChunkState:
        """The same stream with another prompt or motion energy from the next chunk on; None leaves it.

        The energy changes in `motion.ENERGY_RAMP_FRAMES`, so that the head does not jump.

        Raises:
            ValueError: if motion_energy is not within 0 … 2.
        """
        if prompt is not None:
            state = replace(state, text=self._encode_text(prompt))
        if motion_energy is not None and motion_energy != state.motion_energy:
            _check_energy(motion_energy)
            state = replace(
                state,
                energy_before=float(state.energies(state.motion_index - 1, 1)[0]),
                motion_energy=motion_energy,
                energy_changed=state.motion_index,
            )
        return state

    def set_reference(self, state: ChunkState, reference: Tensor) -> ChunkState:
        """The same stream with another presenter from the next chunk on: sound, plan and prompt go on.

        Raises:
            ValueError: as `start`.
        """
        fresh = self.start(reference, seed=state.seed, chunk_latents=state.chunk_latents)
        return replace(
            fresh,
            frame_index=state.frame_index,
            latent_index=state.latent_index,
            text=state.text,
            audio=state.audio,
            audio_tokens=state.audio_tokens,
            motion_index=state.motion_index,
            motion_energy=state.motion_energy,
            energy_before=state.energy_before,
            energy_changed=state.energy_changed,
            stage_ms=state.stage_ms,
        )

    @torch.inference_mode()
    def hold(self, samples: Tensor, state: ChunkState) -> ChunkState:
        """Move a stream past a chunk without making frames: the last one shown stays, and what follows starts there.

        The sound is heard, so that what comes after it is in time; the motion plan stands still.

        Args:
            samples, state: as in `step`.

        Raises:
            ValueError: as `step`.
        """
        new = _new_latents(samples)
        state = replace(state, stage_ms=dict(state.stage_ms))
        tokens, audio = self._hear(samples, state)
        return replace(
            state,
            frame_index=state.frame_index + _FRAMES_PER_LATENT * new,
            latent_index=state.latent_index + new,
            audio=audio,
            audio_tokens=tokens[-self._token_context :],
        )

    @torch.inference_mode()
    def step(
        self, samples: Tensor, state: ChunkState, sampling: SamplingConfig | None = None
    ) -> tuple[Tensor, ChunkState]:
        """Generate the next chunk.

        Args:
            samples: float [n·2560] mono 16 kHz in -1 … 1, the next n latents of sound, n in 1 … 6.
            state: of the stream; not changed.
            sampling: steps, guidance, and what to leave out; default: the preset's.

        Returns:
            frames [4n, 3, H, W] float32 in 0 … 1, and the next state. The frames end `delay_frames` before the
            sound does.

        Raises:
            ValueError: if the number of samples is not n·2560 with n in 1 … 6.
        """
        new = _new_latents(samples)
        sampling = sampling or self.preset.sampling
        state = replace(state, stage_ms=dict(state.stage_ms))
        tokens, audio = self._hear(samples, state)
        with self._timed(state, "lr_a2v"), self._fast():
            planned = self._planned_keypoints(tokens, new, state)
            lr_latents = self._generate_lr(tokens, new, planned, state, sampling)
        with self._timed(state, "lr_decode"), self._fast():
            is_half_rate = sampling.is_half_rate and not sampling.is_refined  # keypoints are read off every frame
            lr_frames, lr_cache = self.vae.decode_chunk(lr_latents, state.lr_cache, is_half_rate)
            lr_frames = lr_frames[0].float().clamp(0, 1)
        after = replace(
            state,
            frame_index=state.frame_index + _FRAMES_PER_LATENT * new,
            latent_index=state.latent_index + new,
            audio=audio,
            audio_tokens=tokens[-self._token_context :],
            lr_motion=_last(state.lr_motion, lr_latents, self.preset.motion_latents),
            hr_motion=None,
            motion_keypoints=None,
            lr_cache=lr_cache,
            motion_index=state.motion_index + _FRAMES_PER_LATENT * new,
        )
        if not sampling.is_refined:
            with self._timed(state, "decode"):
                return self._enlarge(lr_frames, sampling.is_half_rate), after
        with self._timed(state, "pose"):
            keypoints = self.pose_estimator(lr_frames)
            keypoints[:, BACKGROUND] = state.reference_keypoints[BACKGROUND]
            keypoints = keypoints if planned is None else with_planned_features(keypoints, planned)
        return self._finish(lr_latents, keypoints, state, after, sampling)

    def _hear(self, samples: Tensor, state: ChunkState) -> tuple[Tensor, AudioState]:
        """Audio tokens [context + 4n, D] up to the chunk's end, and what the encoder carries."""
        with self._timed(state, "audio"):
            tokens, audio = self.audio.step(samples.to(self.device, torch.float32), state.audio)
            return torch.cat([state.audio_tokens, tokens]), audio

    def _finish(
        self, lr_latents: Tensor, keypoints: Tensor, state: ChunkState, after: ChunkState, sampling: SamplingConfig
    ) -> tuple[Tensor, ChunkState]:
        """The way from LR latents and keypoints [4n, 143, 3] to HR frames [4n, 3, H, W], and the state after it."""
        m = self.preset.motion_latents
        hr_latents = self._refine(lr_latents, keypoints, lr_latents.shape[2], state, sampling)
        with self._timed(state, "decode"), self._fast():
            frames, hr_cache = self.vae.decode_chunk(hr_latents, state.hr_cache, sampling.is_half_rate)
            frames = frames[0].float().clamp(0, 1)
        return frames, replace(
            after,
            hr_motion=_last(state.hr_motion, hr_latents, m),
            motion_keypoints=_last_frames(state.motion_keypoints, keypoints, _FRAMES_PER_LATENT * m),
            hr_cache=hr_cache,
        )

    def _enlarge(self, lr_frames: Tensor, is_half_rate: bool) -> Tensor:
        """LR frames [4n, 3, h, w] in 0 … 1 → [4n, 3, H, W]; frames that are shown twice are enlarged once."""
        different = lr_frames[::2] if is_half_rate else lr_frames
        larger = F.interpolate(different, size=self.preset.hr_size, mode="bicubic", align_corners=False).clamp(0, 1)
        return larger.repeat_interleave(2, dim=0) if is_half_rate else larger

    def _encode_text(self, prompt: str) -> Tensor:
        return self.text(self.text.tokenize([prompt]).to(self.device))

    @property
    def _token_context(self) -> int:
        """Audio tokens before a chunk that its windows reach back to."""
        extra = self.preset.lr_a2v.audio_window - _FRAMES_PER_LATENT
        return _FRAMES_PER_LATENT * self.preset.motion_latents + extra

    def _fast(self) -> AbstractContextManager:
        """What convolutions and matrix products of the large models run under."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.is_bf16)

    @contextmanager
    def _timed(self, state: ChunkState, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        state.stage_ms[stage] = state.stage_ms.get(stage, 0.0) + (time.perf_counter() - started) * 1e3

    def _generate_lr(
        self, tokens: Tensor, new: int, planned: Tensor | None, state: ChunkState, sampling: SamplingConfig
    ) -> Tensor:
        """Audio tokens [context + 4n, D] and planned keypoints [4n, 143, 3] → new LR latents [1, C, n, h, w]."""
        motion_latents = 0 if state.lr_motion is None else state.lr_motion.shape[2]
        frames = 1 + motion_latents + new
        window_tokens = tokens.unfold(0, self.preset.lr_a2v.audio_window, 1).transpose(1, 2)[::_FRAMES_PER_LATENT]
        window_tokens = window_tokens[len(window_tokens) - motion_latents - new :]
        audio = F.pad(window_tokens, (0, 0, 0, 0, 1, 0))[None, None]
        plan = None
        if self.preset.lr_a2v.motion_dim:
            count = _FRAMES_PER_LATENT * (motion_latents + new)
            first = state.motion_index - _FRAMES_PER_LATENT * motion_latents
            rows = self._motion_plan(first, count, state)
            plan = F.pad(rows.unflatten(0, (-1, _FRAMES_PER_LATENT)), (0, 0, 0, 0, 1, 0))[None]
        prefix = [state.lr_reference] + ([state.lr_motion] if state.lr_motion is not None else [])
        base = None if planned is None else self._moved(state.lr_picture, planned, state)
        null_text = self._encode_text("") if sampling.text_guidance != 1 else None

        def denoise(latents: Tensor, t: Tensor) -> Tensor:
            window = torch.cat([*prefix, latents], dim=2)
            timesteps = torch.cat([t.new_ones(1, frames - new), t[:, None].expand(-1, new)], dim=1)
            denoised = self.lr_a2v(window, timesteps, new, state.text, audio, plan, base=base)
            if sampling.audio_guidance != 1:
                without = self.lr_a2v(window, timesteps, new, state.text, torch.zeros_like(audio), plan, base=base)
                denoised = guided(denoised, without, sampling.audio_guidance)
            if null_text is not None:
                without = self.lr_a2v(window, timesteps, new, null_text, audio, plan, base=base)
                denoised = guided(denoised, without, sampling.text_guidance)
            return denoised

        return euler(denoise, self._noise(state, new, state.lr_reference, stream=0), sampling.lr_steps)

    def _motion_plan(self, first: int, count: int, state: ChunkState) -> Tensor:
        """The stream's motion plan of `count` frames from frame `first` on, [count, M]."""
        return torch.from_numpy(motion_frames(state.seed, first, count, state.energies(first, count))).to(self.device)

    def _planned_keypoints(self, tokens: Tensor, new: int, state: ChunkState) -> Tensor | None:
        """Where sound tokens [context + 4n, D], plan and prompt put the presenter, [4n, 143, 3]; None: no animator."""
        if self.animator is None or self.point_planner is None:
            return None
        count = _FRAMES_PER_LATENT * new
        heard = tokens[-count - self.animator.config.token_window + 1 :]
        plan = self._motion_plan(state.motion_index, count, state)
        with torch.autocast(self.device.type, enabled=False):  # half a pixel is lost in bf16
            return self.point_planner(heard[None], plan[None], state.text, state.reference_keypoints[None])[0]

    def _moved(self, picture: Tensor, keypoints: Tensor, state: ChunkState) -> Tensor | None:
        """Latents [1, C, n, h, w] of a reference picture [1, 3, H, W] moved to keypoints [4n, 143, 3]."""
        if self.animator is None:
            return None
        with torch.autocast(self.device.type, enabled=False):
            moved = self.animator.move(picture, state.reference_keypoints[None], keypoints[None])
        return self.vae.encode_groups(moved)

    def _refine(
        self, lr_latents: Tensor, keypoints: Tensor, new: int, state: ChunkState, sampling: SamplingConfig
    ) -> Tensor:
        """New LR latents [1, C, n, h, w] and keypoints [4n, 143, 3] → new HR latents [1, C, n, 2h, 2w].

        After a chunk that was not refined it starts afresh from the reference, as in a stream's first chunk: encoding
        the enlarged frames as motion latents measured 1 dB worse on the first weights (and the decoder's memory, left
        as it was, makes no difference above 50 dB).
        """
        motion_latents = 0 if state.hr_motion is None else state.hr_motion.shape[2]
        frames = 1 + motion_latents + new
        if motion_latents and state.lr_motion is not None:
            lr_latents = torch.cat([state.lr_motion[:, :, -motion_latents:], lr_latents], dim=2)
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
        with self._timed(state, "animator"), self._fast():
            base = self._moved(state.hr_picture, keypoints, state)
        prefix = [state.hr_reference] + ([state.hr_motion] if state.hr_motion is not None else [])

        def denoise(latents: Tensor, t: Tensor) -> Tensor:
            window = torch.cat([*prefix, latents], dim=2)
            timesteps = torch.cat([t.new_ones(1, frames - new), t[:, None].expand(-1, new)], dim=1)
            denoised = self.refiner(window, timesteps, new, degraded, tokens, base)
            if sampling.pose_guidance != 1:
                without = self.refiner(window, timesteps, new, degraded, torch.zeros_like(tokens), base)
                denoised = guided(denoised, without, sampling.pose_guidance)
            return denoised

        with self._timed(state, "refiner"), self._fast():
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


def _has_bf16(device: torch.device) -> bool:
    """Whether products in bf16 are faster than in fp32 on a device."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def _new_latents(samples: Tensor) -> int:
    """n of a chunk of n·2560 samples.

    Raises:
        ValueError: if it is none.
    """
    new, rest = divmod(samples.shape[0], _FRAMES_PER_LATENT * SAMPLES_PER_FRAME)
    if rest or not 1 <= new <= 6:
        raise ValueError(
            f"samples must be 1 … 6 times {_FRAMES_PER_LATENT * SAMPLES_PER_FRAME}, got {samples.shape[0]}"
        )
    return new


def _check_energy(motion_energy: float) -> None:
    if not 0 <= motion_energy <= 2:
        raise ValueError(f"motion_energy must be within 0 … 2, got {motion_energy}")


def _last(before: Tensor | None, latents: Tensor, count: int) -> Tensor:
    """The last `count` latents of a stream, [1, C, count, h, w]."""
    joined = latents if before is None else torch.cat([before, latents], dim=2)
    return joined[:, :, -count:]


def _last_frames(before: Tensor | None, keypoints: Tensor, count: int) -> Tensor:
    """Keypoints of the last `count` frames, [count, 143, 3]."""
    joined = keypoints if before is None else torch.cat([before, keypoints])
    return joined[-count:]

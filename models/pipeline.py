"""AvatarPipeline: one chunk of sound in, one chunk of frames out; the same call offline and live."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels.rgb_to_i420 import rgb_to_i420
from models import checkpoints
from models.animator import with_planned_features
from models.conditions import SAMPLE_RATE, SAMPLES_PER_FRAME, AudioState
from models.configs import SamplingConfig
from models.generation import ChunkModels, at_rest
from models.graphs import CudaGraphs
from models.motion import FPS, PlanPlace
from models.pose import BACKGROUND, PERSON_POINTS, background_points
from models.presets import preset as preset_by_name
from models.state import ChunkState, Draft, Reference, join_caches, row_of_cache
from models.talking import FRAMES_PER_LATENT, Chunk, Rung, check_stream, new_latents


class AvatarPipeline(ChunkModels):
    """The models of one preset on one device. Holds no stream's state; one pipeline serves many streams."""

    fps = FPS
    sample_rate = SAMPLE_RATE
    fixed_latents: int | None = None

    @classmethod
    def load(
        cls,
        preset: str = "presenter-256",
        weights: Path | None = None,
        device: torch.device | str = "cpu",
        precision: str = "auto",
        has_graphs: bool = False,
    ) -> AvatarPipeline:
        """Pipeline with weights: those that come with the package, or those of a folder.

        Args:
            precision: of convolutions and matrix products, "fp32", "bf16", or "auto": bf16 where the device has
                instructions for it. Keypoints, sound and sums stay in fp32.
            has_graphs: replay the models from CUDA graphs (`models.graphs`); without effect elsewhere.

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
        if is_bf16:
            _round_weights(pipeline.lr_a2v, pipeline.refiner)
        if has_graphs and pipeline.device.type == "cuda":
            pipeline.graphs = CudaGraphs()
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

    @property
    def rungs(self) -> tuple[Rung, ...]:
        """The ways to make a chunk; see `TalkingModel`."""
        return tuple(rung for rung in Rung if rung is not Rung.HOLD)

    @torch.inference_mode()
    def prepare(self, picture: Tensor) -> Reference:
        """What is made once of a picture.

        Args:
            picture: the presenter at rest, of the preset's HR size, float [3, H, W] in 0 … 1 or uint8 [H, W, 3].

        Raises:
            ValueError: if it has another size or type.
        """
        if picture.dtype == torch.uint8 and picture.ndim == 3:
            picture = picture.permute(2, 0, 1).float() / 255
        height, width = self.preset.hr_size
        if tuple(picture.shape) != (3, height, width) or not picture.is_floating_point():
            raise ValueError(
                f"reference must be float [3, {height}, {width}], got {picture.dtype} {list(picture.shape)}"
            )
        large = picture.to(self.device)[None, None]
        small = F.interpolate(large[:, 0], size=self.preset.lr_size, mode="area")[:, None]
        lr_latents, hr_latents = self.vae.encode(small), self.vae.encode(large)
        lr_frames, lr_cache = self.frame_decoder.decode_chunk(lr_latents, None)
        _, hr_cache = self.frame_decoder.decode_chunk(hr_latents, None)
        keypoints = self.pose_estimator(lr_frames[0].clamp(0, 1))[0]
        keypoints[BACKGROUND] = background_points(large[0, 0], keypoints[:PERSON_POINTS])
        return Reference(small[:, 0], large[:, 0], lr_latents, hr_latents, keypoints, lr_cache, hr_cache)

    def rehearsal(self) -> ChunkState:
        """A stream of a grey picture."""
        return self.start(torch.full((3, *self.preset.hr_size), 0.5))

    def still(self, state: ChunkState) -> Tensor:
        """The reference picture as a frame [1, 3, H, W]."""
        return state.reference.hr_picture.clone()

    @torch.inference_mode()
    def start(
        self,
        reference: Tensor | Reference,
        prompt: str = "",
        seed: int = 0,
        chunk_latents: int | None = None,
        motion_energy: float = 1.0,
        first_frame: int = 0,
    ) -> ChunkState:
        """State of a new stream.

        Args:
            reference: a picture as `prepare` takes it, or what it made of one.
            prompt: emotion and manner in words; cut at the text encoder's length.
            seed: of noise and motion plan.
            chunk_latents: n, latents of a step; a step may also be called with another n. Default: the preset's.
            motion_energy: 0 … 2, scale of head and torso motion.
            first_frame: media time of the sound that comes first, in frames, a multiple of 4: noise and motion plan
                are those of a stream that has come so far already.

        Raises:
            ValueError: as `prepare`, or if another argument is out of range.
        """
        chunk_latents = self.preset.chunk_latents if chunk_latents is None else chunk_latents
        check_stream(chunk_latents, first_frame)
        plan = PlanPlace(seed, first_frame - self.delay_frames, motion_energy)
        reference = self.prepare(reference) if isinstance(reference, Tensor) else reference
        silence = torch.zeros((self._token_context + self.delay_frames) * SAMPLES_PER_FRAME, device=self.device)
        audio_tokens, audio = self.audio.step(silence, self.audio.start(self.device))
        return ChunkState(
            seed=seed,
            chunk_latents=chunk_latents,
            plan=plan,
            frame_index=first_frame - self.delay_frames,
            latent_index=first_frame // FRAMES_PER_LATENT,
            text=self.encode_text(prompt),
            reference=reference,
            audio=audio,
            audio_tokens=audio_tokens[-self._token_context :],
            lr_cache=reference.lr_cache,
            hr_cache=reference.hr_cache,
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
            state = replace(state, text=self.encode_text(prompt))
        if motion_energy is not None:
            state = replace(state, plan=state.plan.with_energy(motion_energy))
        return state

    def set_reference(self, state: ChunkState, reference: Tensor | Reference) -> ChunkState:
        """The same stream with another presenter from the next chunk on: sound, plan and prompt go on.

        Raises:
            ValueError: as `prepare`.
        """
        reference = self.prepare(reference) if isinstance(reference, Tensor) else reference
        return replace(
            state,
            reference=reference,
            lr_motion=None,
            hr_motion=None,
            motion_keypoints=None,
            lr_cache=reference.lr_cache,
            hr_cache=reference.hr_cache,
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
        new = new_latents(samples)
        tokens, audio = self._hear(samples, state)
        return replace(
            state,
            frame_index=state.frame_index + FRAMES_PER_LATENT * new,
            latent_index=state.latent_index + new,
            audio=audio,
            audio_tokens=tokens[-self._token_context :],
        )

    def step(
        self, samples: Tensor, state: ChunkState, sampling: SamplingConfig | Rung = Rung.FULL
    ) -> Chunk[ChunkState]:
        """Generate the next chunk.

        Args:
            samples: float [n·2560] mono 16 kHz in -1 … 1, the next n latents of sound, n in 1 … 6.
            state: of the stream; not changed.
            sampling: a rung, or steps, guidance, and what to leave out; default: the preset's.

        Returns:
            frames [4n, 3, H, W] float32 in 0 … 1, the next state, milliseconds by stage. The frames end
            `delay_frames` before the sound does.

        Raises:
            ValueError: if the number of samples is not n·2560 with n in 1 … 6.
        """
        return self.step_batch([samples], [state], sampling)[0]

    @torch.inference_mode()
    def step_batch(
        self,
        samples: Sequence[Tensor],
        states: Sequence[ChunkState],
        sampling: SamplingConfig | Rung = Rung.FULL,
    ) -> list[Chunk[ChunkState]]:
        """Generate the next chunk of several streams, each of them as `step` would.

        Streams with chunks of one length and equally many motion latents go through the models together; others after
        them, and share their time.

        Args:
            samples, states: of each stream, as in `step`; chunks may differ in length.
            sampling: of all of them.

        Returns:
            the chunk of each stream, in the order of `states`.

        Raises:
            ValueError: as `step`, or if there are not as many samples as states.
        """
        if len(samples) != len(states):
            raise ValueError(f"every stream must have samples, got {len(samples)} for {len(states)} streams")
        groups: dict[tuple[int, ...], list[int]] = {}
        for index, (sound, state) in enumerate(zip(samples, states, strict=True)):
            groups.setdefault((new_latents(sound), *state.motion_counts), []).append(index)
        made: dict[int, Chunk[ChunkState]] = {}
        for members in groups.values():
            draft = self.draft([samples[index] for index in members], [states[index] for index in members], sampling)
            made.update(zip(members, self.finish(draft), strict=True))
        return [made[index] for index in range(len(states))]

    @torch.inference_mode()
    def draft(
        self,
        samples: Sequence[Tensor],
        states: Sequence[ChunkState],
        sampling: SamplingConfig | Rung = Rung.FULL,
    ) -> Draft:
        """The LR half of the next chunk of B streams: latents, small frames, keypoints.

        It needs nothing of the HR half of the chunk before, so that the two can run side by side (`overlapped`).

        Args:
            samples, states, sampling: as in `step_batch`, of streams with equally long chunks and as many motion
                latents.

        Raises:
            ValueError: as `step`.
        """
        sampling = rung_sampling(self.preset.sampling, sampling) if isinstance(sampling, Rung) else sampling
        stage_ms: dict[str, float] = {}
        new = new_latents(samples[0])
        with self.timed(stage_ms, "audio"):
            heard = [self._hear(sound, state) for sound, state in zip(samples, states, strict=True)]
        tokens = torch.stack([chunk_tokens for chunk_tokens, _ in heard])
        with self.timed(stage_ms, "lr_a2v"), self.fast():
            planned = self.planned_keypoints(tokens, new, list(states))
            lr_latents = self.generate_lr(tokens, new, planned, list(states), sampling)
        with self.timed(stage_ms, "lr_decode"), self.fast():
            is_half_rate = sampling.is_half_rate and not sampling.is_refined  # keypoints are read off every frame
            lr_cache = join_caches([state.lr_cache for state in states])
            lr_frames, lr_cache = self.call(self.frame_decoder.decode_chunk, lr_latents, lr_cache, is_half_rate)
            lr_frames = lr_frames.float().clamp_(0, 1)
        keypoints = None
        if sampling.is_refined:
            with self.timed(stage_ms, "pose"):
                keypoints = self.pose_estimator(lr_frames.flatten(0, 1)).unflatten(0, (len(states), -1))
                keypoints[:, :, BACKGROUND] = at_rest(list(states))[:, None, BACKGROUND]
                if planned is not None:
                    found = with_planned_features(keypoints.flatten(0, 1), planned.flatten(0, 1))
                    keypoints = found.view_as(keypoints)
        after = [
            replace(
                state,
                frame_index=state.frame_index + FRAMES_PER_LATENT * new,
                latent_index=state.latent_index + new,
                audio=audio,
                audio_tokens=chunk_tokens[-self._token_context :],
                lr_motion=_last(state.lr_motion, lr_latents[row : row + 1], self.preset.motion_latents),
                hr_motion=None,
                motion_keypoints=None,
                lr_cache=row_of_cache(lr_cache, row),
                plan=state.plan.after(FRAMES_PER_LATENT * new),
            )
            for row, (state, (chunk_tokens, audio)) in enumerate(zip(states, heard, strict=True))
        ]
        return Draft(list(states), after, sampling, lr_latents, lr_frames, keypoints, stage_ms)

    @torch.inference_mode()
    def finish(self, draft: Draft) -> list[Chunk[ChunkState]]:
        """The HR half of a chunk of B streams, each as `step_batch` gives it."""
        states, sampling, m = draft.states, draft.sampling, self.preset.motion_latents
        stage_ms = dict(draft.stage_ms)
        if draft.keypoints is None:
            with self.timed(stage_ms, "decode"):
                larger = self._enlarge(draft.lr_frames.flatten(0, 1), sampling.is_half_rate)
            return _chunks(larger.unflatten(0, (len(states), -1)), draft.after, stage_ms)
        hr_latents = self.refine(draft.lr_latents, draft.keypoints, states, sampling, stage_ms)
        with self.timed(stage_ms, "decode"), self.fast():
            hr_cache = join_caches([state.hr_cache for state in states])
            frames, hr_cache = self.call(self.frame_decoder.decode_chunk, hr_latents, hr_cache, sampling.is_half_rate)
            frames = frames.float().clamp_(0, 1)
        after = [
            replace(
                following,
                hr_motion=_last(state.hr_motion, hr_latents[row : row + 1], m),
                motion_keypoints=_last_frames(state.motion_keypoints, draft.keypoints[row], FRAMES_PER_LATENT * m),
                hr_cache=row_of_cache(hr_cache, row),
            )
            for row, (state, following) in enumerate(zip(states, draft.after, strict=True))
        ]
        return _chunks(frames, after, stage_ms)

    @staticmethod
    def to_i420(frames: Tensor) -> Tensor:
        """Frames [T, 3, H, W] in 0 … 1 → planes that encoders take, uint8 [T, H·3/2, W]; see `kernels.rgb_to_i420`."""
        return rgb_to_i420(frames)

    def _hear(self, samples: Tensor, state: ChunkState) -> tuple[Tensor, AudioState]:
        """Audio tokens [context + 4n, D] up to the chunk's end, and what the encoder carries."""
        tokens, audio = self.audio.step(samples.to(self.device, torch.float32), state.audio)
        return torch.cat([state.audio_tokens, tokens]), audio

    def _enlarge(self, lr_frames: Tensor, is_half_rate: bool) -> Tensor:
        """LR frames [4n, 3, h, w] in 0 … 1 → [4n, 3, H, W]; frames that are shown twice are enlarged once."""
        different = lr_frames[::2] if is_half_rate else lr_frames
        larger = F.interpolate(different, size=self.preset.hr_size, mode="bicubic", align_corners=False).clamp(0, 1)
        return larger.repeat_interleave(2, dim=0) if is_half_rate else larger

    @property
    def _token_context(self) -> int:
        """Audio tokens before a chunk that its windows reach back to."""
        extra = self.preset.lr_a2v.audio_window - FRAMES_PER_LATENT
        return FRAMES_PER_LATENT * self.preset.motion_latents + extra


def rung_sampling(own: SamplingConfig, rung: Rung) -> SamplingConfig:
    """A preset's own sampling without what a rung leaves out."""
    if rung is Rung.FULL:
        return own
    return replace(
        own,
        lr_steps=max(1, own.lr_steps // 2),
        audio_guidance=1.0,
        text_guidance=1.0,
        is_refined=own.is_refined and rung < Rung.NO_REFINER,
        is_half_rate=own.is_half_rate or rung.is_half_rate,
    )


def _chunks(frames: Tensor, after: list[ChunkState], stage_ms: dict[str, float]) -> list[Chunk[ChunkState]]:
    """The chunks of B streams, which share the time that all of them took."""
    share_ms = {stage: ms / len(after) for stage, ms in stage_ms.items()}
    return [Chunk(made, state, share_ms) for made, state in zip(frames, after, strict=True)]


def _has_bf16(device: torch.device) -> bool:
    """Whether products in bf16 are faster than in fp32 on a device."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def _round_weights(*models: nn.Module) -> None:
    """Products and convolutions in bf16 from here on: autocast would round their weights again in every call."""
    for model in models:
        for layer in model.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                layer.to(torch.bfloat16)


def _last(before: Tensor | None, latents: Tensor, count: int) -> Tensor:
    """The last `count` latents of a stream, [1, C, count, h, w]."""
    joined = latents if before is None else torch.cat([before, latents], dim=2)
    return joined[:, :, -count:]


def _last_frames(before: Tensor | None, keypoints: Tensor, count: int) -> Tensor:
    """Keypoints of the last `count` frames, [count, 143, 3]."""
    joined = keypoints if before is None else torch.cat([before, keypoints])
    return joined[-count:]

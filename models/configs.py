"""Configurations: one frozen dataclass a component, checked when made; `presets.py` names the combinations."""

from __future__ import annotations

from dataclasses import dataclass, field

from models.motion import MOTION_DIM


def _positive(**values: float) -> None:
    for name, value in values.items():
        if value <= 0:
            raise ValueError(f"{name} must be positive, got {value}")


@dataclass(frozen=True)
class VAEConfig:
    """Causal 3D VAE, f8 t4: widths at 1/8 (trunk, per latent; frame, per frame) and 1/4 (detail) resolution."""

    latent_channels: int = 16
    spatial_stride: int = 8
    temporal_stride: int = 4
    encoder_width: int = 96
    encoder_blocks: int = 2
    trunk_width: int = 128
    trunk_blocks: int = 3
    frame_width: int = 64
    detail_width: int = 32
    detail_blocks: int = 3

    def __post_init__(self) -> None:
        _positive(latent_channels=self.latent_channels, trunk_width=self.trunk_width)
        if self.spatial_stride != 8 or self.temporal_stride != 4:
            raise ValueError(f"strides must be 8 and 4, got {self.spatial_stride} and {self.temporal_stride}")


@dataclass(frozen=True)
class TinyDecoderConfig:
    """Decoder of Wan2.1 latents: channels of the latents, and of the features at 1/8, 1/4, 1/2 and full resolution."""

    latent_channels: int = 16
    widths: tuple[int, int, int, int] = (256, 128, 64, 64)

    def __post_init__(self) -> None:
        if self.latent_channels <= 0:
            raise ValueError(f"latent_channels must be positive, got {self.latent_channels}")
        if len(self.widths) != 4 or min(self.widths) <= 0:
            raise ValueError(f"widths must be four positive numbers, got {self.widths}")


@dataclass(frozen=True)
class AudioEncoderConfig:
    """Log-mel to one token a video frame; `look_ahead_frames` of sound after the frame are heard."""

    mel_bins: int = 80
    width: int = 160
    dilations: tuple[int, ...] = (1, 1, 2, 2)
    look_ahead_frames: int = 2
    dropout: float = 0.2

    def __post_init__(self) -> None:
        _positive(mel_bins=self.mel_bins, width=self.width)
        if not 0 <= self.look_ahead_frames <= 5:
            raise ValueError(f"look_ahead_frames must be within 0 … 5, got {self.look_ahead_frames}")

    @property
    def context_frames(self) -> int:
        """Video frames of sound before a token that it hears."""
        return 2 * sum(self.dilations)


@dataclass(frozen=True)
class ExpressionPlannerConfig:
    """Speech tokens to face actions: width, and where its gates begin and end to shut the lips (probabilities)."""

    audio_width: int = 160
    width: int = 192
    text_tokens: int = 4
    text_width: int = 64
    closure_gate: tuple[float, float] = (0.23, 0.31)
    silence_gate: tuple[float, float] = (0.3, 0.8)
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for name in ("closure_gate", "silence_gate"):
            low, high = getattr(self, name)
            if not 0 <= low < high <= 1:
                raise ValueError(f"{name} must rise within 0 … 1, got {low} … {high}")


@dataclass(frozen=True)
class TextEncoderConfig:
    """Byte-level prompt encoder: `max_bytes` bytes to `tokens` tokens of `width`."""

    max_bytes: int = 64
    tokens: int = 4
    width: int = 64

    def __post_init__(self) -> None:
        if self.max_bytes % self.tokens:
            raise ValueError(f"max_bytes {self.max_bytes} must be a multiple of tokens {self.tokens}")


@dataclass(frozen=True)
class TransformerConfig:
    """A stack of DiT blocks. `attention_window` (tokens) limits self-attention in the picture plane; None: all."""

    width: int = 192
    layers: int = 6
    heads: int = 3
    mlp_ratio: float = 4.0
    attention_window: int | None = None
    prefix_causal: bool = False

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of heads {self.heads}")
        if self.head_dim % 8:
            raise ValueError(f"head dimension {self.head_dim} must be a multiple of 8 for 3D RoPE")

    @property
    def head_dim(self) -> int:
        return self.width // self.heads


@dataclass(frozen=True)
class AnimatorConfig:
    """Animator: how many audio tokens up to a frame its keypoints hear, widths, and the flow's cells a side."""

    token_window: int = 5
    points_width: int = 512
    dropout: float = 0.1
    flow_cells: int = 32
    flow_width: int = 256
    audio_width: int = 160
    text_tokens: int = 4
    text_width: int = 64
    motion_dim: int = MOTION_DIM

    def __post_init__(self) -> None:
        _positive(token_window=self.token_window, points_width=self.points_width, flow_cells=self.flow_cells)


@dataclass(frozen=True)
class LRA2VConfig:
    """LR-A2V (§3.1): transformer, convolutional `features` at its way in and out, and what it is conditioned on.

    `audio_window`: audio tokens a latent sees.
    """

    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    features: int = 64
    latent_channels: int = 16
    audio_width: int = 160
    audio_window: int = 8
    text_width: int = 64
    motion_dim: int = MOTION_DIM
    prediction: str = "denoised"

    def __post_init__(self) -> None:
        _check_prediction(self.prediction)
        if self.audio_window < 4:
            raise ValueError(f"audio_window must cover the 4 frames of a latent, got {self.audio_window}")


@dataclass(frozen=True)
class RefinerConfig:
    """PG-Refiner (§3.2): transformer, and convolutional `features` at its way in and out."""

    transformer: TransformerConfig = field(default_factory=lambda: TransformerConfig(layers=4, attention_window=8))
    features: int = 64
    latent_channels: int = 16
    pose_token_dim: int = 512
    prediction: str = "denoised"

    def __post_init__(self) -> None:
        _check_prediction(self.prediction)


@dataclass(frozen=True)
class PoseConfig:
    """Keypoint estimator on LR frames: hidden width, and the size it looks at."""

    hidden: int = 256
    coarse_size: int = 32
    mouth_crop: tuple[int, int] = (32, 44)


@dataclass(frozen=True)
class SamplingConfig:
    """Steps and guidance. A preset's own numbers serve; `UNDISTILLED` are the paper's (§6.5, Table 4).

    Two more ways to save time, for a chunk whose deadline is near. `is_refined` False leaves the refiner out: the LR
    frames are enlarged. `is_half_rate` decodes every second frame, which is shown twice. Any step of a stream may
    follow any other.
    """

    lr_steps: int = 1
    refiner_steps: int = 1
    audio_guidance: float = 1.0
    text_guidance: float = 1.0
    pose_guidance: float = 1.0
    is_refined: bool = True
    is_half_rate: bool = False


UNDISTILLED = SamplingConfig(lr_steps=30, refiner_steps=20, audio_guidance=6.5, text_guidance=6.5, pose_guidance=1.5)


@dataclass(frozen=True)
class Preset:
    """Everything that one tier needs. Sizes are (height, width) of the picture in pixels.

    Without an `animator` both models start from the reference as it is. With a `tiny_decoder` that one makes the frames
    and not the VAE.
    """

    name: str
    lr_size: tuple[int, int]
    hr_size: tuple[int, int]
    vae: VAEConfig = field(default_factory=VAEConfig)
    audio: AudioEncoderConfig = field(default_factory=AudioEncoderConfig)
    text: TextEncoderConfig = field(default_factory=TextEncoderConfig)
    lr_a2v: LRA2VConfig = field(default_factory=LRA2VConfig)
    pose: PoseConfig = field(default_factory=PoseConfig)
    animator: AnimatorConfig | None = field(default_factory=AnimatorConfig)
    refiner: RefinerConfig = field(default_factory=RefinerConfig)
    tiny_decoder: TinyDecoderConfig | None = None
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    chunk_latents: int = 3
    motion_latents: int = 1
    degradation_noise: float = 0.7
    low_pass_sigma: float = 1.0

    def __post_init__(self) -> None:
        for lr, hr in zip(self.lr_size, self.hr_size, strict=True):
            if hr != 2 * lr or lr % 16:
                raise ValueError(f"HR must be twice LR and LR a multiple of 16, got {self.lr_size}, {self.hr_size}")
        if not 1 <= self.chunk_latents <= 6:
            raise ValueError(f"chunk_latents must be within 1 … 6, got {self.chunk_latents}")
        if self.tiny_decoder is not None and self.tiny_decoder.latent_channels != self.vae.latent_channels:
            raise ValueError(f"tiny_decoder must take latents of {self.vae.latent_channels} channels")
        if self.lr_a2v.audio_width != self.audio.width or self.lr_a2v.text_width != self.text.width:
            raise ValueError("lr_a2v.audio_width and text_width must equal the encoders' widths")
        if self.animator is not None:
            found = (self.animator.audio_width, self.animator.text_tokens, self.animator.text_width)
            if found != (self.audio.width, self.text.tokens, self.text.width):
                raise ValueError(f"animator's audio and text must be those of the encoders, got {found}")
            if self.animator.token_window > self.lr_a2v.audio_window:
                raise ValueError(f"animator.token_window must be at most {self.lr_a2v.audio_window}")

    @property
    def lr_latent_size(self) -> tuple[int, int]:
        return self.lr_size[0] // 8, self.lr_size[1] // 8

    @property
    def hr_latent_size(self) -> tuple[int, int]:
        return self.hr_size[0] // 8, self.hr_size[1] // 8


def _check_prediction(prediction: str) -> None:
    if prediction not in ("denoised", "velocity"):
        raise ValueError(f"prediction must be 'denoised' or 'velocity', got {prediction!r}")

"""Items of the auto-encoders: TAEHV and the LTX VAE."""

from __future__ import annotations

import torch

from models.public.conformance import rule
from models.public.conformance.fixture import Fixture
from models.public.ltx_vae import LTXVAE, LTXVAEConfig
from models.public.taehv import TAEHV

_LIMIT = 1e-5


@torch.inference_mode()
def check_taehv(fixture: Fixture) -> None:
    """Decoder whole and streamed, encoder of nine frames and of their last five."""
    model = TAEHV().eval()
    exceptions = {"decoder.22.weight": (0.0, 1.2 / 576**0.5), "decoder.22.bias": (0.5, 0.02)}
    for half in (model.tiny_encoder, model.tiny_decoder):
        half.load_state_dict(rule.weights(rule.shapes_of(half), fixture.seed, "taehv.", exceptions))
    latents, more = fixture.input("input.taehv.latents"), fixture.input("input.taehv.latents_b")
    latents, more = latents.transpose(1, 2), more.transpose(1, 2)

    raw = model.tiny_decoder.decode_raw(latents, None)[0]
    fixture.compare("decoder.raw_12_frames_before_clamp_and_trim", raw, _LIMIT)
    frames, cache = model.tiny_decoder.decode_chunk(latents, None)
    fixture.compare("decode.frames", frames, _LIMIT)
    streamed, cache_after = [], None
    for latent in latents.split(1, dim=2):
        part, cache_after = model.tiny_decoder.decode_chunk(latent, cache_after)
        streamed.append(part)
    for index, frame in enumerate(torch.cat(streamed, dim=1).unbind(1)):
        fixture.compare(f"decode.frame{index}", frame, _LIMIT)
    continued = model.tiny_decoder.decode_chunk(more, cache_after)[0]
    fixture.compare("decode.stream_continuation_frames", continued, _LIMIT)
    fixture.compare("leaptalk_adapter.decode", model.decode(latents), _LIMIT)

    video = fixture.draw("input.taehv.video", (1, 9, 3, 32, 48), mean=0.5, std=0.15).clamp(0, 1)
    fixture.compare("encode9.latents", model.tiny_encoder.encode(video).transpose(1, 2), _LIMIT)
    fixture.compare("encode_last5.latents", model.tiny_encoder.encode(video[:, -5:]).transpose(1, 2), _LIMIT)


@torch.inference_mode()
def check_ltx_vae(fixture: Fixture) -> None:
    """The posterior's mean and variance of a video, and a decoded one."""
    model = LTXVAE(LTXVAEConfig.from_published(fixture.about["diffusers_config"])).eval()
    exceptions = {"latents_mean": (0.0, 0.3), "latents_std": (1.0, 0.1)}
    model.load_state_dict(rule.weights(rule.shapes_of(model), fixture.seed, "ltx.", exceptions))
    video = fixture.draw("input.ltx.video", (1, 3, 9, 64, 96), std=0.4).clamp(-1, 1)
    fixture.compare("encode.mean_normalised", model.encode(video)[0], _LIMIT)
    fixture.compare("encode.logvar_uniform_channel", model.posterior(video)[1], _LIMIT)
    decoded = model.decode(fixture.draw("input.ltx.latents", (1, 8, 3, 2, 3)))
    fixture.compare("decode.frames", decoded, _LIMIT)
    for index, frame in enumerate(decoded.unbind(2)):
        fixture.compare(f"decode.frame{index}", frame, _LIMIT)


CHECKS = {"taehv": check_taehv, "ltx_vae": check_ltx_vae}

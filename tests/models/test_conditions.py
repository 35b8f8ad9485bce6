import pytest
import torch

from models.conditions import AudioEncoder, TextEncoder
from models.configs import AudioEncoderConfig, TextEncoderConfig


@pytest.fixture(scope="module")
def encoder() -> AudioEncoder:
    torch.manual_seed(0)
    return AudioEncoder(AudioEncoderConfig(width=24)).eval().requires_grad_(False)


@pytest.mark.parametrize("frames_of_step", [1, 4, 7, 20])
def test_chunked_tokens_match_whole(encoder, sound, frames_of_step):
    whole = encoder.encode(sound)
    state, parts = encoder.start(), []
    padded = torch.cat([sound, torch.zeros(640 * encoder.config.look_ahead_frames)])
    for part in padded.split(640 * frames_of_step):
        tokens, state = encoder.step(part, state)
        parts.append(tokens)
    assert (torch.cat(parts)[encoder.config.look_ahead_frames :] - whole).abs().max() <= 1e-5


def test_sound_after_the_look_ahead_cannot_change_a_token(encoder, sound):
    changed = sound.clone()
    boundary = (20 + 1 + encoder.config.look_ahead_frames) * 640
    changed[boundary:] = 0
    before, after = encoder.encode(sound), encoder.encode(changed)
    assert torch.allclose(before[:21], after[:21], atol=1e-6)
    assert not torch.allclose(before[21], after[21], atol=1e-4)


def test_sound_within_the_look_ahead_changes_the_token(encoder, sound):
    changed = sound.clone()
    changed[22 * 640 : 23 * 640] = 0
    assert not torch.allclose(encoder.encode(sound)[20], encoder.encode(changed)[20], atol=1e-4)


def test_samples_that_are_no_whole_frames_are_refused(encoder):
    with pytest.raises(ValueError, match="multiple of 640"):
        encoder.step(torch.zeros(641), encoder.start())


def test_prompts_of_any_length_give_the_same_number_of_tokens():
    encoder = TextEncoder(TextEncoderConfig(max_bytes=32, tokens=4, width=16)).eval()
    tokens = encoder(encoder.tokenize(["", "a happy presenter", "très " * 100]))
    assert tokens.shape == (3, 4, 16)
    assert not torch.allclose(tokens[0], tokens[1])

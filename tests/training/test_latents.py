"""The bank of takes and what is cut from it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from training.latents import TakeBank, TakeLatents
from training.train_refiner import crops


def take(name: str, presenter: str, latents: int, seed: int) -> TakeLatents:
    torch.manual_seed(seed)
    frames = 4 * latents
    tensors = {
        "lr": torch.randn(3, latents, 4, 4).half(),
        "hr": torch.randn(3, latents, 8, 8).half(),
        "reference_lr": torch.randn(3, 2, 4, 4).half(),
        "reference_hr": torch.randn(3, 2, 8, 8).half(),
        "reference_motion": torch.randn(2, 5),
        "reference_keypoints": torch.rand(2, 143, 3),
        "tokens": torch.randn(frames, 6).half(),
        "motion": torch.randn(frames, 5),
        "keypoints": torch.rand(frames, 143, 3),
    }
    torch.manual_seed(sum(presenter.encode()))
    reference = {"lr": torch.randn(3, 1, 4, 4).half(), "hr": torch.randn(3, 1, 8, 8).half()}
    return TakeLatents(name, presenter, f"as {name}", tensors, reference | {"keypoints": torch.rand(143, 3)})


@pytest.fixture
def takes() -> list[TakeLatents]:
    return [take("a", "tom", 7, 1), take("b", "maya", 9, 2), take("c", "tom", 6, 3)]


def test_windows_are_slices_of_their_takes(takes):
    bank, picks, first = TakeBank(takes), torch.tensor([2, 0, 1]), torch.tensor([0, 3, 5])
    latents = bank.windows(bank.latents["hr"], picks, first, 4).transpose(1, 2)
    motion = bank.windows(bank.motion, picks, first, 4)
    for row, (pick, start) in enumerate(zip(picks, first, strict=True)):
        tensors = takes[pick].tensors
        torch.testing.assert_close(latents[row], tensors["hr"][:, start : start + 4].float())
        torch.testing.assert_close(motion[row], tensors["motion"][4 * start : 4 * (start + 4)])


def test_sound_before_a_take_is_its_first_token_and_never_another_take(takes):
    bank = TakeBank(takes)
    audio = bank.audio_windows(torch.tensor([1, 2]), torch.tensor([0, 2]), 2, 8)
    first, third = takes[1].tensors["tokens"].float(), takes[2].tensors["tokens"].float()
    torch.testing.assert_close(audio[0, 0], torch.cat([first[:1].expand(4, -1), first[:4]]))
    torch.testing.assert_close(audio[0, 1], first[:8])
    torch.testing.assert_close(audio[1], torch.stack([third[4:12], third[8:16]]))


def test_references_are_the_presenters_own_or_another_frame_of_the_take(takes):
    bank = TakeBank(takes)
    found = bank.reference("lr", torch.tensor([0, 1, 2]), torch.tensor([-1, 1, -1]))
    torch.testing.assert_close(found[0], takes[0].reference["lr"][:, 0].float())
    torch.testing.assert_close(found[1], takes[1].tensors["reference_lr"][:, 1].float())
    torch.testing.assert_close(found[2], found[0])


def test_drawn_windows_stay_inside_and_reach_both_ends(takes):
    bank, rng = TakeBank(takes), np.random.default_rng(0)
    picks, there, first = bank.draw(rng, 400, 1, 3)
    last = torch.tensor(bank.counts)[picks] - 4
    assert first.min() == 0 and (first <= last).all() and (first == last).any()
    np.testing.assert_array_equal(picks.numpy(), there)


def test_a_take_with_too_little_sound_is_refused(takes):
    takes[1].tensors["tokens"] = takes[1].tensors["tokens"][:-1]
    with pytest.raises(ValueError, match=r"22 latents.*\[87, 88, 88\]"):
        TakeBank(takes)


def test_crops_of_a_batch_are_slices(takes):
    maps, corners = torch.randn(2, 3, 4, 8, 8), torch.tensor([[0, 2], [4, 1]])
    found = crops(maps, corners, 4)
    torch.testing.assert_close(found[0], maps[0, ..., 0:4, 2:6])
    torch.testing.assert_close(found[1], maps[1, ..., 4:8, 1:5])
    assert crops(maps, corners, 8) is maps

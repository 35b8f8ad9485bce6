"""The bank of takes and what is cut from it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from training.latents import Streams, TakeBank, TakeLatents, own_motion_latents
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
        "closure": torch.zeros(frames),
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


def test_streams_stay_inside_their_takes_and_reach_both_ends():
    counts, rng = np.array([7, 9, 6]), np.random.default_rng(0)
    streams = Streams(counts, 400, motion_latents=1, restart_share=0.0)
    streams.place(rng, 3)
    assert streams.next.min() == 1 and (streams.next + 3 <= counts[streams.takes]).all()
    assert (streams.next + 3 == counts[streams.takes]).any()


def test_streams_go_on_where_they_ended_until_their_take_is_over():
    counts, rng = np.array([7, 9, 6]), np.random.default_rng(1)
    streams = Streams(counts, 50, motion_latents=1, restart_share=0.0)
    streams.place(rng, 2)
    takes, ends = streams.takes.copy(), streams.next + 2
    streams.advance(2)
    streams.place(rng, 2)
    is_over = ends + 2 > counts[takes]
    np.testing.assert_array_equal(streams.is_fresh, is_over)
    np.testing.assert_array_equal(streams.takes[~is_over], takes[~is_over])
    np.testing.assert_array_equal(streams.next[~is_over], ends[~is_over])
    assert is_over.any() and not is_over.all()


def test_a_share_of_streams_is_put_elsewhere():
    streams = Streams(np.array([1000]), 2000, motion_latents=1, restart_share=0.25)
    rng = np.random.default_rng(2)
    streams.place(rng, 2)
    streams.advance(2)
    streams.place(rng, 2)
    assert 0.2 < streams.is_fresh.mean() < 0.3


def test_motion_latents_are_the_models_own_but_for_fresh_streams():
    made, truth = torch.randn(3, 2, 2, 4, 4), torch.randn(3, 2, 1, 4, 4)
    fresh = torch.tensor([False, True, False])
    found = own_motion_latents(made, truth, fresh)
    torch.testing.assert_close(found[[0, 2]], made[[0, 2], :, -1:])
    torch.testing.assert_close(found[1], truth[1])
    assert own_motion_latents(None, truth, fresh) is truth
    assert own_motion_latents(made, truth[:, :, :0], fresh).shape[2] == 0


def test_a_take_with_too_little_sound_is_refused(takes):
    takes[1].tensors["tokens"] = takes[1].tensors["tokens"][:-1]
    with pytest.raises(ValueError, match=r"\[88, 88, 87, 88, 88, 88\] frames"):
        TakeBank(takes)


def test_crops_of_a_batch_are_slices(takes):
    maps, corners = torch.randn(2, 3, 4, 8, 8), torch.tensor([[0, 2], [4, 1]])
    found = crops(maps, corners, 4)
    torch.testing.assert_close(found[0], maps[0, ..., 0:4, 2:6])
    torch.testing.assert_close(found[1], maps[1, ..., 4:8, 1:5])
    assert crops(maps, corners, 8) is maps

"""The animator: what it moves, what it leaves alone, and that a frame hears no more than it may."""

from __future__ import annotations

import pytest
import torch

from models.animator import Animator, moved_picture, with_planned_features
from models.configs import AnimatorConfig
from models.pose import BACKGROUND, EYES, HANDS, INNER_LIPS, OUTER_LIPS

CONFIG = AnimatorConfig(points_width=16, flow_cells=16, flow_width=16, audio_width=6, text_tokens=2, text_width=4)


@pytest.fixture
def animator() -> Animator:
    torch.manual_seed(0)
    model = Animator(CONFIG).eval()
    for layer in (model.points.output, model.field.output):
        torch.nn.init.normal_(layer.weight, std=0.05)
    return model


def rest(batch: int = 1) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.cat([0.35 + 0.3 * torch.rand(batch, 143, 2), torch.ones(batch, 143, 1)], dim=2)


def conditions(frames: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(2)
    return torch.randn(1, CONFIG.token_window - 1 + frames, 6), torch.randn(1, frames, 11), torch.randn(1, 2, 4)


def test_a_frame_hears_its_window_of_tokens_and_sees_its_own_plan(animator):
    tokens, motion, text = conditions(9)
    before = animator.points(tokens, motion, text, rest())
    tokens[:, CONFIG.token_window - 1 + 5] += 1  # the token of frame 5
    motion[:, 8] += 1
    change = (animator.points(tokens, motion, text, rest()) - before).abs().amax(dim=(0, 2, 3))
    assert (change[:5] == 0).all() and (change[5:] > 1e-6).all()
    tokens[:, 0] += 1  # only frame 0 reaches back so far
    again = animator.points(tokens, motion, text, rest())
    assert (again[:, 0] != before[:, 0]).any() and torch.equal(again[:, 1:5], before[:, 1:5])


def test_points_do_not_depend_on_how_frames_are_cut_into_chunks(animator):
    tokens, motion, text = conditions(8)
    whole = animator.points(tokens, motion, text, rest())
    context = CONFIG.token_window - 1
    parts = [animator.points(tokens[:, a : a + 4 + context], motion[:, a : a + 4], text, rest()) for a in (0, 4)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=0, atol=1e-6)


def test_the_room_stays_where_it_is(animator):
    keypoints = animator.points(*conditions(4), rest())
    assert torch.equal(keypoints[0, :, BACKGROUND], rest()[0, BACKGROUND].expand(4, -1, -1))


def test_keypoints_at_rest_leave_the_picture_as_it_is():
    picture, still = torch.rand(2, 3, 32, 48), rest(2)
    moved = Animator(CONFIG).move(picture, still, still[:, None].expand(-1, 3, -1, -1))
    torch.testing.assert_close(moved, picture[:, None].expand(-1, 3, -1, -1, -1), rtol=0, atol=1e-5)


def test_the_picture_follows_points_that_move():
    picture, still = torch.zeros(1, 3, 64, 64), rest()
    picture[:, :, 30:34, 30:34] = 1
    moved = still[:, None].clone()
    moved[..., 0] += 8 / 64  # all points to the right
    column = Animator(CONFIG).move(picture, still, moved)[0, 0, 0].sum(0)
    centre = (column * torch.arange(64)).sum() / column.sum()
    assert 37.5 < centre < 40.5  # from 31.5 by 8


def test_hands_have_no_part_in_the_flow(animator):
    moved = rest()[:, None].clone()
    moved[:, :, HANDS, :2] += 0.2
    torch.testing.assert_close(animator.field(rest(), moved), animator.field(rest(), rest()[:, None]))


def test_flow_is_in_parts_of_the_picture_and_points_back():
    picture = torch.rand(1, 3, 16, 32)
    flow = torch.zeros(1, 1, 2, 4, 4)
    flow[:, :, 0] = 2 / 32
    flow[:, :, 1] = 1 / 16
    moved = moved_picture(picture, flow)[0, 0]
    torch.testing.assert_close(moved[:, :-1, :-2], picture[0, :, 1:, 2:], rtol=0, atol=1e-5)


def test_lips_and_lids_keep_their_planned_shape_where_the_face_is_seen():
    torch.manual_seed(3)
    planned = rest(4)
    seen = planned.clone()
    seen[:, : BACKGROUND.start, 0] += 0.04  # the face is seen further to the right
    for features in (EYES, OUTER_LIPS, INNER_LIPS):
        inside = range(features.start, features.stop)
        kept = [point for point in inside if point not in (36, 39, 42, 45)]  # corners of the eyes say where the face is
        seen[:, kept, 1] += 0.01 * torch.randn(4, len(kept))
    expected = planned.clone()
    expected[:, : BACKGROUND.start, 0] += 0.04
    torch.testing.assert_close(with_planned_features(seen, planned), expected, rtol=0, atol=1e-6)

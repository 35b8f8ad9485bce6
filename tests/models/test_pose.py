import torch

from models.configs import PoseConfig
from models.pose import (
    BACKGROUND,
    INNER_LIPS,
    KEYPOINTS,
    PERSON_POINTS,
    POSE_TOKEN_DIM,
    KeypointNet,
    background_points,
    pose_tokens,
)


def a_point(index: int, x: float, y: float) -> torch.Tensor:
    keypoints = torch.zeros(KEYPOINTS, 3)
    keypoints[index] = torch.tensor([x, y, 1.0])
    return keypoints


def maps_of(tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Tokens [B, T, h·w, 512] → the maps [B, 4T, 8, 4h, 4w] that they are patches of."""
    patches = tokens.unflatten(-1, (4, 8, 4, 4)).unflatten(2, (height, width))  # B T y x frame channel row column
    return patches.permute(0, 1, 4, 5, 2, 6, 3, 7).flatten(6, 7).flatten(4, 5).flatten(1, 2)


def test_a_point_lights_its_own_channel_at_its_own_place_in_its_own_frame():
    frames = torch.zeros(1, 8, KEYPOINTS, 3)
    frames[0, 5] = a_point(INNER_LIPS.start, 0.25, 0.75)
    tokens = pose_tokens(frames, 16, 12)
    assert tokens.shape == (1, 2, 192, POSE_TOKEN_DIM)
    maps = maps_of(tokens, 16, 12)[0]
    assert [tuple(place) for place in (maps.amax((-1, -2)) > 0.1).nonzero().tolist()] == [(5, 4)]
    row, column = divmod(int(maps[5, 4].argmax()), 48)
    assert abs(row - 48) <= 1 and abs(column - 12) <= 1


def test_invisible_points_leave_the_maps_empty():
    keypoints = torch.rand(1, 4, KEYPOINTS, 3)
    keypoints[..., 2] = 0
    assert not pose_tokens(keypoints, 8, 8).any()


def test_a_sub_cell_shift_of_the_lips_changes_the_tokens():
    frames = torch.stack([a_point(INNER_LIPS.start, 0.5, 0.5 + shift) for shift in (0, 0.001, 0, 0)])
    tokens = pose_tokens(frames[None], 16, 16)[0, 0].view(256, 4, -1)
    assert (tokens[:, 0] - tokens[:, 1]).abs().max() > 0.005
    assert torch.equal(tokens[:, 0], tokens[:, 2])


def test_estimator_reads_every_frame_by_itself():
    torch.manual_seed(0)
    net = KeypointNet(PoseConfig(hidden=8, coarse_size=16, mouth_crop=(12, 16))).eval()
    frames = torch.rand(3, 3, 64, 64)
    together, alone = net(frames), net(frames[1:2])
    assert together.shape == (3, KEYPOINTS, 3)
    assert torch.allclose(together[1], alone[0], atol=1e-5)
    assert not together[:, BACKGROUND].any()


def test_background_points_keep_away_from_the_person():
    reference = torch.rand(3, 64, 64)
    person = torch.zeros(PERSON_POINTS, 3)
    person[:, 0], person[:, 1], person[:, 2] = torch.linspace(0.35, 0.65, PERSON_POINTS), 0.6, 1
    points = background_points(reference, person)
    visible = points[points[:, 2] > 0]
    assert 5 <= len(visible) <= 20
    inside = (visible[:, 0] > 0.3) & (visible[:, 0] < 0.7) & (visible[:, 1] > 0.5)
    assert not inside.any()


def test_a_flat_room_has_no_background_points():
    person = torch.full((PERSON_POINTS, 3), 0.5)
    person[:, 2] = 1
    assert not background_points(torch.full((3, 64, 64), 0.5), person).any()

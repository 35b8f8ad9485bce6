import torch

from models.colour import lab_statistics, lab_to_rgb, match_colours, rgb_to_lab, to_lab


def frames(count, seed=0):
    return torch.rand(1, 3, count, 12, 16, generator=torch.Generator().manual_seed(seed)) * 1.2 - 0.8


def test_lab_and_back_is_the_same_colour():
    rgb = torch.rand(1000, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(lab_to_rgb(rgb_to_lab(rgb)), rgb, atol=2e-4, rtol=0)


def test_known_colours():
    lab = rgb_to_lab(torch.tensor([[1.0, 1, 1], [0, 0, 0], [1, 0, 0]]))
    torch.testing.assert_close(lab, torch.tensor([[100.0, 0, 0], [0, 0, 0], [53.24, 80.09, 67.20]]), atol=0.02, rtol=0)


def test_every_frame_gets_the_reference_statistics():
    picture, tinted = frames(1, seed=1) * 0.5, frames(3) * 0.3 + torch.tensor([0.1, 0, -0.1]).view(3, 1, 1, 1)
    wanted = lab_statistics(picture)
    lab = to_lab(match_colours(tinted, wanted))
    torch.testing.assert_close(lab.mean(dim=(2, 3)), wanted.mean[:, :, 0, 0].expand(1, 3, 3), atol=0.5, rtol=0)


def test_strength_zero_changes_nothing():
    source = frames(2)
    torch.testing.assert_close(match_colours(source, lab_statistics(frames(1, 3)), 0.0), source)

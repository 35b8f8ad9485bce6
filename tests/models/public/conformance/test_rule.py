import torch

from models.public.conformance import rule


def test_words_are_those_of_the_rule():
    assert [int(word) for word in rule.words("input.noisy", 1, 3)] == [
        0x5D10118E62F0486B,
        0xFA800B45B8704FC5,
        0xBC9F4583F6521879,
    ]


def test_words_from_the_middle_are_the_same():
    whole = rule.words("a key", 3, 100)
    assert (rule.words("a key", 3, 40, first=60) == whole[60:]).all()


def test_weights_are_those_of_the_rule():
    name = "blocks.0.self_attn.q.weight"
    weight = rule.weights({name: (1536, 1536)}, seed=1)[name]
    torch.testing.assert_close(weight[0, :3], torch.tensor([0.02709822543, -0.00277901138, -0.00956300832]))


def test_normals_have_mean_and_deviation():
    drawn = rule.normals("key", (100, 100), seed=1, mean=2.0, std=0.5)
    assert abs(drawn.mean() - 2) < 0.02 and abs(drawn.std() - 0.5) < 0.01


def test_statistics_follow_the_last_part_of_the_name():
    assert rule.weight_statistics("head.modulation", (1, 2, 64)) == (0.0, 0.5)
    assert rule.weight_statistics("norm.bias", (64,)) == (0.0, 0.02)
    assert rule.weight_statistics("conv.parametrizations.weight.original0", (1, 1, 16)) == (1.0, 0.1)
    assert rule.weight_statistics("norm.weight", (64,)) == (1.0, 0.1)
    assert rule.weight_statistics("conv.weight", (8, 4, 4)) == (0.0, 0.25)


def test_positions_do_not_depend_on_the_seed_and_lie_within():
    places = rule.positions("positions.item.tensor", 1000, 17)
    assert places.min() >= 0 and places.max() < 17 and len(places.unique()) == 17

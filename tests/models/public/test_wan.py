"""Our Wan transformers against diffusers' (the oracle), tiny and random; published sizes on the meta device."""

from dataclasses import replace

import pytest
import torch
from diffusers import WanTransformer3DModel

from models.errors import CheckpointError
from models.public.names import WAN_FROM_DIFFUSERS, renamed
from models.public.wan import PUBLISHED, Wan, WanConfig, to_own_layout

TINY = {
    "num_attention_heads": 3,
    "attention_head_dim": 16,
    "in_channels": 6,
    "out_channels": 4,
    "text_dim": 20,
    "freq_dim": 32,
    "ffn_dim": 64,
    "num_layers": 2,
}


def make(**changes):
    """diffusers' model with random weights everywhere, and ours with the same."""
    torch.manual_seed(0)
    oracle = WanTransformer3DModel(**TINY | changes).eval().requires_grad_(False)
    for name, parameter in oracle.named_parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, float("norm" in name and name.endswith("weight")), 0.2)
    config = WanConfig.from_published(oracle.config)
    ours = Wan(config).eval().requires_grad_(False)
    published = {renamed(name, WAN_FROM_DIFFUSERS): tensor for name, tensor in oracle.state_dict().items()}
    ours.load_state_dict(dict(to_own_layout(published.items(), config.num_heads)))
    return oracle, ours


@pytest.fixture(scope="module")
def models():
    return make()


@pytest.fixture
def latents():
    return torch.randn(2, 6, 3, 4, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def text():
    return torch.randn(2, 7, 20, generator=torch.Generator().manual_seed(2))


def assert_equal(actual, expected):
    assert expected.std() > 0.1
    assert (actual - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_velocity_equals_diffusers(models, latents, text):
    oracle, ours = models
    t = torch.tensor([900.0, 37.0])
    assert_equal(ours(latents, t, ours.look(text)), oracle(latents, t, text).sample)


def test_time_steps_of_tokens_equal_diffusers(models, latents, text):
    oracle, ours = models
    t = torch.randint(0, 1000, (2, 3, 6), generator=torch.Generator().manual_seed(3)).float()
    assert_equal(ours(latents, t, ours.look(text)), oracle(latents, t.flatten(1), text).sample)


def test_time_steps_of_frames_are_those_of_their_tokens(models, latents, text):
    _, ours = models
    t = torch.tensor([[0.0, 500, 500], [0, 0, 250]])
    contexts = ours.look(text)
    assert_equal(ours(latents, t, contexts), ours(latents, t[..., None].expand(-1, -1, 6), contexts))


def test_image_features_equal_diffusers(latents):
    oracle, ours = make(image_dim=24, added_kv_proj_dim=48)
    generator = torch.Generator().manual_seed(4)
    # diffusers holds the last 512 tokens for the text
    image, text = torch.randn(2, 9, 24, generator=generator), torch.randn(2, 512, 20, generator=generator)
    t = torch.tensor([750.0, 750.0])
    assert_equal(ours(latents, t, ours.look(text, image)), oracle(latents, t, text, image).sample)


def test_image_features_are_wanted_where_there_are_weights_for_them(models, text):
    with pytest.raises(ValueError, match="takes no CLIP features"):
        models[1].look(text, text)
    wants = Wan(replace(models[1].config, image_dim=24))
    with pytest.raises(ValueError, match="wants CLIP features"):
        wants.look(text)


def test_equal_words_answer_as_one(models, latents):
    ours, t = models[1], torch.tensor([500.0, 500.0])
    many, one = (ours.look(torch.zeros(2, length, 20)) for length in (512, 1))
    assert_equal(ours(latents, t, one), ours(latents, t, many))


def test_rows_of_a_batch_are_independent(models, latents, text):
    ours, t = models[1], torch.tensor([500.0, 100.0])
    both = ours(latents, t, ours.look(text))
    assert (ours(latents[1:], t[1:], ours.look(text[1:])) - both[1:]).abs().max() <= 1e-5


# bytes of the published files, in fp32, by four; I2V: counted here
PARAMETERS = {
    "Wan2.1-T2V-1.3B": (825, 1_418_996_800),
    "Wan2.1-T2V-14B": (1095, 14_288_491_584),
    "Wan2.1-I2V-14B": (1303, 16_394_878_784),
    "Wan2.2-TI2V-5B": (825, 4_999_787_712),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_names_shapes_and_parameters(name):
    config = PUBLISHED[name]
    with torch.device("meta"):
        ours = Wan(config).state_dict()
        oracle = WanTransformer3DModel(
            num_attention_heads=config.num_heads,
            attention_head_dim=config.head_dim,
            in_channels=config.in_dim,
            out_channels=config.out_dim,
            ffn_dim=config.ffn_dim,
            num_layers=config.num_layers,
            image_dim=config.image_dim,
            added_kv_proj_dim=config.image_dim and config.dim,
        ).state_dict()
    shapes = {renamed(key, WAN_FROM_DIFFUSERS): tensor.shape for key, tensor in oracle.items()}
    assert {key: tensor.shape for key, tensor in ours.items()} == shapes
    assert (len(ours), sum(tensor.numel() for tensor in ours.values())) == PARAMETERS[name]


def test_configs_of_wan_and_of_diffusers_say_the_same():
    wan = {"_class_name": "WanModel", "dim": 5120, "ffn_dim": 13824, "freq_dim": 256, "in_dim": 36, "model_type": "i2v"}
    wan |= {"num_heads": 40, "num_layers": 40, "out_dim": 16, "text_len": 512, "eps": 1e-6}
    assert WanConfig.from_published(wan) == PUBLISHED["Wan2.1-I2V-14B"]
    with torch.device("meta"):
        config = WanTransformer3DModel(image_dim=1280, added_kv_proj_dim=5120, in_channels=36, num_layers=40).config
    assert WanConfig.from_published(config) == PUBLISHED["Wan2.1-I2V-14B"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"qk_norm": None}, "qk_norm None"),
        ({"ffn_dim": None}, "whole numbers above 0"),
        ({"num_attention_heads": "three"}, "wrong kind"),
        ({"attention_head_dim": 15}, "even width"),
    ],
)
def test_other_configs_are_refused(changes, message):
    full = TINY | {"patch_size": [1, 2, 2], "eps": 1e-6} | changes
    with pytest.raises(CheckpointError, match=message):
        WanConfig.from_published(full)


def test_missing_values_are_named():
    with pytest.raises(CheckpointError, match="config.json lacks dim"):
        WanConfig.from_published({"num_heads": 12})

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from models.configs import LRA2VConfig, RefinerConfig, TransformerConfig
from models.fp8 import FP8, FP8Linear, fp8_product, plain_product, quantise_rows, use_fp8
from models.layers import BlockStack, Conditions
from models.lr_a2v import LRA2V
from models.presets import paper_720p
from models.refiner import PGRefiner
from tests.models.conftest import fill_zero_weights

SHAPE = TransformerConfig(width=512, layers=2, heads=8)


def make_layer(inputs: int = 64, outputs: int = 48, bias: bool = True, seed: int = 0):
    """The layer, and the `nn.Linear` it was made from, with a unit normal weight."""
    torch.manual_seed(seed)
    linear = nn.Linear(inputs, outputs, bias).requires_grad_(False)
    nn.init.normal_(linear.weight)
    return FP8Linear(linear), linear


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative, in the L2 norm."""
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def test_values_that_fp8_holds_are_exact():
    torch.manual_seed(0)
    x, weight = torch.randint(-16, 17, (5, 64)).float(), torch.randint(-16, 17, (48, 64)).float()
    x[:, 0], weight[:, 1] = 448, -448  # the largest of each row: scales are powers of two
    x *= torch.tensor([2.0**-40, 0.5, 1, 8, 2.0**40])[:, None]
    linear = nn.Linear(64, 48, bias=False)
    linear.weight.data = weight
    with torch.no_grad():
        assert torch.equal(FP8Linear(linear)(x), linear(x))


def test_rows_of_zeros_give_the_bias():
    layer, linear = make_layer()
    x = torch.randn(3, 64)
    x[1] = 0
    assert torch.equal(layer(x)[1], linear.bias)
    linear.weight[7] = 0
    assert torch.equal(FP8Linear(linear)(x)[:, 7], linear.bias[7].expand(3))


def test_every_row_and_channel_has_a_scale_of_its_own():
    layer, linear = make_layer(bias=False)
    x, channels = torch.randn(4, 64), 2.0 ** torch.randint(-20, 20, (48, 1))
    rows = torch.tensor([2.0**-80, 2.0**-10, 1, 2.0**80])[:, None]
    linear.weight *= channels
    assert torch.equal(FP8Linear(linear)(x * rows), layer(x) * rows * channels.t())


def test_nan_stays_in_its_row():
    layer, _ = make_layer()
    x = torch.randn(3, 64)
    before = layer(x)
    x[1, 5] = torch.nan
    after = layer(x)
    assert after[1].isnan().all() and torch.equal(after[[0, 2]], before[[0, 2]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(64,), (0, 64), (5, 64), (2, 5, 64), (2, 3, 5, 64)])
def test_shape_and_dtype_are_kept(shape, dtype):
    layer, linear = make_layer()
    x = torch.randn(shape).to(dtype)
    with torch.inference_mode():
        y = layer(x)
    assert y.shape == (*shape[:-1], 48) and y.dtype == dtype
    assert torch.allclose(y, layer(x.float()).to(dtype))  # fp32 holds x: the rounding to e4m3 is the same
    assert y.numel() == 0 or error(y, linear(x.float())) < 0.06


def test_strides_do_not_matter():
    layer, _ = make_layer()
    x = torch.randn(2, 64, 5, 3)
    assert torch.equal(layer(x.permute(0, 3, 2, 1)), layer(x.permute(0, 3, 2, 1).contiguous()))
    assert torch.equal(layer(x[0, :, :, 0].t()), layer(x[0, :, :, 0].t().contiguous()))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("outliers, least, most", [(0, 0.036, 0.038), (4, 0.029, 0.033)])
def test_error_is_that_of_two_roundings(outliers, least, most, seed):
    layer, linear = make_layer(512, 512, bias=False, seed=seed)
    x = torch.randn(256, 512)
    x[:, :outliers] *= 50
    values, scales = quantise_rows(x)
    ordinary = (values.float() * scales[:, None])[:, outliers:]
    assert error(ordinary, x[:, outliers:]) < 0.027  # outliers take no precision from the others
    assert least < error(layer(x), linear.double()(x.double())) < most


def test_rounds_as_a_search_would():
    grid = torch.arange(256, dtype=torch.uint8).view(FP8).double()
    grid = grid[grid.isfinite()]
    x = torch.randn(8, 64)
    values, scales = quantise_rows(x)
    nearest = (grid - (x.double() / scales.double()[:, None])[..., None]).abs().amin(-1)
    assert torch.allclose((values.double() - x.double() / scales.double()[:, None]).abs(), nearest, atol=1e-4)
    assert torch.equal(values.float().abs().amax(1), torch.full((8,), 448.0))


@pytest.mark.parametrize("bias", [False, True])
def test_fp8_product_is_the_plain_one_rounded(bias):
    layer, _ = make_layer(bias=bias)
    arguments = *quantise_rows(torch.randn(33, 64)), layer.weight, layer.scales, layer.bias
    found, expected = fp8_product(*arguments), plain_product(*arguments)
    assert found.dtype == torch.bfloat16 and expected.dtype == torch.float32
    assert torch.allclose(found.float(), expected, rtol=2**-7, atol=0.02)


def test_autocast_rounds_the_result_alone():
    layer, linear = make_layer()
    x = torch.randn(5, 64)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = layer(x)
        assert found.dtype == linear(x).dtype == torch.bfloat16
    assert torch.equal(found, layer(x).bfloat16())


def test_state_comes_back_from_a_file(tmp_path):
    layer, _ = make_layer(seed=0)
    other, _ = make_layer(seed=1)
    save_file(layer.state_dict(), tmp_path / "layer.safetensors")
    other.load_state_dict(load_file(tmp_path / "layer.safetensors"))
    x = torch.randn(5, 64)
    assert other.weight.dtype == FP8 and torch.equal(other(x), layer(x))


def test_changes_of_dtype_leave_weight_and_scales():
    layer, _ = make_layer()
    x = torch.randn(5, 64)
    changed = copy.deepcopy(layer).to(torch.bfloat16)
    assert (changed.weight.dtype, changed.scales.dtype, changed.bias.dtype) == (FP8, torch.float32, torch.bfloat16)
    assert torch.allclose(changed(x), layer(x), atol=2e-3)
    assert layer.to("meta").to(torch.bfloat16).weight.dtype == FP8
    assert layer.to_empty(device="cpu").weight.shape == (48, 64)


def test_gradients_are_refused():
    layer, _ = make_layer()
    x = torch.randn(5, 64, requires_grad=True)
    with pytest.raises(RuntimeError, match="inference only"):
        layer(x)
    with torch.no_grad():
        assert not layer(x).requires_grad
    assert not list(layer.parameters())


@pytest.mark.parametrize("features", [(64, 40), (40, 64)])
def test_odd_features_are_refused(features):
    with pytest.raises(ValueError, match="multiples of 16, got"):
        FP8Linear(nn.Linear(*features))


def test_shapes_on_the_meta_device():
    layer, _ = make_layer()
    y = layer.to("meta")(torch.empty(2, 3, 5, 64, dtype=torch.bfloat16, device="meta"))
    assert y.shape == (2, 3, 5, 48) and y.dtype == torch.bfloat16 and y.device.type == "meta"


def test_the_paper_sizes_are_in_fp8():
    config = paper_720p()
    with torch.device("meta"):
        lr_a2v, refiner = LRA2V(config.lr_a2v), PGRefiner(config.refiner)
    # A block: self-attention's two, cross-attention's four (LR-A2V alone), the MLP's two.
    assert use_fp8(lr_a2v) == 30 * 8 and use_fp8(refiner) == 28 * 4
    assert not any(isinstance(layer, nn.Linear) for layer in refiner.blocks.modules())


def fp8_names(model: nn.Module) -> set[str]:
    return {name for name, layer in model.named_modules() if isinstance(layer, FP8Linear)}


def make_lr_a2v():
    """A model of width 512, and arguments: a window of 4 latents 4 x 4 tokens each."""
    torch.manual_seed(0)
    model = LRA2V(LRA2VConfig(transformer=SHAPE, features=8)).eval().requires_grad_(False)
    arguments = {
        "window": torch.randn(1, 16, 4, 8, 8),
        "timesteps": torch.tensor([[1.0, 1, 0.3, 0.3]]),
        "new": 2,
        "text": torch.randn(1, 4, 64),
        "audio": torch.randn(1, 1, 4, 8, 160),
        "base": torch.zeros(1, 16, 2, 8, 8),  # so that the output is what the blocks make of it
    }
    return model, arguments


def make_refiner():
    torch.manual_seed(0)
    model = PGRefiner(RefinerConfig(transformer=SHAPE, features=8)).eval().requires_grad_(False)
    arguments = {
        "window": torch.randn(1, 16, 4, 8, 8),
        "timesteps": torch.tensor([[1.0, 1, 0.3, 0.3]]),
        "new": 2,
        "degraded": torch.randn(1, 16, 4, 8, 8),
        "pose_tokens": torch.randn(1, 4, 16, 512),
        "base": torch.zeros(1, 16, 2, 8, 8),
    }
    return model, arguments


LARGE = {"attention.qkv", "attention.out", "mlp.0", "mlp.2"}


@pytest.mark.parametrize("make, large", [(make_lr_a2v, LARGE | {"cross.q", "cross.out"}), (make_refiner, LARGE)])
def test_large_layers_of_the_blocks_are_replaced_and_the_model_stays_close(make, large):
    model, arguments = make()
    fill_zero_weights(model)
    with torch.inference_mode():
        expected = model(**arguments)
        assert use_fp8(model) == 2 * len(large)
        assert fp8_names(model) == {f"blocks.{index}.{name}" for index in range(2) for name in large}
        assert 0.03 < error(model(**arguments), expected) < 0.08
    assert use_fp8(model) == 0


def test_least_features_sets_what_is_large():
    assert use_fp8(make_lr_a2v()[0], least_features=64) == 2 * 8
    assert use_fp8(make_lr_a2v()[0], least_features=513) == 0


def test_error_of_a_stack_of_blocks():
    torch.manual_seed(0)
    model = nn.Module()
    model.blocks = BlockStack(SHAPE, text_width=64, audio_width=160).requires_grad_(False)
    fill_zero_weights(model)
    conditions = Conditions(torch.randn(1, 4, 64), torch.randn(1, 1, 4, 8, 160))
    x, modulation = torch.randn(1, 4, 16, 512), 0.3 * torch.randn(1, 4, 1, 6, 512)

    def residual() -> torch.Tensor:
        return model.blocks(x, modulation, (4, 4, 4), 2, conditions)[0] - x

    with torch.inference_mode():
        expected = residual()
        assert use_fp8(model) == 12
        assert 0.03 < error(residual(), expected) < 0.07


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 9), reason="needs a CUDA device with fp8"
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gpu_agrees_with_the_cpu_and_can_be_captured(dtype):
    layer = make_layer(1792, 5376)[0].to("cuda")
    x = torch.randn(1, 3, 333, 1792, device="cuda").to(dtype)
    with torch.inference_mode():
        found = layer(x)  # warms up for the capture as well
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = layer(x)
        graph.replay()
        assert found.dtype == dtype and error(captured, found) < 1e-3
        # Fast accumulation keeps some 14 bits of a sum.
        assert error(found.cpu(), layer.cpu()(x.cpu())) < 1e-2

"""Which implementation runs."""

import pytest
import torch

from kernels import dispatch
from kernels.dispatch import select_backend


@pytest.mark.parametrize(("variable", "chosen"), [("", "triton"), ("torch", "torch")])
def test_the_environment_rules_triton_out_where_the_caller_names_nothing(monkeypatch, variable, chosen):
    monkeypatch.setattr(dispatch, "_runs_natively", lambda tensor: True)
    monkeypatch.setenv("KERNELS_BACKEND", variable)
    assert select_backend(None, torch.zeros(1)) == chosen
    assert select_backend("reference", torch.zeros(1)) == "reference"


def test_tensors_that_need_a_gradient_run_in_pytorch(monkeypatch):
    monkeypatch.setattr(dispatch, "_runs_natively", lambda tensor: True)
    monkeypatch.delenv("KERNELS_BACKEND", raising=False)
    assert select_backend(None, torch.zeros(1), torch.zeros(1, requires_grad=True)) == "torch"
    with torch.no_grad():
        assert select_backend(None, torch.zeros(1), torch.zeros(1, requires_grad=True)) == "triton"


@pytest.mark.parametrize(
    ("capability", "variable", "expected"), [((9, 0), "1", True), ((9, 0), "0", False), ((8, 0), "1", False)]
)
def test_hopper_path_is_for_hopper_unless_ruled_out(monkeypatch, capability, variable, expected):
    monkeypatch.setattr(dispatch, "compute_capability", lambda device: capability)
    monkeypatch.setenv("KERNELS_HOPPER", variable)
    assert dispatch.has_hopper_path(torch.device("cuda")) is expected
    assert not dispatch.has_hopper_path(torch.device("cpu"))

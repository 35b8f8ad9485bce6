"""Which implementation runs."""

import pytest
import torch

from kernels import dispatch
from kernels.dispatch import select_backend


@pytest.mark.parametrize(("variable", "chosen"), [("", "triton"), ("torch", "torch")])
def test_the_environment_rules_triton_out_where_the_caller_names_nothing(monkeypatch, variable, chosen):
    monkeypatch.setattr(dispatch, "_runs_natively", lambda device: True)
    monkeypatch.setenv("KERNELS_BACKEND", variable)
    assert select_backend(None, torch.zeros(1)) == chosen
    assert select_backend("reference", torch.zeros(1)) == "reference"

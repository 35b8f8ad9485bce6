"""Kernels run natively where there is a CUDA device, else in Triton's interpreter on the CPU."""

import os
import sys

import pytest
import torch

# The interpreter has to be chosen before triton is imported for the first time.
if not torch.cuda.is_available() and "triton" not in sys.modules:
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(scope="session")
def device() -> torch.device:
    """Where the Triton kernels can run here; skips where they cannot run at all."""
    language = pytest.importorskip("triton.language")
    if torch.cuda.is_available():
        return torch.device("cuda")
    from triton.runtime.interpreter import InterpretedFunction

    if not isinstance(language.philox, InterpretedFunction):
        pytest.skip("triton was imported before TRITON_INTERPRET=1 was set: run tests/kernels alone")
    return torch.device("cpu")

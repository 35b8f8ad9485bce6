"""Where the kernels of these tests run; `tests/conftest.py` chooses Triton's interpreter."""

import pytest
import torch


@pytest.fixture(scope="session")
def device() -> torch.device:
    """Where the Triton kernels can run here; skips where they cannot run at all."""
    language = pytest.importorskip("triton.language")
    if torch.cuda.is_available():
        return torch.device("cuda")
    from triton.runtime.interpreter import InterpretedFunction

    if not isinstance(language.philox, InterpretedFunction):
        pytest.skip("triton was imported before TRITON_INTERPRET=1 was set")
    return torch.device("cpu")

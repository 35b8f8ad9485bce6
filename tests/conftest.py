"""Kernels run natively where there is a CUDA device, else in Triton's interpreter on the CPU.

The interpreter has to be chosen before triton is imported for the first time, by whichever test that may be.
"""

import os

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

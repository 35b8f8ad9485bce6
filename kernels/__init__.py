"""Accelerated operations: each a plain PyTorch definition, a Triton kernel and the choice between them.

An op is a package with `reference.py` (the definition, slow and readable), `triton_kernel.py` (imported only
when it is going to run) and `__init__.py` (the checked public function). Everything imports and gives the
right answer with no GPU and with no Triton installed.

Letters used in every docstring of this package:
    B batch rows, N heads, Lq query tokens, Lk key tokens, d channels of one head, G groups of queries,
    C latent channels, T latent frames, h and w height and width of a latent frame.

Every public function takes `backend`:
    None         Triton for CUDA tensors (Ampere and newer) that need no gradient, else the fastest PyTorch
    "triton"     the kernel; on the CPU only under TRITON_INTERPRET=1
    "torch"      the fastest plain PyTorch; differentiable
    "reference"  the definition; differentiable
"""

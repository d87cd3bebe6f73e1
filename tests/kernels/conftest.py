"""Without a GPU the Triton kernels run in Triton's interpreter, which must be chosen before they are imported."""

import os
from importlib.util import find_spec

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
if find_spec("triton") is None:  # it has wheels for Linux only
    collect_ignore = ["test_triton.py", "test_gpu.py"]

"""What native code calls the dtypes that it takes."""

from __future__ import annotations

import torch

DTYPE_NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}
"""Of inputs and outputs."""
PRODUCT_DTYPE_NAMES = {dtype: DTYPE_NAMES[dtype] for dtype in (torch.float32, torch.bfloat16)}
"""Of matrix products."""

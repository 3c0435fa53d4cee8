"""torch's functions of single numbers on a CPU, each called once before many threads do."""

import torch

_FUNCTIONS = (
    torch.acos,
    torch.asin,
    torch.atan,
    torch.cos,
    torch.cosh,
    torch.erf,
    torch.erfc,
    torch.erfinv,
    torch.exp,
    torch.expm1,
    torch.lgamma,
    torch.log,
    torch.log10,
    torch.log1p,
    torch.log2,
    torch.sin,
    torch.sinh,
    torch.sqrt,
    torch.tan,
    torch.tanh,
)


def settle_kernels() -> None:
    """Have MKL choose the kernel of each function.

    It does so in the first call, and if that is made by several threads at once, one of them may
    run another kernel, whose numbers are off by 5e-5 (github.com/pytorch/pytorch/issues/188792):
    the first batch of one fit in ten would be another than that of the same fit. Takes 0.1 ms.
    """
    for dtype in (torch.float32, torch.float64):
        number = torch.full((1,), 0.5, dtype=dtype)
        for function in _FUNCTIONS:
            function(number)

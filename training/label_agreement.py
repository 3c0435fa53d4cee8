"""Whether conditional samples are what was asked for, as a classifier reads them."""

from collections.abc import Callable

import torch
from torch import Tensor

_ROWS = 1000


@torch.no_grad()
def label_agreement(
    sample: Callable[[Tensor], Tensor],
    classify: Callable[[Tensor], Tensor],
    label_count: int,
    per_label: int = 1000,
) -> Tensor:
    """The share [label_count] float64 of samples that are read as their label, for each label.

    `sample` maps labels [N] int64 to observations [N, C, H, W] and owns its randomness;
    `classify` maps these to scores [N, label_count]. Its own errors on real items bound the
    answer: state its accuracy beside it.
    """
    labels = torch.arange(label_count).repeat_interleave(per_label)
    read = [
        classify(sample(chunk)).argmax(1).cpu() == chunk for chunk in torch.split(labels, _ROWS)
    ]
    return torch.cat(read).double().view(label_count, per_label).mean(1)

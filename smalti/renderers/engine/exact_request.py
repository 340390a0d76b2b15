"""What the general compositor is told of a render, on the CPU and on CUDA alike."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from smalti.renderers.drawables import Drawable, Inputs
from smalti.renderers.engine.library import pointer
from smalti.renderers.engine.request import Request, Tensors


def view_options(request: Request) -> tuple[int, int, int, int, int, int]:
    """The fields of the C structure ViewOptions: channels without depth, features, where the normal begins, and the
    switches centre, smooth, absolute.
    """
    s = request.settings
    channels = request.channels - int(s.depth)
    normals = 3 + request.feature_count if s.normals else 0
    # The additive rule marches along the ray, whatever the order.
    centre = s.order == "centre" and not request.additive
    return channels, request.feature_count, normals, int(centre), int(s.smooth_cutoff), int(s.absolute_gradient)


def kind_input(structures: Any, drawable: Drawable, inputs: Inputs, own: Tensors) -> tuple[Any, list[Tensor]]:
    """The C structure KindInput of `drawable`, and the index tensors that must outlive it with `own`."""
    structure = structures.KindInput(count=len(drawable))
    indices: list[Tensor] = []
    for k, tensor in enumerate(own):
        structure.tensors[k] = pointer(tensor)
        structure.sizes[k] = 0 if tensor is None else tensor.numel()
    for k, tensor in enumerate(inputs.indices):
        if tensor is not None:
            indices.append(tensor.to(torch.int32).contiguous())
            structure.indices[k] = pointer(indices[-1])
    for k, number in enumerate(inputs.numbers):
        structure.numbers[k] = number
    for k, number in enumerate(inputs.integers):
        structure.integers[k] = int(number)
    return structure, indices

"""Thumbnails for the viewer."""

import torch


def resize(image: torch.Tensor, size: int, antialias: bool | None = None) -> torch.Tensor:
    """Channels first; the shorter side becomes `size`."""
    height, width = image.shape[-2:]
    factor = size / min(height, width)
    shape = (max(round(height * factor), 1), max(round(width * factor), 1))
    found = torch.nn.functional.interpolate(image[None].float(), shape, mode="bilinear", antialias=True)[0]
    return found.round().to(image.dtype)

"""Pictures to files."""

from pathlib import Path

import torch


def save_image(image: torch.Tensor, path: Path) -> None:
    """Channels first, values 0..1."""
    from PIL import Image

    pixels = (image.clamp(0, 1) * 255.0).round().to(torch.uint8).permute(1, 2, 0)
    Image.fromarray(pixels.numpy()).save(path)

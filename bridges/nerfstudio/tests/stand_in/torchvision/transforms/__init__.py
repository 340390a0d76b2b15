"""The module that nerfstudio's viewer looks for."""

from torchvision.transforms import functional

__all__ = ["functional"]

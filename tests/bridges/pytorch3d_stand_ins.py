"""Small classes with the documented attributes and methods of PyTorch3D 0.7's, for machines without it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class PerspectiveCameras:
    """As PyTorch3D's: R [n, 3, 3] and T [n, 3] for row vectors, NDC unless `in_ndc` is False."""

    def __init__(
        self,
        focal_length: Any = 1.0,
        principal_point: Any = ((0.0, 0.0),),
        R: Tensor | None = None,
        T: Tensor | None = None,
        K: Tensor | None = None,
        device: Any = "cpu",
        in_ndc: bool = True,
        image_size: Any = None,
    ) -> None:
        self.R = torch.eye(3)[None] if R is None else R
        self.T = torch.zeros(1, 3) if T is None else T
        self.focal_length, self.principal_point = torch.as_tensor(focal_length), torch.as_tensor(principal_point)
        self.K, self._in_ndc = K, in_ndc
        self.image_size = None if image_size is None else torch.as_tensor(image_size)

    def in_ndc(self) -> bool:
        return self._in_ndc


class FoVPerspectiveCameras:
    """As PyTorch3D's, NDC always; the angle of view is the vertical one of a square picture."""

    def __init__(self, R: Tensor, T: Tensor, **given: Any) -> None:
        self.R, self.T = R, T
        self.znear, self.zfar = torch.tensor([1.0]), torch.tensor([100.0])
        self.fov = torch.as_tensor(given.get("fov", [60.0]))
        self.aspect_ratio = torch.as_tensor(given.get("aspect_ratio", [1.0]))
        self.degrees, self.K = given.get("degrees", True), given.get("K")


class TexturesVertex:
    def __init__(self, verts_features: Any) -> None:
        self.features = list(verts_features)

    def verts_features_list(self) -> list[Tensor]:
        return self.features


class TexturesUV:
    def __init__(self, maps: Tensor, faces_uvs: Any, verts_uvs: Any, **given: Any) -> None:
        self.maps, self.faces, self.corners = maps, list(faces_uvs), list(verts_uvs)
        self.padding_mode = given.get("padding_mode", "border")
        self.align_corners = given.get("align_corners", True)
        self.sampling_mode = given.get("sampling_mode", "bilinear")

    def maps_padded(self) -> Tensor:
        return self.maps

    def faces_uvs_list(self) -> list[Tensor]:
        return self.faces

    def verts_uvs_list(self) -> list[Tensor]:
        return self.corners


class TexturesAtlas:
    def atlas_list(self) -> list[Tensor]:
        return []


class Meshes:
    def __init__(self, verts: Any, faces: Any, textures: Any = None) -> None:
        self.verts, self.faces, self.textures = list(verts), list(faces), textures

    def verts_list(self) -> list[Tensor]:
        return self.verts

    def faces_list(self) -> list[Tensor]:
        return self.faces

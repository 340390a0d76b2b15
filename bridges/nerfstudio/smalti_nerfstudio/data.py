"""nerfstudio's data for Smalti: cameras, pictures, and the training views as a data set in nerfstudio's own frame."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.datamanagers.full_images_datamanager import FullImageDatamanager, FullImageDatamanagerConfig
from nerfstudio.data.datasets.base_dataset import InputDataset
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.datasets.images import LoadedView
from smalti.datasets.nerfstudio_outputs import dataset_from_outputs

FAR = 10.0
"""Distance of an empty picture, in nerfstudio's frame, whose cameras lie within 1."""
KEY = "smalti"
"""Of the training views in the metadata that nerfstudio passes to the model."""


@dataclass
class SmaltiDatamanagerConfig(FullImageDatamanagerConfig):
    """Whole pictures, undistorted, as `splatfacto` has them"""

    _target: type = field(default_factory=lambda: SmaltiDatamanager)


class SmaltiDatamanager(FullImageDatamanager[InputDataset]):
    """Tells the model of its training views, from which scenes start; not where it only loads a checkpoint."""

    def create_train_dataset(self) -> InputDataset:
        """nerfstudio's own, with our view of it in its metadata."""
        dataset = super().create_train_dataset()
        if self.test_mode == "val":
            outputs = self.train_dataparser_outputs
            dataset.metadata[KEY] = dataset_from_outputs(self.dataparser_config.data, [("train", outputs)], undo=False)
        return dataset

    def _load_images(self, split: Any, cache_images_device: Any) -> list[dict[str, Tensor]]:
        # More than 500 pictures are pinned for a card; without one they stay where they are.
        without = torch.device(self.device).type == "cpu"
        return super()._load_images(split, "gpu" if without else cache_images_device)


def camera_of(cameras: Cameras, camera_to_world: Tensor | None = None) -> Camera:
    """The first of `cameras` as a pinhole (pictures were undistorted when they were loaded), tensors on the CPU.

    Differentiable with respect to `camera_to_world` [3, 4], which stands for the camera's own where it is given.
    Raises ValueError for panoramas, and for fisheyes whose pictures were left as they are.
    """
    one = cameras.flatten()
    kind, bent = int(one.camera_type[0]), one.distortion_params is not None and bool(one.distortion_params.any())
    # Cameras of fisheye pictures keep their type and distortion when nerfstudio makes the pictures straight.
    if kind != CameraType.PERSPECTIVE.value and not (kind == CameraType.FISHEYE.value and bent):
        raise ValueError(f"Smalti draws perspective pictures, this camera is {CameraType(kind).name.lower()}")
    pose = (one.camera_to_worlds[0] if camera_to_world is None else camera_to_world).cpu()
    rotation = (pose[:, :3] * pose.new_tensor([1.0, -1.0, -1.0])).T
    intrinsics = torch.stack([getattr(one, name)[0, 0] for name in ("fx", "fy", "cx", "cy")]).detach().cpu().float()
    size = (int(one.width[0, 0]), int(one.height[0, 0]))
    time = 0.0 if one.times is None else float(one.times.flatten()[0])
    return Camera(rotation, -(rotation @ pose[:, 3]), intrinsics, *size, time=time)


def reduced(camera: Camera, factor: int) -> Camera:
    """The camera of the pictures that `smalti.trainers.views.prepared` makes with that factor."""
    factor = min(factor, max(1, min(camera.width, camera.height) // 16))
    if factor == 1:
        return camera
    width, height = camera.width // factor, camera.height // factor
    return camera.cropped(0, 0, width * factor, height * factor).scaled_to(width, height)


def loaded_view(camera: Camera, batch: dict[str, Any]) -> LoadedView:
    """A picture of nerfstudio's, with its alpha and mask, as ours: values 0..255."""
    image = batch["image"]
    if image.dtype != torch.uint8:
        image = image * 255.0
    mask = batch.get("mask")
    return LoadedView(
        replace(camera, rotation=camera.rotation.detach(), translation=camera.translation.detach()),
        image[..., :3],
        image[..., 3] if image.shape[-1] == 4 else None,
        None if mask is None else (mask[..., 0].float() * 255.0).to(image.device),
    )


def along_rays(camera: Camera, depth: Tensor, alpha: Tensor) -> Tensor:
    """Camera z [h, w] as distances from the camera's centre, which nerfstudio calls depth.

    Where nothing was hit it is the largest there is: nerfstudio's viewer hides what lies behind the picture.
    """
    fx, fy, cx, cy = camera.intrinsics.detach().to(depth).unbind()
    x = (torch.arange(camera.width, device=depth.device) + 0.5 - cx) / fx
    y = (torch.arange(camera.height, device=depth.device) + 0.5 - cy) / fy
    distance = depth * (1.0 + x[None, :] ** 2 + y[:, None] ** 2).sqrt()
    hit = alpha > 0
    farthest = distance[hit].max() if bool(hit.any()) else distance.new_tensor(FAR)
    return torch.where(hit, distance, farthest)

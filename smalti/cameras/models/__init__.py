"""Lens models: every model that COLMAP 4 defines, with projection, Jacobian and inverse (numpy, float64, vectorised).

Pixels: the centre of the first pixel is (0.5, 0.5), as in COLMAP. OpenCV's K has pixel centres at whole numbers:
readers of such files add half a pixel to cx and cy (`opencv_to_ours`).

A model maps camera coordinates to a plane ("lens coordinates"), then fx, fy, cx, cy map that plane to pixels. What a
model cannot say (behind the camera, beyond the range where its polynomial still grows) is NaN and False in the mask.
"""

from smalti.cameras.models.lens import LensModel
from smalti.cameras.models.projection import (
    is_pinhole,
    jacobian,
    opencv_to_ours,
    ours_to_opencv,
    project,
    project_camera_points,
    unproject,
)
from smalti.cameras.models.registry import (
    MODELS,
    MODELS_BY_ID,
    join_parameters,
    lens_model,
    parameter_count,
    split_parameters,
)

__all__ = [
    "MODELS",
    "MODELS_BY_ID",
    "LensModel",
    "is_pinhole",
    "jacobian",
    "join_parameters",
    "lens_model",
    "opencv_to_ours",
    "ours_to_opencv",
    "parameter_count",
    "project",
    "project_camera_points",
    "split_parameters",
    "unproject",
]

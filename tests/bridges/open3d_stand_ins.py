"""The few classes of Open3D's legacy geometry that the bridge touches, as plain arrays, for machines without it."""

from __future__ import annotations

import types
from typing import Any

import numpy as np


class PointCloud:
    def __init__(self) -> None:
        self.points: Any = np.zeros((0, 3))
        self.colors: Any = np.zeros((0, 3))


class TriangleMesh:
    def __init__(self) -> None:
        self.vertices: Any = np.zeros((0, 3))
        self.triangles: Any = np.zeros((0, 3), np.int32)
        self.vertex_colors: Any = np.zeros((0, 3))
        self.triangle_uvs: Any = np.zeros((0, 2))
        self.triangle_material_ids: Any = np.zeros(0, np.int32)
        self.textures: list[Any] = []


def module() -> types.ModuleType:
    """Something to import as `open3d`."""

    def held(kind: type, width: int) -> Any:
        def make(values: Any) -> np.ndarray:
            assert np.asarray(values).dtype == kind
            return np.array(values).reshape(-1, width) if width else np.array(values)

        return make

    made: Any = types.ModuleType("open3d")
    made.geometry = types.SimpleNamespace(PointCloud=PointCloud, TriangleMesh=TriangleMesh, Image=np.array)
    made.utility = types.SimpleNamespace(
        Vector3dVector=held(np.float64, 3),
        Vector2dVector=held(np.float64, 2),
        Vector3iVector=held(np.int32, 3),
        IntVector=held(np.int32, 0),
    )
    return made

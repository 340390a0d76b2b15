"""Fewer faces by half-edge collapses in the order of their quadric error (Garland and Heckbert 1997, 1998).

A collapse moves one vertex onto a neighbour: every vertex that is left keeps its place and what it carries. Collapses
that would turn a face over, fold the surface onto itself or tear a texture are left out. Plain Python over a heap.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

COLOR_LENGTH = 0.05
"""A difference of 1 in colour weighs as much as a shift by this share of the mesh's diagonal."""
BORDER = 10.0
"""Weight of the planes that hold open borders in their place, over that of the face."""
LEAST_TURN = 0.2
"""Cosine up to which a face may turn in one collapse."""
TIE = 1e-7
"""Weight of the squared length of the edge: of collapses that cost nothing the short ones come first."""


@dataclass(frozen=True, eq=False)
class CollapsibleMesh:
    """What may be collapsed, as numpy arrays."""

    vertices: Float[np.ndarray, "v 3"]
    faces: Int[np.ndarray, "f 3"]
    weights: Float[np.ndarray, "f"]
    """How much each face counts, such as its area."""
    open_faces: Bool[np.ndarray, "f"]
    """Faces that may change; the vertices of others stay."""
    colors: Float[np.ndarray, "v c"] | None = None
    uvs: Float[np.ndarray, "f 3 2"] | None = None


def collapsed(mesh: CollapsibleMesh, count: int) -> tuple[Bool[np.ndarray, "f"], Int[np.ndarray, "f 3"], Any]:
    """(faces that are left, faces by their new corners, their texture coordinates) when at most `count` of the open
    faces are left, or when nothing more can be collapsed.
    """
    work = _Collapse(mesh)
    work.run(count)
    return work.alive, work.faces, work.uvs


class _Collapse:
    def __init__(self, mesh: CollapsibleMesh) -> None:
        self.points = np.asarray(mesh.vertices, np.float64)
        self.faces = np.array(mesh.faces, np.int64)
        self.uvs = None if mesh.uvs is None else np.array(mesh.uvs)
        self.alive = np.ones(len(self.faces), bool)
        self.open = int(mesh.open_faces.sum())
        self.around: list[set[int]] = [set() for _ in self.points]
        for face, corners in enumerate(self.faces.tolist()):
            for corner in corners:
                self.around[corner].add(face)
        self.fixed = np.zeros(len(self.points), bool)
        self.fixed[self.faces[~mesh.open_faces].reshape(-1)] = True
        self.stamp = [0] * len(self.points)
        span = np.ptp(self.points[self.faces].reshape(-1, 3), axis=0) if len(self.faces) else np.ones(3)
        length = COLOR_LENGTH * float(np.linalg.norm(span))
        colors = np.zeros((len(self.points), 0)) if mesh.colors is None else np.asarray(mesh.colors, np.float64)
        self.places = np.concatenate([self.points, colors * length], axis=1)
        self._quadrics(np.maximum(mesh.weights, 1e-3 * max(float(mesh.weights.mean()), 1e-300)))

    def _quadrics(self, weights: Float[np.ndarray, "f"]) -> None:
        """Of squared distances from the faces in the space of positions and colours (Garland and Heckbert 1998)."""
        size = self.places.shape[1]
        corners = self.places[self.faces]
        one = _unit(corners[:, 1] - corners[:, 0])
        side = corners[:, 2] - corners[:, 0]
        two = _unit(side - (side * one).sum(1, keepdims=True) * one)
        first, normals = corners[:, 0], _unit(self._normals(self.faces))
        away = first - (first * one).sum(1, keepdims=True) * one - (first * two).sum(1, keepdims=True) * two
        each = np.zeros((len(self.faces), size + 1, size + 1))
        each[:, :size, :size] = np.eye(size) - one[:, :, None] * one[:, None, :] - two[:, :, None] * two[:, None, :]
        each[:, :size, size] = each[:, size, :size] = -away
        each[:, size, size] = (first * away).sum(1)
        each *= weights[:, None, None]
        self.quadrics = np.zeros((len(self.points), size + 1, size + 1))
        self.mass = np.zeros(len(self.points))
        for k in range(3):
            np.add.at(self.quadrics, self.faces[:, k], each)
            np.add.at(self.mass, self.faces[:, k], weights / 3)
        # Open borders: a plane through each such edge, perpendicular to its face.
        pairs = np.stack([self.faces, np.roll(self.faces, -1, axis=1)], axis=2).reshape(-1, 2)
        keys, place, times = np.unique(np.sort(pairs, axis=1), axis=0, return_inverse=True, return_counts=True)
        del keys
        for edge in np.flatnonzero(times[place.reshape(-1)] == 1).tolist():
            start, end = pairs[edge]
            across = _unit(np.cross(self.points[end] - self.points[start], normals[edge // 3])[None])[0]
            plane = np.zeros(size + 1)
            plane[:3], plane[size] = across, -across @ self.points[start]
            held = BORDER * weights[edge // 3] * np.outer(plane, plane)
            self.quadrics[start] += held
            self.quadrics[end] += held

    def run(self, count: int) -> None:
        """Collapse until at most `count` open faces are left."""
        heap: list[tuple[float, int, int, int, int]] = []
        for vertex in range(len(self.points)):
            for other in self._neighbours(vertex):
                self._push(heap, vertex, other)
        heapq.heapify(heap)
        while self.open > count and heap:
            _, gone, kept, first, second = heapq.heappop(heap)
            if self.stamp[gone] != first or self.stamp[kept] != second or not self.around[gone]:
                continue
            if self._allowed(gone, kept):
                self._collapse(gone, kept)
                for other in self._neighbours(kept):
                    self._push(heap, kept, other, True)
                    self._push(heap, other, kept, True)

    def _push(self, heap: list[Any], gone: int, kept: int, ordered: bool = False) -> None:
        if self.fixed[gone]:
            return
        place = np.append(self.places[kept], 1.0)
        step = self.points[kept] - self.points[gone]
        cost = float(place @ self.quadrics[gone] @ place) + TIE * self.mass[gone] * float(step @ step)
        entry = (cost, gone, kept, self.stamp[gone], self.stamp[kept])
        if ordered:
            heapq.heappush(heap, entry)
        else:
            heap.append(entry)

    def _neighbours(self, vertex: int) -> set[int]:
        found = {corner for face in self.around[vertex] for corner in self.faces[face].tolist()}
        found.discard(vertex)
        return found

    def _allowed(self, gone: int, kept: int) -> bool:
        shared = self.around[gone] & self.around[kept]
        if not 1 <= len(shared) <= 2:
            return False
        common = self._neighbours(gone) & self._neighbours(kept)
        if len(common) != len(shared):
            return False  # the surface would fold onto itself
        if len(shared) == 2 and self._on_border(gone):
            return False  # a border would be drawn into the surface, or two tied together
        rest = [face for face in self.around[gone] if face not in shared]
        if rest:
            before = self.faces[rest]
            after = np.where(before == gone, kept, before)
            turned = (_unit(self._normals(before)) * _unit(self._normals(after))).sum(1)
            if not bool((turned > LEAST_TURN).all()):
                return False
        return self.uvs is None or self._texture_stays(gone, kept, shared)

    def _on_border(self, vertex: int) -> bool:
        return len(self._neighbours(vertex)) != len(self.around[vertex])

    def _normals(self, faces: Int[np.ndarray, "k 3"]) -> Float[np.ndarray, "k 3"]:
        corners = self.points[faces]
        return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])

    def _coordinates(self, vertex: int, faces: set[int]) -> Float[np.ndarray, "k 2"]:
        """Of the vertex in each of the faces."""
        assert self.uvs is not None
        rows = sorted(faces)
        return self.uvs[rows][self.faces[rows] == vertex]

    def _texture_stays(self, gone: int, kept: int, shared: set[int]) -> bool:
        """Whether the vertex that goes lies inside of one chart, and the other has one place there."""
        own, new = self._coordinates(gone, self.around[gone]), self._coordinates(kept, shared)
        return bool((own == own[0]).all() and (new == new[0]).all())

    def _collapse(self, gone: int, kept: int) -> None:
        shared = self.around[gone] & self.around[kept]
        place = None if self.uvs is None else self._coordinates(kept, shared)[0]
        for face in shared:
            self.alive[face] = False
            self.open -= 1
            for corner in self.faces[face].tolist():
                self.around[corner].discard(face)
        for face in self.around[gone]:
            corner = self.faces[face] == gone
            self.faces[face][corner] = kept
            if self.uvs is not None:
                self.uvs[face][corner] = place
            self.around[kept].add(face)
        self.around[gone] = set()
        self.quadrics[kept] += self.quadrics[gone]
        self.mass[kept] += self.mass[gone]
        self.stamp[kept] += 1


def _unit(vectors: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-300)

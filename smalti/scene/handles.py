"""A layer as one takes hold of it: `scene["chair"].visible = False`. Every assignment is an edit that can be undone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from smalti.cameras.rotations import matrix_from_quaternion
from smalti.cameras.similarity import Similarity
from smalti.scene.changes import EditError
from smalti.scene.history import Added, Assigned, Removed, Renamed
from smalti.scene.looks import set_opacity
from smalti.scene.selection import Selection, layer
from smalti.scene.vectors import Point, vector

if TYPE_CHECKING:
    from smalti.primitives.family import Family
    from smalti.scene.scene import Layer, Scene


class LayerHandle:
    """A layer of a scene. `visible`, `locked`, `name`, `opacity`, `position`, `rotation`, `scale` and `similarity` can
    be assigned.

    >>> from smalti.scene import demo_scene
    >>> scene = demo_scene()
    >>> chair = scene["chair"]
    >>> chair.locked = True
    >>> chair.name = "armchair"
    >>> list(scene.layers), len(chair), chair.locked
    (['armchair', 'cloud'], 8, True)
    """

    def __init__(self, scene: Scene, held: Layer) -> None:
        self._scene, self._layer = scene, held

    def __repr__(self) -> str:
        return f"LayerHandle({self.name!r}, {len(self)} {self.family.name})"

    def __len__(self) -> int:
        return len(self._layer.family)

    @property
    def family(self) -> Family:
        """Its primitives. What is changed in them directly is not in the history."""
        return self._layer.family

    @property
    def bytes(self) -> int:
        """Of its tensors."""
        return self._layer.family.bytes

    @property
    def visible(self) -> bool:
        """Drawn at all."""
        return self._layer.visible

    @visible.setter
    def visible(self, value: bool) -> None:
        self._assign("visible", self.visible, bool(value))

    @property
    def locked(self) -> bool:
        """Neither trained nor edited; it can still be hidden, renamed and unlocked."""
        return self._layer.locked

    @locked.setter
    def locked(self, value: bool) -> None:
        self._assign("locked", self.locked, bool(value))

    @property
    def name(self) -> str:
        """Its name in the scene; ValueError for one that is taken."""
        return self._layer.name

    @name.setter
    def name(self, value: str) -> None:
        self._require_there()
        if value == self.name:
            return
        self._scene.require_free(value)
        self._scene.history.perform(self._scene, "rename", [Renamed(self.name, value)])

    @property
    def similarity(self) -> Similarity:
        """scene_from_layer."""
        return self._layer.similarity

    @similarity.setter
    def similarity(self, value: Similarity) -> None:
        self._require_unlocked("similarity")
        self._assign("similarity", self.similarity, value)

    @property
    def position(self) -> Float[Tensor, "3"]:
        """Where the layer's own origin lies in the scene. Assigned: the layer as a whole moves there.

        >>> from smalti.scene import demo_scene
        >>> chair = demo_scene()["chair"]
        >>> chair.position = [0, 0, 2]
        >>> chair.scale, chair.rotation = 0.5, [0.7071, 0, 0.7071, 0]
        >>> [round(value, 3) + 0.0 for value in chair.similarity.apply(torch.tensor([1.0, 0, 0])).tolist()]
        [0.0, 0.0, 1.5]
        """
        return self.similarity.translation.clone()

    @position.setter
    def position(self, value: Point) -> None:
        self._place("position", replace(self.similarity, translation=vector(value, "position")))

    @property
    def rotation(self) -> Float[Tensor, "3 3"]:
        """Of the layer about its own origin. Assigned: a rotation matrix, or a quaternion (w, x, y, z)."""
        return self.similarity.rotation.clone()

    @rotation.setter
    def rotation(self, value: Tensor | Sequence[float]) -> None:
        turn = torch.as_tensor(value, dtype=torch.float64).detach().cpu()
        if turn.shape == (4,):
            if not 0 < float(turn.norm()) < float("inf"):
                raise ValueError(f"rotation: expected a quaternion of some length, got {turn.tolist()}")
            turn = matrix_from_quaternion(turn)
        self._place("rotation", replace(self.similarity, rotation=turn))

    @property
    def scale(self) -> float:
        """Of the layer about its own origin, above 0."""
        return self.similarity.scale

    @scale.setter
    def scale(self, value: float) -> None:
        self._place("scale", replace(self.similarity, scale=float(value)))

    def _place(self, what: str, similarity: Similarity) -> None:
        self._require_unlocked(what)
        step = Assigned(self.name, "similarity", self.similarity, similarity)
        self._scene.history.perform(self._scene, what, [step])

    @property
    def opacity(self) -> float:
        """Mean of its primitives'; assigned: that of each of them (0..1). `smalti.scene.fade` keeps their ratios."""
        return float(self._layer.family.opacities().detach().mean()) if len(self) else 0.0

    @opacity.setter
    def opacity(self, value: float) -> None:
        self._require_there()
        set_opacity(self._scene, self.select(), value)

    def select(self) -> Selection:
        """All its primitives.

        >>> from smalti.scene import demo_scene, move
        >>> scene = demo_scene()
        >>> move(scene, scene["chair"].select(), [0, 0, 1])
        8
        """
        return layer(self.name)

    def remove(self) -> None:
        """Take the layer out of the scene; `scene.undo()` brings it back.

        >>> from smalti.scene import demo_scene
        >>> scene = demo_scene()
        >>> scene["chair"].remove()
        >>> list(scene.layers), scene.undo(), list(scene.layers)
        (['cloud'], 'remove', ['chair', 'cloud'])
        """
        self._require_unlocked("remove")
        place = list(self._scene.layers).index(self.name)
        self._scene.history.perform(self._scene, "remove", [Removed(self._layer, place)])

    def _assign(self, attribute: str, before: object, after: object) -> None:
        self._require_there()
        if before is not after:
            step = Assigned(self.name, attribute, before, after)
            self._scene.history.perform(self._scene, attribute, [step])

    def _require_unlocked(self, what: str) -> None:
        self._require_there()
        if self.locked:
            raise EditError(f"{what}: layer {self.name!r} is locked; set scene[{self.name!r}].locked = False first")

    def _require_there(self) -> None:
        if self._scene.layers.get(self.name) is not self._layer:
            raise EditError(f"layer {self.name!r} is no longer in the scene; scene[name] gives a new handle")


def add_layer(scene: Scene, name: str, family: Family) -> LayerHandle:
    """`Scene.add` as an edit that can be undone: a new layer behind the others.

    >>> from smalti.scene import add_layer, demo_scene
    >>> scene = demo_scene()
    >>> add_layer(scene, "copy", scene["chair"].family.copy())
    LayerHandle('copy', 8 gaussians)
    >>> scene.undo(), list(scene.layers)
    ('add', ['chair', 'cloud'])
    """
    from smalti.scene.scene import Layer

    scene.require_free(name)
    scene.history.perform(scene, "add", [Added(Layer(name, family), len(scene.layers))])
    return scene[name]

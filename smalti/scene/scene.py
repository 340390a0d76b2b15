"""The scene: named layers in a stored compositing order. Selections, edits and undo live beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.cameras.similarity import Similarity
from smalti.primitives.family import Drawable, Family, FamilyError, find_family
from smalti.renderers.frame import Frame
from smalti.renderers.render import render
from smalti.renderers.settings import RenderSettings
from smalti.scene.history import History

if TYPE_CHECKING:
    from smalti.scene.groups.find import Groups
    from smalti.scene.handles import LayerHandle

SCENE_VERSION = 1
CONSTANTS = "constants/"
"""Before the names of a family's constant tensors in a saved scene."""


@dataclass(eq=False)
class Layer:
    """A named family instance and how it takes part in the scene."""

    name: str
    family: Family
    visible: bool = True
    """Drawn at all."""
    locked: bool = False
    """Neither trained nor edited."""
    similarity: Similarity = field(default_factory=Similarity)
    """scene_from_layer."""

    def drawables(self, camera: Camera, time: float = 0.0) -> Sequence[Drawable]:
        """What the family draws, where the layer's similarity puts it (`Family.transform`: exact for any family).

        A layer that is placed so has no gradients: a backward pass that reaches it ends in a RuntimeError.
        """
        if self.similarity.is_identity:
            return self.family.drawables(camera, time)
        placed = self.family.borrowed()
        placed.transform(self.similarity)
        for name, value in self.family.parameters.items():
            if torch.is_grad_enabled() and value.requires_grad:
                placed.parameters[name] = cast(Tensor, _Placed.apply(value, placed.parameters[name], self.name))
        return placed.drawables(camera, time)


class _Placed(torch.autograd.Function):
    """A parameter of a placed layer: zeros would be a wrong gradient, and a silent one."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, placed: Tensor, layer: str) -> Tensor:
        ctx.layer = layer
        return placed.detach().clone()

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[None, None, None]:
        raise RuntimeError(
            f"layer {ctx.layer!r}: layers that are placed by a similarity have no gradients; apply it once with "
            "`Scene.flattened()` and train that, or lock the layer (`require_gradients(False)`)"
        )


@dataclass(eq=False)
class Scene:
    """Layers by name, in the order in which equal depths are composited."""

    layers: dict[str, Layer] = field(default_factory=dict)
    order: Literal["centre", "ray"] = "centre"
    """Compositing order; stored, never changed by adding a layer."""
    near: float = 0.01
    """Near plane, world units."""
    background: tuple[float, float, float] | None = None
    """The colour behind the scene that its training pictures stated; None where they had none (drawn as black)."""
    canonical_from_scene: Similarity | None = None
    """Where the capture was aligned: the frame with +y up and the subject in the cube [-1, 1]^3. What needs to know up,
    or a size, asks it; nothing is drawn or written in it.
    """
    history: History = field(default_factory=History, repr=False)
    """Edits that can be undone (`smalti.scene.edits`, `smalti.scene.structure`); not saved."""

    def add(self, name: str, family: Family, **options: Any) -> Layer:
        """A new layer; a ValueError where the name is taken, or is none. Not an edit: it cannot be undone."""
        self.require_free(name)
        self.layers[name] = Layer(name, family, **options)
        return self.layers[name]

    def require_free(self, name: str) -> None:
        """ValueError where a new layer could not have this name."""
        if not name or "/" in name:
            raise ValueError(f"Scene.add: {name!r} is no layer's name; it needs a letter and must not hold a slash")
        if name in self.layers:
            raise ValueError(f"Scene.add: there is a layer {name!r} already; choose another name or remove it first")

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers.values())

    def __len__(self) -> int:
        """Primitives in all layers."""
        return sum(len(layer.family) for layer in self)

    def counts(self) -> dict[str, int]:
        """Primitives by layer."""
        return {layer.name: len(layer.family) for layer in self}

    def visible_layers(self) -> list[Layer]:
        """Layers that are drawn: visible and not empty."""
        return [layer for layer in self if layer.visible and len(layer.family) > 0]

    def drawables(self, camera: Camera) -> list[Drawable]:
        """What all visible layers draw at the camera's time, in layer order."""
        return [drawable for layer in self.visible_layers() for drawable in layer.drawables(camera, camera.time)]

    def settings(self, **options: Any) -> RenderSettings:
        """The scene's own render settings (order, near), with `options` on top."""
        return replace(RenderSettings(order=self.order, near=self.near), **options)

    def render(
        self,
        camera: Camera,
        *,
        background: Tensor | None = None,
        settings: RenderSettings | None = None,
        backend: str = "auto",
    ) -> Frame:
        """The picture of all visible layers; an empty scene gives a ValueError. `background` defaults to the scene's
        own.
        """
        drawables = self.drawables(camera)
        if not drawables:
            raise ValueError("Scene.render: there is nothing to draw; no visible layer has a primitive")
        if background is None and self.background is not None:
            background = torch.tensor(self.background, device=drawables[0].device)
        return render(drawables, camera, background=background, settings=settings or self.settings(), backend=backend)

    def like(self) -> Scene:
        """A scene without layers in the same frame, order and light."""
        canonical = self.canonical_from_scene
        return Scene(order=self.order, near=self.near, background=self.background, canonical_from_scene=canonical)

    def upright(self) -> Scene:
        """The scene placed by its canonical frame: up is -y, as in scenes whose y points down (so a .glb stands on its
        feet), the subject is about the origin, mostly within 1 of it. ValueError where the scene knows no such frame.
        """
        if self.canonical_from_scene is None:
            raise ValueError("Scene.upright: the scene knows no canonical frame; train it with --align auto")
        from smalti.files.frames import FRAMES

        move = Similarity(1.0, torch.tensor(FRAMES["gltf"], dtype=torch.float64)) @ self.canonical_from_scene
        placed = replace(self.like(), near=self.near * move.scale)
        placed.turn_canonical(move)
        placed.layers = {held.name: replace(held, similarity=move @ held.similarity) for held in self}
        return placed

    def turn_canonical(self, move: Similarity) -> None:
        """Let the canonical frame follow where all layers are moved by `move`; nothing where there is none."""
        if self.canonical_from_scene is not None:
            self.canonical_from_scene = self.canonical_from_scene @ move.inverse

    def flattened(self) -> Scene:
        """The same picture with every layer's similarity applied to its primitives (the input is left alone)."""
        flat = self.like()
        for layer in self:
            family = layer.family.copy()
            if not layer.similarity.is_identity:
                family.transform(layer.similarity)
            flat.add(layer.name, family, visible=layer.visible, locked=layer.locked)
        return flat

    # -- edits --------------------------------------------------------------------------------------------------------
    def __getitem__(self, name: str) -> LayerHandle:
        """A handle on a layer: its attributes can be assigned, and that can be undone. EditError where there is none.

        >>> from smalti.scene import demo_scene
        >>> scene = demo_scene()
        >>> scene["chair"].visible = False
        >>> scene.undo(), scene["chair"].visible
        ('visible', True)
        """
        from smalti.scene.handles import LayerHandle
        from smalti.scene.selection import named

        return LayerHandle(self, named(self, name))

    def edit(self, name: str) -> AbstractContextManager[None]:
        """What is edited inside the `with` block is one edit; where something in it fails, nothing was done.

        >>> from smalti.scene import delete, demo_scene, layer, move
        >>> scene = demo_scene()
        >>> with scene.edit("tidy up"):
        ...     moved = move(scene, layer("chair"), [0, 1, 0])
        ...     gone = delete(scene, layer("cloud"))
        >>> moved, gone, scene.undo(), len(scene)
        (8, 12, 'tidy up', 20)
        """
        return self.history.group(self, name)

    def undo(self) -> str:
        """Take back the last edit; returns its name. EditError where there is nothing to undo.

        >>> from smalti.scene import delete, demo_scene, layer
        >>> scene = demo_scene()
        >>> delete(scene, layer("chair")), len(scene), scene.undo(), len(scene)
        (8, 12, 'delete', 20)
        """
        return self.history.undo(self)

    def redo(self) -> str:
        """Do again what was undone last; returns its name. EditError where there is nothing to redo.

        >>> from smalti.scene import delete, demo_scene, layer
        >>> scene = demo_scene()
        >>> delete(scene, layer("chair")), scene.undo(), scene.redo(), len(scene)
        (8, 'delete', 'delete', 12)
        """
        return self.history.redo(self)

    # -- regularities -------------------------------------------------------------------------------------------------
    def find_groups(
        self, tolerance: float | None = None, kinds: Sequence[str] | None = None, min_gain: float = 0.0
    ) -> Groups:
        """Mirrors, arrays, grids and rotations among the blocks of the visible layers, by description length, as edits:
        move one leg, and all follow (`docs/groups.md`). Nothing is changed.

        `tolerance`: how far corners may lie from where a group says, scene units; by default 2 % of the scene's extent.
        `kinds`: of mirror, double_mirror, array, grid, rotation, same_size; by default all. `min_gain`: by how much a
        group has to shorten the description at least.

        >>> from smalti.scene.groups.demo import demo_table
        >>> scene = demo_table()
        >>> legs = scene.find_groups()[0]
        >>> legs.kind, len(legs.members), len(legs.move([0.1, 0, 0])), scene.undo()
        ('double_mirror', 4, 4, 'move')
        """
        from smalti.scene.groups.find import KINDS, find_groups

        return find_groups(self, tolerance, KINDS if kinds is None else kinds, min_gain)

    def program(self, groups: Groups | None = None) -> dict[str, Any]:
        """The blocks of the scene as an expression tree for JSON, {"fn": name, "args": [...]}, with the given groups
        or those that `find_groups` finds (`smalti.scene.groups.program`).

        >>> from smalti.scene.groups.demo import demo_table
        >>> [each["fn"] for each in demo_table().program()["args"]]
        ['SymRef', 'Move']
        """
        from smalti.scene.groups.program import program

        return program(self, groups)

    def from_program(self, tree: dict[str, Any]) -> Scene:
        """A new scene of the blocks that `tree` makes, with the looks of this scene's blocks that it names. ValueError
        where it names others, or is no program.

        >>> from smalti.scene.groups.demo import demo_table
        >>> scene = demo_table()
        >>> scene.from_program(scene.program()).counts()
        {'table': 5}
        """
        from smalti.scene.groups.program import rebuilt

        return rebuilt(self, tree)

    # -- state --------------------------------------------------------------------------------------------------------
    @staticmethod
    def load(path: Path | str) -> Scene:
        """The scene that `save` wrote: a file `.smalti`, or a folder. SceneFileError where there is none, or none that
        can be read.

        >>> import tempfile
        >>> from smalti.scene import demo_scene
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     written = demo_scene().save(folder)
        ...     Scene.load(folder).counts()
        {'chair': 8, 'cloud': 12}
        """
        from smalti.scene.folder import load_scene

        return load_scene(path)

    def save(self, path: Path | str) -> int:
        """Write the scene; returns the number of bytes. A path that ends with `.smalti` is one file, any other a
        folder, which is made where it is not there. Either appears whole, replacing what was there.

        >>> import tempfile
        >>> from smalti.scene import Scene, demo_scene
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     written = demo_scene().save(f"{folder}/demo.smalti")
        ...     Scene.load(f"{folder}/demo.smalti").counts()
        {'chair': 8, 'cloud': 12}
        """
        from smalti.scene.folder import save_scene

        return save_scene(self, path)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """(tensors, plain values): all there is, for safetensors and JSON."""
        tensors: dict[str, Tensor] = {}
        for layer in self:
            tensors |= {f"{layer.name}/{key}": value.detach() for key, value in layer.family.parameters.items()}
            tensors |= {f"{layer.name}/{CONSTANTS}{key}": value for key, value in layer.family.constants.items()}
        layers = [
            {
                "name": layer.name,
                "family": layer.family.name,
                "metadata": layer.family.metadata,
                "visible": layer.visible,
                "locked": layer.locked,
                "similarity": layer.similarity.to_plain(),
            }
            for layer in self
        ]
        background = None if self.background is None else list(self.background)
        plain: dict[str, Any] = {
            "version": SCENE_VERSION,
            "order": self.order,
            "near": self.near,
            "background": background,
            "layers": layers,
        }
        if self.canonical_from_scene is not None:
            plain["canonical_from_scene"] = self.canonical_from_scene.to_plain()
        return tensors, plain

    @staticmethod
    def from_state(tensors: dict[str, Tensor], plain: dict[str, Any]) -> Scene:
        """The inverse of `state`; a ValueError for a version from the future."""
        if plain["version"] > SCENE_VERSION:
            raise ValueError(
                f"scene: version {plain['version']} is newer than this program reads ({SCENE_VERSION}); update smalti"
            )
        background = None if plain["background"] is None else tuple(plain["background"])
        scene = Scene(order=plain["order"], near=plain["near"], background=background)
        if plain.get("canonical_from_scene") is not None:
            scene.canonical_from_scene = Similarity.from_plain(plain["canonical_from_scene"])
        for entry in plain["layers"]:
            prefix = f"{entry['name']}/"
            values = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            constants = {k.removeprefix(CONSTANTS): values.pop(k) for k in list(values) if k.startswith(CONSTANTS)}
            try:
                family = find_family(entry["family"])(values, entry["metadata"], constants)
            except FamilyError as error:
                raise FamilyError(f"layer {entry['name']!r}: {error}") from error
            similarity = Similarity.from_plain(entry["similarity"])
            scene.add(entry["name"], family, visible=entry["visible"], locked=entry["locked"], similarity=similarity)
        return scene

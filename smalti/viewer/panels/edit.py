"""Selecting and editing, all through `smalti.scene`: each press of a button is one edit, which all clients can undo."""

from __future__ import annotations

import threading
from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any

import torch

from smalti.cameras.similarity import Similarity
from smalti.scene.changes import EditError
from smalti.scene.edits import scale, transform
from smalti.scene.looks import set_opacity, tint
from smalti.scene.nearby import connected, flood
from smalti.scene.screen import in_polygon, in_rectangle
from smalti.scene.selection import Selection, everything, index, layer, positions, visible
from smalti.scene.structure import delete, duplicate, split
from smalti.scene.values import where
from smalti.viewer.chosen import HOWS, Chosen, How
from smalti.viewer.downloads import FORMATS, bytes_of, part_of
from smalti.viewer.panels.controls import Quiet, bytes_in_words, in_words, small, telling
from smalti.viewer.panels.gizmo import Gizmo
from smalti.viewer.panels.pointer import TOOLS, Pointer
from smalti.viewer.picking import pick, usual_distance

if TYPE_CHECKING:
    from smalti.cameras.camera import Camera
    from smalti.scene.scene import Scene
    from smalti.viewer.client import ClientView

TAKES = ("Primitive", "Connected", "Layer")
"""What a click selects."""
TOOL_NAMES = tuple(tool.capitalize() for tool in TOOLS)
HOW_NAMES = tuple(how.capitalize() for how in HOWS)
REACH = 2.0
"""Usual distances between neighbours over which things hang together, at first."""
HELP = {
    "look around": "Choose a tool to select with.",
    "click": "Click what you want. Shift adds, Ctrl removes, both intersect.",
    "box": "Drag a rectangle. Shift adds, Ctrl removes, both intersect.",
    "lasso": "Click the corners of an outline, then press Close lasso.",
}


class Edit:
    """The panel; see the module."""

    name = "edit"

    def __init__(self, view: ClientView) -> None:
        self._view = view
        self._lock = threading.RLock()  # within a turn at the scene, never around one
        self._quiet = Quiet()
        self._pointer = Pointer(view, self._clicked, self._boxed)
        self._gizmo = Gizmo(view, self._dragged)
        self._revision = -1
        self._downloaded: dict[str, Any] | None = None
        with view.stage.reading() as scene:
            self._chosen = Chosen(scene)
            self._usual = usual_distance(scene)
        gui = view.client.gui
        with gui.add_folder("Edit", expand_by_default=False):
            self._line = gui.add_html("")
            with gui.add_folder("Select"):
                self._make_select()
            with gui.add_folder("Change"):
                self._make_change()
            with gui.add_folder("Download", expand_by_default=False):
                self._make_download()
        self.refresh()

    # -- controls -----------------------------------------------------------------------------------------------------
    def _make_select(self) -> None:
        gui = self._view.client.gui
        self._tool = gui.add_dropdown("Tool", TOOL_NAMES)
        self._help = gui.add_html(small(HELP["look around"]))
        self._takes = gui.add_dropdown("Click takes", TAKES)
        self._how = gui.add_dropdown("Selection", HOW_NAMES, hint="What becomes of what is selected already")
        self._through = gui.add_checkbox("Behind, too", False, hint="Box and lasso: also what something hides")
        self._close = gui.add_button("Close lasso")
        self._sets = gui.add_button_group("", ["All", "None", "Invert"])
        self._distance = gui.add_number(
            "Reach", round(REACH * self._usual, 6), min=0.0, hint="From centre to centre, for what hangs together"
        )
        grow = gui.add_button("Grow", hint="By everything that hangs together with the selection")
        self._tolerance = gui.add_slider(
            "Likeness", 0.0, 1.0, 0.01, 0.1, hint="Largest difference of a colour's channel"
        )
        flooding = gui.add_button("Flood", hint="By everything of its colours that hangs together with the selection")
        self._bound = gui.add_slider("Opacity below", 0.0, 1.0, 0.01, 0.1)
        faint = gui.add_button("Select faint")
        self._tool.on_update(lambda _: self._use_tool())
        self._close.on_click(lambda _: self._close_lasso())
        self._sets.on_click(lambda _: self._select_set(self._sets.value))
        grow.on_click(lambda _: self._grow(lambda seed, reach: connected(seed, reach)))
        flooding.on_click(lambda _: self._grow(lambda seed, reach: flood(seed, self._tolerance.value, reach)))
        self._show_options()
        faint.on_click(lambda _: self.select(where("opacity", "<", float(self._bound.value)) & visible()))

    def _make_change(self) -> None:
        gui = self._view.client.gui
        self._handles = gui.add_checkbox(
            "Handles", True, hint="To move and turn the selection with; away while a box or a lasso is drawn"
        )
        self._factor = gui.add_number("Factor", 1.0, min=1e-3, max=1e3, step=0.1)
        scaling = gui.add_button("Scale")
        self._kinds = gui.add_button_group("", ["Delete", "Duplicate"])
        self._layer = gui.add_text("New layer", "part")
        splitting = gui.add_button("Split off", hint="Into a layer of its own")
        self._opacity = gui.add_slider("Opacity", 0.0, 1.0, 0.01, 1.0)
        opacity = gui.add_button("Set opacity")
        self._color = gui.add_rgb("Tint", (255, 255, 255))
        tinting = gui.add_button("Multiply colours")
        self._undo = gui.add_button("Undo", disabled=True)
        self._redo = gui.add_button("Redo", disabled=True)
        self._past = gui.add_html("")
        self._forget = gui.add_button("Forget edits", hint="They cannot be undone then; the scene stays as it is")
        self._handles.on_update(lambda _: self._show_handles())
        scaling.on_click(lambda _: self.change("scale", self._scaled))
        self._kinds.on_click(lambda _: self._pressed(self._kinds.value))
        splitting.on_click(lambda _: self.change("split", self._split))
        opacity.on_click(lambda _: self.change("opacity", lambda s, what: set_opacity(s, what, self._opacity.value)))
        tinting.on_click(lambda _: self.change("tint", self._tinted))
        self._undo.on_click(lambda _: self._move("undo"))
        self._redo.on_click(lambda _: self._move("redo"))
        self._forget.on_click(lambda _: self._forget_edits())

    def _make_download(self) -> None:
        gui = self._view.client.gui
        self._format = gui.add_dropdown("Format", FORMATS)
        seen = gui.add_button("What is visible")
        chosen = gui.add_button("The selection")
        seen.on_click(lambda _: self._download(False))
        chosen.on_click(lambda _: self._download(True))

    # -- Panel --------------------------------------------------------------------------------------------------------
    def refresh(self) -> None:
        """See `Panel`."""
        stage = self._view.stage
        if stage.revision == self._revision:
            return
        with stage.reading() as scene, self._lock:
            self._revision = stage.revision
            if scene is not self._chosen.scene:
                self._chosen.close()
                self._chosen = Chosen(scene)
            changed = self._chosen.follow()
            self._show(scene, changed)

    def state(self) -> dict[str, Any]:
        """See `Panel`."""
        with self._lock:
            history = self._chosen.scene.history
            return {
                "tool": self._pointer.tool,
                "selected": self._chosen.counts(),
                "lasso": [list(corner) for corner in self._pointer.corners],
                "gizmo": self._gizmo.pivot,
                "gizmo_size": self._gizmo.size,
                "undo": [edit.name for edit in history.done],
                "redo": [edit.name for edit in reversed(history.undone)],
                "downloaded": self._downloaded,
            }

    def close(self) -> None:
        """See `Panel`."""
        with self._lock:
            self._chosen.close()

    # -- showing, within a turn at the scene --------------------------------------------------------------------------
    def _show(self, scene: Scene, changed: bool) -> None:
        selection = self._chosen.selection()
        if changed:
            self._view.select(selection)
        lost, self._chosen.lost = self._chosen.lost, []
        if lost:
            self._view.say(
                f"training has changed the primitives of {', '.join(sorted(set(lost)))}, so they are no longer "
                "selected; pause it to edit"
            )
        counts = self._chosen.counts()
        parts = " · ".join(f"{escape(name)} {count:,}" for name, count in counts.items())
        history = scene.history
        with self._quiet:
            self._line.content = small(
                f"{in_words(sum(counts.values()), 'primitive')} selected", parts or "Select something to edit it."
            )
            self._undo.disabled, self._redo.disabled = not history.done, not history.undone
            self._undo.label = f"Undo: {history.done[-1].name}" if history.done else "Undo"
            self._redo.label = f"Redo: {history.undone[-1].name}" if history.undone else "Redo"
            held = len(history.done) + len(history.undone)
            self._past.content = small(f"{in_words(held, 'edit')} kept, {bytes_in_words(history.bytes)}")
            self._forget.disabled = not held
        self._show_gizmo(scene, selection)

    def _show_gizmo(self, scene: Scene, selection: Selection | None) -> None:
        # Over an outline that is being drawn they would catch the clicks.
        wanted = self._handles.value and self._pointer.tool not in ("box", "lasso")
        box = _box_of(scene, selection) if selection is not None and wanted else None
        if box is None:
            self._gizmo.hide()
        else:
            self._gizmo.show(*box, self._view.look.camera)

    def _show_handles(self) -> None:
        with telling(self._view, "handles"), self._view.stage.reading() as scene, self._lock:
            self._show_gizmo(scene, self._chosen.selection())

    # -- selecting ----------------------------------------------------------------------------------------------------
    def select(self, selection: Selection | Callable[[Scene], Selection | None], how: How | None = None) -> None:
        """Now, by what the page says unless keys said otherwise."""
        with telling(self._view, "select"), self._view.stage.reading() as scene, self._lock:
            found = selection if isinstance(selection, Selection) else selection(scene)
            rule = how or HOWS[HOW_NAMES.index(self._how.value)]
            if found is None:
                if rule in ("add", "remove"):
                    return
                found = ~everything()
            self._chosen.choose(found, rule)
            self._show(scene, True)

    def _use_tool(self) -> None:
        with telling(self._view, "tool"), self._view.stage.reading() as scene, self._lock:
            tool = TOOLS[TOOL_NAMES.index(self._tool.value)]
            self._pointer.use(tool)
            self._help.content = small(HELP[tool])
            self._show_options()
            self._show_gizmo(scene, self._chosen.selection())

    def _show_options(self) -> None:
        """Those of the tool."""
        tool = self._pointer.tool
        self._takes.visible, self._through.visible = tool == "click", tool in ("box", "lasso")
        self._how.visible, self._close.visible = tool != "look around", tool == "lasso"

    def _clicked(self, camera: Camera, x: float, y: float, how: How | None) -> None:
        takes, reach = self._takes.value, float(self._distance.value)

        def selected(scene: Scene) -> Selection | None:
            hit = pick(scene, camera, x, y, self._view.stage.backend)
            if hit is None:
                return None
            if takes == "Layer":
                return layer(hit[0])
            one = index(hit[0], [hit[1]])
            return connected(one, reach) & visible() if takes == "Connected" else one

        self.select(selected, how)

    def _boxed(self, camera: Camera, corners: list[float], how: How | None) -> None:
        self.select(in_rectangle(camera, *corners, occluded=bool(self._through.value)), how)

    def _close_lasso(self) -> None:
        with telling(self._view, "lasso"):
            with self._lock:
                outline = self._pointer.lasso()
                self._pointer.drop()
            if outline is None:
                raise EditError("choose the tool Lasso and click three corners or more, then close it")
            camera, corners = outline
            self.select(in_polygon(camera, corners, occluded=bool(self._through.value)))

    def _select_set(self, name: str) -> None:
        if name == "Invert":
            self.select(lambda scene: visible() & ~(self._chosen.selection() or ~everything()), "replace")
        else:
            self.select(visible() if name == "All" else ~everything(), "replace")

    def _grow(self, rule: Callable[[Selection, float], Selection]) -> None:
        def grown(scene: Scene) -> Selection:
            seed = self._chosen.selection()
            if seed is None:
                raise EditError("nothing is selected that could grow")
            return seed | rule(seed, float(self._distance.value)) & visible()

        self.select(grown, "replace")

    # -- editing ------------------------------------------------------------------------------------------------------
    def change(self, name: str, action: Callable[[Scene, Selection], object]) -> None:
        """One edit of what is selected; `action` may give the selection that there is then."""
        stage = self._view.stage
        with telling(self._view, name), stage.changing() as scene, self._lock:
            self._chosen.follow()
            selection = self._chosen.selection()
            if selection is None:
                raise EditError("nothing is selected")
            with scene.edit(name):
                then = action(scene, selection)
            self._followed(scene)
            if isinstance(then, Selection):
                self._chosen.choose(then)
            self._show(scene, True)

    def _followed(self, scene: Scene) -> None:
        """The selection and the training take an edit into account."""
        if self._chosen.follow() and self._view.stage.training is not None:
            self._view.stage.training.edited(set(scene.layers))

    def _pressed(self, name: str) -> None:
        if name == "Delete":
            self.change("delete", delete)
        else:
            self.change("duplicate", self._duplicated)

    @staticmethod
    def _duplicated(scene: Scene, selection: Selection) -> Selection:
        """The copies are selected then: they lie where the originals do, ready to be moved."""
        before = scene.counts()
        duplicate(scene, selection)
        copies = ~everything()
        for name, count in scene.counts().items():
            copies |= index(name, list(range(before[name], count)))
        return copies

    def _split(self, scene: Scene, selection: Selection) -> Selection:
        parts = ~everything()
        for name in split(scene, selection, str(self._layer.value).strip()):
            parts |= layer(name)
        return parts

    def _scaled(self, scene: Scene, selection: Selection) -> int:
        return scale(scene, selection, float(self._factor.value))

    def _tinted(self, scene: Scene, selection: Selection) -> int:
        return tint(scene, selection, [value / 255.0 for value in self._color.value])

    def _dragged(self, motion: Similarity) -> None:
        turns = not torch.allclose(motion.rotation, torch.eye(3, dtype=torch.float64), atol=1e-9)
        if turns or bool(motion.translation.abs().max() > 0):
            self.change("rotate" if turns else "move", lambda scene, what: transform(scene, what, motion))

    def _move(self, what: str) -> None:
        stage = self._view.stage
        with telling(self._view, what), stage.changing() as scene, self._lock:
            (scene.undo if what == "undo" else scene.redo)()
            self._followed(scene)
            self._show(scene, True)

    def _forget_edits(self) -> None:
        with telling(self._view, "forget edits"), self._view.stage.changing() as scene, self._lock:
            scene.history.clear()
            self._show(scene, False)

    # -- taking away --------------------------------------------------------------------------------------------------
    def _download(self, selected: bool) -> None:
        with telling(self._view, "download"):
            with self._view.stage.reading() as scene:
                with self._lock:
                    selection = self._chosen.selection() if selected else None
                if selected and selection is None:
                    raise EditError("nothing is selected")
                part = part_of(scene, selection)
            extension = str(self._format.value)
            content, notices = bytes_of(part, extension)  # of a copy: nobody waits for it
            name = f"{'selection' if selected else 'scene'}{extension}"
            self._view.client.send_file_download(name, content)
            self._downloaded = {"name": name, "bytes": len(content), "primitives": len(part)}
            for notice in notices:
                self._view.say(f"{name}: {notice}")


def _box_of(scene: Scene, selection: Selection) -> tuple[torch.Tensor, torch.Tensor] | None:
    """(low, high) around the selected centres."""
    masks = selection.masks(scene)
    parts = [positions(held)[masks[held.name]].cpu() for held in scene]
    points = torch.cat(parts) if parts else torch.zeros(0, 3, dtype=torch.float64)
    points = points[torch.isfinite(points).all(dim=1)]
    return (points.amin(dim=0), points.amax(dim=0)) if len(points) else None

"""The layers: shown, locked, how opaque, their names; each change is an edit that can be undone."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING, Any

from smalti.scene.history import Edit
from smalti.scene.looks import fade
from smalti.viewer.modes import layer_colors
from smalti.viewer.panels.controls import Quiet, bytes_in_words, in_words, small, swatch, telling

if TYPE_CHECKING:
    import viser

    from smalti.scene.handles import LayerHandle
    from smalti.scene.scene import Layer, Scene
    from smalti.viewer.client import ClientView

OPENED = 3
"""More layers than these begin folded."""
OPACITY_SECONDS = 3.0
"""While the scene changes without end (a training), opacities are averaged no more often than this."""
ONE_DRAG = 1.0
"""Seconds within which values of one slider are one edit."""


@dataclass(frozen=True)
class Facts:
    """What is true of a layer."""

    name: str
    family: str
    count: int
    bytes: int
    visible: bool
    locked: bool
    opacity: float | None
    """Mean; None where the family has no opacity to set."""


@dataclass
class Row:
    """A layer's controls."""

    folder: viser.GuiFolderHandle
    line: viser.GuiHtmlHandle
    shown: viser.GuiInputHandle[bool]
    locked: viser.GuiInputHandle[bool]
    opacity: viser.GuiSliderHandle[float]
    name: viser.GuiInputHandle[str]


class Layers:
    """The panel; see the module. Layers are known by name: one that another client renames gets new controls."""

    name = "layers"

    def __init__(self, view: ClientView) -> None:
        self._view, self._gui = view, view.client.gui
        self._quiet = Quiet()
        self._rows: dict[str, Row] = {}
        self._facts: list[Facts] = []
        self._revision, self._averaged, self._stale = -1, 0.0, False
        self._drag: tuple[Edit, str, float] | None = None
        self._folder = self._gui.add_folder("Layers")
        with self._folder:
            self._totals = self._gui.add_html("")
        self.refresh()

    def refresh(self) -> None:
        """See `Panel`."""
        stage = self._view.stage
        now = time.monotonic()
        average = stage.training is None or now - self._averaged >= OPACITY_SECONDS
        if stage.revision == self._revision and not (self._stale and average):
            return
        with stage.reading() as scene:
            self._revision = stage.revision
            known = {facts.name: facts.opacity for facts in self._facts}
            facts = [_facts(layer, average or layer.name not in known, known) for layer in scene]
            colors = layer_colors(scene)
            dragged = next((name for name in scene.layers if self._is_dragging(scene, name)), None)
        self._averaged, self._stale = (now, False) if average else (self._averaged, True)
        if facts != self._facts or not self._rows:
            self._show(facts, colors, dragged)

    def state(self) -> dict[str, Any]:
        """See `Panel`."""
        return {
            "rows": [vars(facts) for facts in self._facts],
            "count": sum(facts.count for facts in self._facts),
            "bytes": sum(facts.bytes for facts in self._facts),
        }

    def close(self) -> None:
        """See `Panel`."""
        self._rows.clear()

    # -- showing ------------------------------------------------------------------------------------------------------
    def _show(self, facts: list[Facts], colors: dict[str, str], dragged: str | None) -> None:
        names, before = [each.name for each in facts], {each.name: each for each in self._facts}
        with self._quiet:
            if names != list(self._rows):
                for row in self._rows.values():
                    row.folder.remove()
                with self._folder:
                    self._rows = {each.name: self._row(each, len(facts) <= OPENED) for each in facts}
                before = {}
            for each in facts:
                row, known = self._rows[each.name], before.get(each.name)
                words = f"{escape(each.family)} · {in_words(each.count, 'primitive')} · {bytes_in_words(each.bytes)}"
                row.line.content = small(f"{swatch(colors[each.name])} {words}")
                row.opacity.disabled = each.opacity is None or each.locked or each.count == 0
                # Only what is new: a control that was moved a moment ago, and is not looked at yet, keeps its value.
                if known is None or known.visible != each.visible:
                    row.shown.value = each.visible
                if known is None or known.locked != each.locked:
                    row.locked.value = each.locked
                if (known is None or known.opacity != each.opacity) and each.name != dragged:
                    row.opacity.value = round(1.0 if each.opacity is None else each.opacity, 3)
                if known is None:
                    row.name.value = each.name
        self._facts = facts
        total = self.state()
        layers = in_words(len(facts), "layer")
        self._totals.content = small(
            f"{layers} · {in_words(total['count'], 'primitive')} · {bytes_in_words(total['bytes'])}"
            if facts
            else "The scene is empty."
        )

    def _row(self, facts: Facts, opened: bool) -> Row:
        gui, name = self._gui, facts.name
        folder = gui.add_folder(name, expand_by_default=opened)
        with folder:
            line = gui.add_html("")
            shown = gui.add_checkbox("Show", facts.visible)
            locked = gui.add_checkbox("Lock", facts.locked, hint="Neither trained nor edited")
            opacity = gui.add_slider(
                "Mean opacity",
                0.0,
                1.0,
                0.01,
                1.0,
                hint="Mean of its primitives; all are made fainter or denser by one factor",
            )
            text = gui.add_text("Name", name)
        row = Row(folder, line, shown, locked, opacity, text)
        shown.on_update(lambda _: self._assign(name, "visible", row.shown))
        locked.on_update(lambda _: self._assign(name, "locked", row.locked))
        opacity.on_update(lambda _: self._set_opacity(name, row.opacity))
        text.on_update(lambda _: self._rename(name, row.name))
        return row

    # -- wishes -------------------------------------------------------------------------------------------------------
    def _assign(self, name: str, attribute: str, control: viser.GuiInputHandle[bool]) -> None:
        if self._quiet:
            return
        with telling(self._view, f"Layer {name}"), self._view.stage.changing() as scene:
            handle = scene[name]
            # Read here: of two quick clicks the later one counts, in whatever order their callbacks run.
            if getattr(handle, attribute) != control.value:
                setattr(handle, attribute, control.value)
            self._note(name, attribute, control.value)
            return
        self._facts = []  # the controls go back to what is true

    def _note(self, name: str, attribute: str, value: bool | float) -> None:
        """What its control shows, until the scene says otherwise."""
        self._facts = [replace(each, **{attribute: value}) if each.name == name else each for each in self._facts]

    def _rename(self, name: str, control: viser.GuiInputHandle[str]) -> None:
        if self._quiet or control.value == name:
            return
        with telling(self._view, f"Layer {name}"), self._view.stage.changing() as scene:
            scene[name].name = control.value.strip()
        self._facts = []

    def _set_opacity(self, name: str, control: viser.GuiInputHandle[float]) -> None:
        if self._quiet:
            return
        with telling(self._view, f"Layer {name}"), self._view.stage.changing() as scene:
            value = min(max(float(control.value), 0.0), 1.0)
            self._one_edit(scene, scene[name], value)
            self._note(name, "opacity", value)
            if self._view.stage.training is not None:
                self._view.stage.training.edited({name})
            return
        self._facts, self._drag = [], None

    def _one_edit(self, scene: Scene, handle: LayerHandle, value: float) -> None:
        """A slider sends many values on its way: the last takes the place of those before it."""
        if self._is_dragging(scene, handle.name):
            scene.undo()
        mean = handle.opacity
        with scene.edit("opacity"):  # faint ones stay fainter than others: one value for all would spoil the picture
            if mean > 0:
                fade(scene, handle.select(), value / mean)
            else:
                handle.opacity = value
        done = scene.history.done
        self._drag = (done[-1], handle.name, time.monotonic()) if done else None

    def _is_dragging(self, scene: Scene, name: str) -> bool:
        """Whether the last edit is of this layer's slider, and a moment ago: its knob is where the user's hand is."""
        if self._drag is None or not scene.history.done:
            return False
        edit, dragged, last = self._drag
        return name == dragged and scene.history.done[-1] is edit and time.monotonic() - last < ONE_DRAG


def _facts(layer: Layer, average: bool, known: dict[str, float | None]) -> Facts:
    family = layer.family
    opacity: float | None = None
    if any(name in family.parameters for name in family.opacity_parameters()):
        opacity = known.get(layer.name)
        if average or opacity is None:
            opacity = float(family.opacities().detach().mean()) if len(family) else 0.0
    return Facts(layer.name, family.name, len(family), family.bytes, layer.visible, layer.locked, opacity)

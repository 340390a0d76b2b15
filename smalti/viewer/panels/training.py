"""A training in progress: pause, step, go on, save; how it is doing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from smalti.viewer.panels.controls import in_words, small, telling

if TYPE_CHECKING:
    from smalti.viewer.client import ClientView
    from smalti.viewer.stage import Training as Steered

CURVE_SECONDS = 1.0
"""Between two pictures of the curves."""
HEIGHT = 150
LOSS, PSNR, FIXED = "#e8853a", "#4f8fd9", "#49a05f"


class Training:
    """The panel; see the module. Without a training it shows nothing."""

    name = "training"

    def __init__(self, view: ClientView) -> None:
        self._view, self._drawn, self._told = view, 0.0, {}
        if view.stage.training is None:
            return
        gui = view.client.gui
        with gui.add_folder("Training"):
            self._line = gui.add_html("")
            self._pause = gui.add_button("Pause")
            self._step = gui.add_button("One step", hint="And wait again")
            self._save = gui.add_button("Save a checkpoint now")
            self._loss = self._curve("loss", LOSS)
            self._psnr = self._curve("PSNR of the steps, dB", PSNR)
            self._fixed = self._curve("PSNR of the fixed view, dB", FIXED)
            gui.add_html(small("A hidden layer rests: it is not trained, and the others learn to do without it."))
        self._pause.on_click(lambda _: self._turn())
        self._step.on_click(lambda _: self._steer("one_step"))
        self._save.on_click(lambda _: self._save_now())
        self.refresh()

    def refresh(self) -> None:
        """See `Panel`."""
        training = self._view.stage.training
        if training is None:
            return
        told = training.state()
        now = time.monotonic()
        if now - self._drawn >= CURVE_SECONDS or told.get("ending"):
            self._drawn = now
            for handle, key in ((self._loss, "losses"), (self._psnr, "psnrs"), (self._fixed, "preview_psnrs")):
                _draw(handle, told.get(key, []), self._told.get(key))
        if told == self._told:
            return
        self._told = told
        over = bool(told.get("ending"))
        label = "Go on" if told["paused"] else "Pause"
        if self._pause.label != label:
            self._pause.label = label
        for button in (self._pause, self._step, self._save):
            if button.disabled != over:
                button.disabled = over
        self._line.content = small(*_words(told))

    def state(self) -> dict[str, Any]:
        """See `Panel`."""
        held = ("step", "steps", "paused", "ending", "note")
        return {key: self._told[key] for key in held if key in self._told}

    def close(self) -> None:
        """See `Panel`."""

    def _curve(self, title: str, color: str) -> Any:
        empty = np.zeros(0)
        return self._view.client.gui.add_uplot(
            (empty, empty),
            ({"label": "step"}, {"label": title, "stroke": color, "width": 2}),
            title=title,
            height=HEIGHT,
            legend={"show": False},
            scales={"x": {"time": False}},
            visible=False,
        )

    def _turn(self) -> None:
        training = self._view.stage.training
        self._steer("go_on" if training is not None and training.state()["paused"] else "pause")

    def _steer(self, what: str) -> None:
        with telling(self._view, "training"):
            training: Steered | None = self._view.stage.training
            if training is not None:
                {"pause": training.pause, "go_on": training.go_on, "one_step": training.one_step}[what]()
                self.refresh()

    def _save_now(self) -> None:
        with telling(self._view, "checkpoint"):
            training: Steered | None = self._view.stage.training
            if training is not None:
                self._view.say(f"saved {training.save()}")


def _draw(handle: Any, points: list[tuple[int, float]], before: list[tuple[int, float]] | None) -> None:
    """Sent where there is something new; a curve of one point is none."""
    if len(points) < 2 or (points == before and handle.visible):
        return
    steps, values = zip(*points, strict=True)
    handle.data = (np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64))
    if not handle.visible:
        handle.visible = True


def _words(told: dict[str, Any]) -> list[str]:
    """What is said above the curves."""
    way = told.get("ending") or ("waiting" if told["paused"] else f"{told['steps_per_second']:.1f} steps/s")
    lines = [f"step {told['step']:,} of {told['steps']:,} · {way}"]
    figures = [in_words(told["primitives"], "primitive")] if "primitives" in told else []
    if told["losses"]:
        figures.append(f"loss {told['losses'][-1][1]:.4f}")
    if told["psnrs"]:
        figures.append(f"{told['psnrs'][-1][1]:.2f} dB")
    if told.get("preview_psnrs"):
        figures.append(f"fixed view {told['preview_psnrs'][-1][1]:.2f} dB")
    lines.append(" · ".join(figures))
    return [*lines, told["note"]] if told.get("note") else lines

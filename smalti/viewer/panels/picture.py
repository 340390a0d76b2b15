"""What is drawn, and what the picture on the page is: its size, how long it took, whether it is exact."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any, cast

from smalti.viewer.look import MODES, Look, Mode
from smalti.viewer.panels.controls import Quiet, Ticker, small, swatch, telling

if TYPE_CHECKING:
    from smalti.viewer.client import ClientView, Picture

LABELS: dict[Mode, str] = {
    "color": "Colour",
    "depth": "Depth",
    "normal": "Normals",
    "alpha": "Alpha",
    "family": "Layers",
    "contribution": "Contribution",
    "error": "Error against a view",
}
ORDERS = {"As the scene says": None, "Exact, per pixel (ray)": "ray", "One key each (centre)": "centre"}
DEPTHS = {"Expected": "expected", "Median": "median"}
LOOK_AGAIN = 0.4
"""Seconds between two looks at which picture is on the page."""


class PicturePanel:
    """The panel; see the module."""

    name = "picture"

    def __init__(self, view: ClientView) -> None:
        self._view, gui = view, view.client.gui
        self._quiet = Quiet()
        self._told = ""
        self._known = _wishes(view.look)
        with gui.add_folder("Picture"):
            # Without views there is nothing to compare with.
            modes = [LABELS[mode] for mode in MODES if mode != "error" or view.stage.views is not None]
            self._mode = gui.add_dropdown("Mode", modes, initial_value=LABELS[view.look.mode])
            self._order = gui.add_dropdown("Order", list(ORDERS), hint="In which order primitives are composited")
            self._depth = gui.add_dropdown("Depth", list(DEPTHS), visible=False)
            self._automatic = gui.add_checkbox("Auto range", True, visible=False)
            self._near = gui.add_number("Near", 0.0, step=0.01, visible=False)
            self._far = gui.add_number("Far", 1.0, step=0.01, visible=False)
            self._own = gui.add_checkbox("Backdrop", False)
            self._background = gui.add_rgb("Colour", (255, 255, 255), visible=False)
            self._line = gui.add_html("")
        for control in (self._mode, self._order, self._depth, self._automatic, self._near, self._far):
            control.on_update(lambda _: self._wished())
        for control in (self._own, self._background):
            control.on_update(lambda _: self._wished())
        self._ticker = Ticker("picture", LOOK_AGAIN, self._look_again)

    def refresh(self) -> None:
        """See `Panel`."""
        look = self._view.look
        if _wishes(look) == self._known:
            return  # a control that was moved a moment ago, and is not looked at yet, keeps its value
        self._known = _wishes(look)
        with self._quiet:
            if LABELS[look.mode] in self._mode.options:
                self._mode.value = LABELS[look.mode]
            self._order.value = next(label for label, order in ORDERS.items() if order == look.order)
            self._depth.value = next(label for label, which in DEPTHS.items() if which == look.depth)
            self._automatic.value = look.depth_range is None
            if look.depth_range is not None:
                self._near.value, self._far.value = look.depth_range
            self._own.value = look.background is not None
        self._show_what_matters()

    def state(self) -> dict[str, Any]:
        """See `Panel`. `legend` is that of the last picture: `smalti.viewer.modes.Painted`."""
        look, picture = self._view.look, self._view.picture
        return {
            "mode": look.mode,
            "order": look.order,
            "depth": look.depth,
            "depth_range": None if look.depth_range is None else list(look.depth_range),
            "background": None if look.background is None else list(look.background),
            "legend": {} if picture is None else picture.legend,
        }

    def close(self) -> None:
        """See `Panel`."""
        self._ticker.stop()

    # -- wishes -------------------------------------------------------------------------------------------------------
    def _wished(self) -> None:
        if self._quiet:
            return
        with telling(self._view, "Picture"):
            mode = next(mode for mode, label in LABELS.items() if label == self._mode.value)
            before = self._view.look
            if mode == "depth" and not self._automatic.value and before.depth_range is None:
                self._take_range()
            depth_range = None
            if not self._automatic.value:
                depth_range = (float(self._near.value), float(self._far.value))
                if not depth_range[0] < depth_range[1]:
                    raise ValueError(f"the range of depths runs from near to far, not {depth_range}")
            background = cast(tuple[float, float, float], tuple(part / 255 for part in self._background.value))
            self._view.change(
                mode=mode,
                order=ORDERS[self._order.value],
                depth=DEPTHS[self._depth.value],
                depth_range=depth_range,
                background=background if self._own.value else None,
            )
            self._known = _wishes(self._view.look)
        self._show_what_matters()

    def _take_range(self) -> None:
        """Held where it is now."""
        picture = self._view.picture
        legend = {} if picture is None else picture.legend
        if "near" in legend:
            with self._quiet:
                self._near.value, self._far.value = round(legend["near"], 4), round(legend["far"], 4)

    def _show_what_matters(self) -> None:
        look = self._view.look
        for control in (self._depth, self._automatic):
            control.visible = look.mode == "depth"
        for control in (self._near, self._far):
            control.visible = look.mode == "depth" and not self._automatic.value
        self._background.visible = self._own.value

    # -- what there is to see -----------------------------------------------------------------------------------------
    def _look_again(self) -> bool:
        view = self._view
        picture = view.picture
        if view.closed:
            return False
        if picture is not None and not picture.failed:
            content = small(*_words(picture))
            if content != self._told:
                self._told = self._line.content = content
        return True


def _wishes(look: Look) -> tuple[Any, ...]:
    """What of a look this panel is about."""
    return look.mode, look.order, look.depth, look.depth_range, look.background


def _words(picture: Picture) -> list[str]:
    canvas = picture.look.camera
    kind = "exact" if picture.lossless and (picture.width, picture.height) == (canvas.width, canvas.height) else "quick"
    size = f"{picture.width} × {picture.height}"
    lines = [f"{size} · {1e3 * picture.seconds:.0f} ms · {kind}{', lossless' if picture.lossless else ''}"]
    return lines + _legend_lines(picture.legend)


def _legend_lines(legend: dict[str, Any]) -> list[str]:
    """How to read the picture, as HTML."""
    lines: list[str] = []
    if "near" in legend:
        lines.append(f"{legend['which']} depth, near (red) {legend['near']:.4g} to far (blue) {legend['far']:.4g}")
    if legend.get("from_depth", 0.0) > 0.01:
        lines.append(f"{legend['from_depth']:.0%} of the normals are those of the depth")
    lines += [f"{swatch(color)} {escape(name)}" for name, color in legend.get("layers", {}).items()]
    if "least" in legend:
        least, most = legend["least"], legend["most"]
        lines.append(f"share of the picture's light, {least:.1e} (dark) to {most:.1e} (yellow), logarithmic")
    if "view" in legend:
        lines.append(f"drawn at the view {escape(legend['view'])}, not at this page's camera")
        psnr = legend.get("psnr")
        figures = "" if psnr is None else f", {psnr:.2f} dB as shown"
        if "error" in legend:
            lines.append(f"mean difference {legend['error']:.4f}{figures}; yellow from {legend['full']:g} on")
    if "truth" in legend:
        lines.append(f"left: the photograph {escape(legend['truth'])}")
    if "problem" in legend:
        lines.append(f"<b>{escape(legend['problem'])}</b>")
    return lines

"""Pages of scenes that are edited, for the tests of the panel that edits."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pages import Page, opened

from smalti.scene import (
    Scene,
    layer,
    move,
    set_opacity,
)
from smalti.viewer.stage import Stage

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "scene"))
from mixed import a_scene

OPEN = ("gaussians", "boxes", "superquadrics")
"""Without a mesh around them."""
MIXED = ("gaussians", "boxes", "meshes", "superquadrics")


def apart() -> Scene:
    """Blocks to the right, boxes to the left, splats between them."""
    scene = a_scene(*OPEN)
    move(scene, layer("superquadrics"), [0.5, 0.0, -0.3])
    move(scene, layer("boxes"), [-0.9, 0.0, -0.4])
    set_opacity(scene, layer("boxes"), 0.95)
    scene.history.clear()
    return scene


def point(page: Page, kind: str, *places: tuple[float, float], modifier: str | None = None) -> None:
    """A gesture of the mouse, in shares of the canvas."""
    ray = [0.0, 0.0, 1.0] if kind == "click" else None
    page.client.send(
        "ScenePointerMessage",
        event_type=kind,
        ray_origin=ray,
        ray_direction=ray,
        screen_pos=[list(each) for each in places],
        modifier=modifier,
    )


@contextmanager
def page_of(scene: Scene) -> Iterator[Page]:
    """A page that shows the panel."""
    with opened(Stage(scene), position=(0.0, 0.0, -3.4)) as page:
        page.until(lambda: page.find("Edit", "Download", "The selection"))
        yield page


def use(page: Page, tool: str, **settings: Any) -> None:
    page.set("Edit", "Select", "Tool", to=tool.capitalize())
    for label, value in settings.items():
        page.set("Edit", "Select", label.replace("_", " "), to=value)
    page.until(lambda: page.state("edit")["tool"] == tool)
    wanted = {"click": "click", "lasso": "click", "box": "rect-select"}.get(tool)
    page.until(lambda: wanted is None or enabled(page, wanted), f"the page may not {tool}")


def enabled(page: Page, kind: str) -> bool:
    sent = [each for each in page.sent if each["type"] == "ScenePointerEnableMessage" and each["event_type"] == kind]
    return bool(sent) and bool(sent[-1]["modifiers"])


def selected(page: Page) -> dict[str, int]:
    return page.state("edit")["selected"]


def wait_selected(page: Page, wanted: dict[str, int]) -> None:
    page.until(lambda: selected(page) == wanted, f"{wanted} selected, not {selected(page)}")


def choose(page: Page, selection: Any) -> None:
    """As if it had been selected by hand."""
    page.panel("edit").select(selection, "replace")


def seen_at(scene: Scene, page: Page) -> list[tuple[float, float, str, int]]:
    """By the oracle's word: (x, y as shares, layer, primitive) of some pixels where one primitive prevails."""
    camera, found = page.view.look.camera, list[tuple[float, float, str, int]]()
    rows = [(held.name, row) for held in scene for row in _drawn_rows(held.family, camera)]
    for y in range(4, camera.height, 9):
        for x in range(4, camera.width, 9):
            settings = scene.settings(statistics=True)
            with torch.no_grad():
                frame = scene.render(camera.cropped(x, y, 1, 1), settings=settings, backend="oracle")
            assert frame.contribution_sum is not None
            first, second = frame.contribution_sum.topk(2).values.tolist()
            if first > second + 0.05:
                name, row = rows[int(frame.contribution_sum.argmax())]
                found.append(((x + 0.5) / camera.width, (y + 0.5) / camera.height, name, row))
    return found


def _drawn_rows(family: Any, camera: Any) -> list[int]:
    owners = family.owners()
    return list(range(len(family))) if owners is None else owners.tolist()

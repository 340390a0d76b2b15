"""The panel of edits: what is selected is what was pointed at, each gesture is one edit, and undoing it gives the bytes
back.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest
import torch
from edited_pages import MIXED, OPEN, apart, choose, enabled, page_of, point, seen_at, use, wait_selected
from pages import Page, PageClient

from smalti.cameras.similarity import Similarity
from smalti.files import read_scene_file
from smalti.scene import (
    Scene,
    connected,
    delete,
    demo_scene,
    duplicate,
    flood,
    in_polygon,
    in_rectangle,
    index,
    middle,
    move,
    transform,
    where,
)
from smalti.viewer.downloads import bytes_of, part_of
from smalti.viewer.panels.edit import Edit
from smalti.viewer.picking import pick, usual_distance

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "scene"))
from mixed import a_scene, in_bytes


def test_a_click_selects_what_is_seen_there() -> None:
    scene = apart()
    with page_of(scene) as page:
        spots = seen_at(scene, page)
        assert {name for *_, name, _ in spots} == set(OPEN)
        use(page, "click", Click_takes="Primitive")
        for x, y, name, row in spots[:: max(len(spots) // 8, 1)]:
            point(page, "click", (x, y))
            wait_selected(page, {name: 1})
            page.until(lambda name=name, row=row: chosen_rows(page, scene, name) == [row])
        assert not page.problems()
        assert not scene.history.done


def chosen_rows(page: Page, scene: Scene, name: str) -> list[int]:
    selection = page.view.selected
    return [] if selection is None else torch.nonzero(selection.masks(scene)[name]).squeeze(1).tolist()


def test_clicks_take_layers_and_what_hangs_together_and_keys_combine_them() -> None:
    scene = apart()
    with page_of(scene) as page:
        spots = {name: (x, y, row) for x, y, name, row in seen_at(scene, page)}
        use(page, "click", Click_takes="Layer")
        x, y, _ = spots["boxes"]
        point(page, "click", (x, y))
        wait_selected(page, {"boxes": 4})
        x, y, _ = spots["superquadrics"]
        point(page, "click", (x, y), modifier="shift")
        wait_selected(page, {"boxes": 4, "superquadrics": 3})
        point(page, "click", (x, y), modifier="cmd/ctrl")
        wait_selected(page, {"boxes": 4})
        before = page.view.look.camera
        page.client.look(position=(0.0, 0.0, -9.0), wxyz=(0.0, 0.0, 1.0, 0.0))  # the other way
        page.until(lambda: page.view.look.camera is not before)
        point(page, "click", (0.5, 0.5))
        wait_selected(page, {})
        page.client.look(position=(0.0, 0.0, -3.4))
        page.until(lambda: torch.equal(page.view.look.camera.rotation, before.rotation))
        page.set("Edit", "Select", "Click takes", to="Connected")
        page.set("Edit", "Select", "Reach", to=0.7)
        x, y, row = spots["gaussians"]
        wanted = {k: n for k, n in connected(index("gaussians", [row]), 0.7).counts(scene).items() if n}
        assert 1 < sum(wanted.values()) < len(scene)
        page.until(lambda: page.panel("edit")._distance.value == 0.7 and page.panel("edit")._takes.value == "Connected")
        point(page, "click", (x, y))
        wait_selected(page, wanted)


def test_boxes_and_lassos_select_with_and_without_what_is_hidden() -> None:
    scene = a_scene(*MIXED)
    with page_of(scene) as page:
        camera = page.view.look.camera
        low, high = (0.3, 0.25), (0.7, 0.8)
        corners = (low[0] * camera.width, low[1] * camera.height, high[0] * camera.width, high[1] * camera.height)
        counts = [
            {k: n for k, n in in_rectangle(camera, *corners, occluded=through).counts(scene).items() if n}
            for through in (False, True)
        ]
        assert 0 < sum(counts[0].values()) < sum(counts[1].values())
        # Once: a tool that is chosen anew is away for a moment, and a gesture then is lost.
        use(page, "box")
        for through, wanted in zip((False, True), counts, strict=True):
            page.set("Edit", "Select", "Behind, too", to=through)
            page.until(lambda through=through: page.panel("edit")._through.value == through)
            point(page, "rect-select", low, high)
            wait_selected(page, wanted)
        outline = [(0.25, 0.2), (0.75, 0.2), (0.5, 0.9)]
        pixels = [(x * camera.width, y * camera.height) for x, y in outline]
        wanted = {k: n for k, n in in_polygon(camera, pixels).counts(scene).items() if n}
        assert wanted not in ({}, counts[1])
        use(page, "lasso")
        for number, corner in enumerate(outline):
            point(page, "click", corner)
            page.until(lambda number=number: len(page.state("edit")["lasso"]) == number + 1)
        page.until(lambda: "/smalti/lasso" in page.nodes)
        page.press("Edit", "Select", "Close lasso")
        wait_selected(page, wanted)
        page.until(lambda: "/smalti/lasso" not in page.nodes)
        page.press("Edit", "Select", "Close lasso")
        page.until(page.problems)
        assert "three corners" in page.problems()[0]
        assert page.state("edit")["gizmo"] is None  # the handles would catch the corners' clicks
        use(page, "look around")
        page.until(lambda: page.state("edit")["gizmo"] is not None)
        page.until(lambda: not enabled(page, "click"))


def test_a_lasso_that_is_dropped_while_a_corner_is_drawn_leaves_no_line() -> None:
    with page_of(a_scene(*MIXED)) as page:
        pointer, camera = page.panel("edit")._pointer, page.view.look.camera
        use(page, "lasso")
        for _ in range(20):
            pointer._add_corner(camera, 3.0, 4.0)
            works = [
                threading.Thread(target=pointer._add_corner, args=(camera, 5.0, 6.0)),
                threading.Thread(target=pointer.drop),
            ]
            for work in works:
                work.start()
            for work in works:
                work.join()
            assert (pointer._line is None) == (not pointer.corners)
            pointer.drop()
        page.client.look()
        page.until(lambda: "/smalti/lasso" not in page.nodes)


def test_all_none_invert_faint_and_growing() -> None:
    scene = a_scene(*MIXED)
    everyone = scene.counts()
    with page_of(scene) as page:
        page.set("Edit", "Select", "", to="All")
        wait_selected(page, everyone)
        page.until(lambda: "34 primitives selected" in page.text("Edit"))
        page.set("Edit", "Select", "", to="None")
        wait_selected(page, {})
        choose(page, index("gaussians", [0, 1]))
        page.set("Edit", "Select", "", to="Invert")
        wait_selected(page, {**everyone, "gaussians": 5})
        page.set("Edit", "Select", "Opacity below", to=0.75)
        page.press("Edit", "Select", "Select faint")
        wait_selected(page, {k: n for k, n in where("opacity", "<", 0.75).counts(scene).items() if n})
        choose(page, index("gaussians", [0]))
        page.set("Edit", "Select", "Reach", to=0.4)
        page.until(lambda: page.panel("edit")._distance.value == 0.4)
        page.press("Edit", "Select", "Grow")
        wait_selected(page, {k: n for k, n in connected(index("gaussians", [0]), 0.4).counts(scene).items() if n})
        choose(page, index("gaussians", [0]))
        page.set("Edit", "Select", "Reach", to=5.0)
        page.set("Edit", "Select", "Likeness", to=0.3)
        page.until(lambda: page.panel("edit")._tolerance.value == 0.3 and page.panel("edit")._distance.value == 5.0)
        alike = {k: n for k, n in flood(index("gaussians", [0]), 0.3, 5.0).counts(scene).items() if n}
        assert 1 < sum(alike.values()) < len(scene)
        page.press("Edit", "Select", "Flood")
        wait_selected(page, alike)


def drag(page: Page, wxyz: list[float], position: list[float]) -> None:
    node = page.nodes["/smalti/selected"]
    told = {"name": "/smalti/selected", "owner": node.get("owner", "")}
    page.client.send("TransformControlsDragStartMessage", **told)
    half = [0.5 * (a + b) for a, b in zip(position, page.state("edit")["gizmo"], strict=True)]
    for place in (half, position):
        page.client.send("TransformControlsUpdateMessage", wxyz=wxyz, position=place, **told)
    page.client.send("TransformControlsDragEndMessage", **told)


@pytest.mark.parametrize("turned", [False, True])
def test_a_drag_of_the_handles_is_one_edit_and_equals_it(turned: bool) -> None:
    scene, twin = a_scene(*MIXED), a_scene(*MIXED)
    before = in_bytes(scene)
    chosen = index("gaussians", [1, 4]) | index("boxes", [0]) | index("superquadrics", [2])
    with page_of(scene) as page:
        choose(page, chosen)
        page.until(lambda: "/smalti/selected/box" in page.nodes)
        pivot = middle(twin, chosen)
        assert page.state("edit")["gizmo"] == pytest.approx(pivot.tolist())
        goal = [value + shift for value, shift in zip(pivot.tolist(), (0.2, -0.1, 0.05), strict=True)]
        wxyz = [0.8, 0.0, 0.6, 0.0] if turned else [1.0, 0.0, 0.0, 0.0]
        drag(page, wxyz, goal)
        page.until(lambda: scene.history.done)
        cosine, sine = 0.8**2 - 0.6**2, 2 * 0.8 * 0.6
        turn = torch.tensor([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]], dtype=torch.float64)
        rotation = turn if turned else torch.eye(3, dtype=torch.float64)
        place = torch.tensor(goal, dtype=torch.float64)
        transform(twin, chosen, Similarity(rotation=rotation, translation=place - rotation @ pivot))
        assert [edit.name for edit in scene.history.done] == ["rotate" if turned else "move"]
        for one, other in zip(scene, twin, strict=True):
            for key, value in one.family.parameters.items():
                torch.testing.assert_close(value, other.family.parameters[key], rtol=1e-5, atol=1e-6)
        assert in_bytes(scene) != before
        # The handles stand upright at the new middle, with the same primitives.
        wait_selected(page, {"gaussians": 2, "boxes": 1, "superquadrics": 1})
        page.until(lambda: page.state("edit")["gizmo"] == pytest.approx(middle(twin, chosen).tolist(), abs=1e-5))
        page.press("Edit", "Change", f"Undo: {'rotate' if turned else 'move'}")
        page.until(lambda: not scene.history.done)
        assert in_bytes(scene) == before
        page.until(lambda: page.state("edit")["gizmo"] == pytest.approx(pivot.tolist()))
        page.set("Edit", "Change", "Handles", to=False)
        page.until(lambda: "/smalti/selected" not in page.nodes)
        assert not page.problems()


def test_a_pose_that_is_none_and_a_locked_layer_are_problems_and_change_nothing() -> None:
    scene = a_scene(*MIXED)
    with page_of(scene) as page:
        choose(page, index("gaussians", [1, 4]))
        page.until(lambda: "/smalti/selected" in page.nodes)
        before = in_bytes(scene)
        drag(page, [0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0])
        page.until(lambda: any("no pose" in text for text in page.problems()))
        assert in_bytes(scene) == before
        scene["gaussians"].locked = True
        before = in_bytes(scene)
        page.until(lambda: not page.panel("edit")._gizmo.dragging)
        drag(page, [1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0])
        page.until(lambda: any("locked" in text for text in page.problems()))
        page.set("Edit", "Change", "", to="Delete")
        page.until(lambda: sum("locked" in text for text in page.problems()) == 2)
        assert in_bytes(scene) == before
        assert [edit.name for edit in scene.history.done] == ["locked"]


def test_every_button_is_one_edit_and_undoing_them_all_gives_the_bytes_back() -> None:
    scene = a_scene(*MIXED)
    before = in_bytes(scene)
    with page_of(scene) as page:
        page.until(lambda: page.find("Edit", "Change", "Factor"))
        chosen = index("gaussians", [0, 2, 5]) | index("boxes", [1])

        def done(*names: str) -> None:
            page.until(lambda: page.state("edit")["undo"] == list(names), f"{names}, not {page.state('edit')['undo']}")

        page.set("Edit", "Change", "", to="Delete")
        page.until(lambda: page.problems() == ["delete: nothing is selected"])
        choose(page, chosen)
        page.set("Edit", "Change", "", to="Duplicate")
        done("duplicate")
        assert scene.counts() == {"gaussians": 10, "boxes": 5, "meshes": 20, "superquadrics": 3}
        assert chosen_rows(page, scene, "gaussians") == [7, 8, 9]
        page.set("Edit", "Change", "Factor", to=0.5)
        page.press("Edit", "Change", "Scale")
        done("duplicate", "scale")
        page.set("Edit", "Change", "Opacity", to=0.5)
        page.press("Edit", "Change", "Set opacity")
        done("duplicate", "scale", "opacity")
        assert scene.layers["gaussians"].family.opacities()[7:].tolist() == pytest.approx([0.5] * 3, abs=1e-5)
        page.set("Edit", "Change", "Tint", to=[255, 128, 0])
        page.press("Edit", "Change", "Multiply colours")
        done("duplicate", "scale", "opacity", "tint")
        page.set("Edit", "Change", "New layer", to="toy")
        page.press("Edit", "Change", "Split off")
        done("duplicate", "scale", "opacity", "tint", "split")
        assert scene.counts()["toy-gaussians"] == 3
        wait_selected(page, {"toy-gaussians": 3, "toy-boxes": 1})
        page.set("Edit", "Change", "New layer", to="toy/part")
        page.press("Edit", "Change", "Split off")
        page.until(lambda: len(page.problems()) == 2)
        assert "slash" in page.problems()[1]
        page.set("Edit", "Change", "", to="Delete")
        done("duplicate", "scale", "opacity", "tint", "split", "delete")
        wait_selected(page, {})
        for name in ("delete", "split", "tint", "opacity", "scale", "duplicate"):
            page.until(lambda name=name: page.find("Edit", "Change", f"Undo: {name}"))
            page.press("Edit", "Change", f"Undo: {name}")
            page.until(lambda name=name: page.state("edit")["redo"][:1] == [name])
        assert in_bytes(scene) == before
        page.until(lambda: page.find("Edit", "Change", "Redo: duplicate"))
        page.press("Edit", "Change", "Redo: duplicate")
        page.until(lambda: scene.counts()["gaussians"] == 10)
        page.press("Edit", "Change", "Forget edits")
        page.until(lambda: not scene.history.done)


def test_two_clients_edit_one_scene_with_one_history() -> None:
    scene = a_scene(*MIXED)
    before = in_bytes(scene)
    with page_of(scene) as page, PageClient(page.viewer.url, 80, 60) as other:
        other.look(position=(0.0, 0.0, -3.0))
        page.until(lambda: len(page.viewer.views()) == 2 and all(view.panels for view in page.viewer.views()))
        found = [panel for view in page.viewer.views() for panel in view.panels if isinstance(panel, Edit)]
        mine, theirs = found
        mine.select(index("gaussians", [1, 3, 6]), "replace")
        theirs.select(index("gaussians", [0, 1]), "replace")
        theirs.change("delete", delete)
        page.until(lambda: mine.state()["selected"] == {"gaussians": 2})
        kept = page.view.selected
        assert kept is not None
        assert torch.nonzero(kept.masks(scene)["gaussians"]).squeeze(1).tolist() == [1, 4]  # those that were 3 and 6
        assert theirs.state()["selected"] == {}
        page.until(lambda: page.find("Edit", "Change", "Undo: delete"))
        page.press("Edit", "Change", "Undo: delete")
        page.until(lambda: in_bytes(scene) == before)
        page.until(lambda: theirs.state()["redo"] == ["delete"])
        assert chosen_rows(page, scene, "gaussians") == [3, 6]
        assert page.viewer.state()["scene"]["history"]["undone"] == ["delete"]


def downloaded(page: Page) -> bytes:
    """The file that came last."""
    starts = [k for k, each in enumerate(page.sent) if each["type"] == "FileTransferStartDownload"]
    if not starts:
        return b""
    start = starts[-1]
    uuid = page.sent[start]["transfer_uuid"]
    parts = [each for each in page.sent[start:] if each["type"] == "FileTransferPart" and each["transfer_uuid"] == uuid]
    return b"".join(bytes(each["content"]) for each in sorted(parts, key=lambda each: each["part_index"]))


def test_what_is_downloaded_reads_back(tmp_path: Path) -> None:
    scene = a_scene("gaussians", "meshes")
    scene["meshes"].visible = False
    with page_of(scene) as page:
        page.until(lambda: page.find("Edit", "Download", "Format"))

        def taken(extension: str, what: str) -> Path:
            page.set("Edit", "Download", "Format", to=extension)
            page.until(lambda: page.panel("edit")._format.value == extension)
            page.panel("edit")._downloaded = None
            page.press("Edit", "Download", what)
            told = page.until(lambda: page.state("edit")["downloaded"])
            page.until(lambda: len(downloaded(page)) == told["bytes"])
            path = tmp_path / told["name"]
            path.write_bytes(downloaded(page))
            return path

        assert len(read_scene_file(taken(".ply", "What is visible"))) == 7
        choose(page, index("gaussians", [2, 5]) | index("meshes", [0, 1]))
        part = read_scene_file(taken(".ply", "The selection"))
        wanted = scene.layers["gaussians"].family.parameters["means"][[2, 5]]
        torch.testing.assert_close(torch.from_numpy(part.means), wanted.detach())
        assert len(read_scene_file(taken(".spz", "The selection"))) == 2
        again = Scene.load(taken(".smalti", "What is visible"))
        assert again.counts() == {"gaussians": 7}
        with page.view.stage.changing():
            scene["meshes"].visible = True
        page.set("Edit", "Download", "Format", to=".ply")
        page.press("Edit", "Download", "What is visible")
        page.until(page.problems)  # not both in one such file
        assert "download" in page.problems()[0]
    content, _ = bytes_of(part_of(scene, index("meshes", list(range(5)))), ".glb")
    assert content[:4] == b"glTF"


def test_picking_off_the_canvas_and_in_an_empty_place_finds_nothing() -> None:
    scene = demo_scene()
    with page_of(scene) as page:
        camera = page.view.look.camera
        for x, y in ((-50.0, 3.0), (1e6, 2.0), (3.0, 1e6)):
            assert pick(scene, camera, x, y) is None
        scene["chair"].visible = scene["cloud"].visible = False
        assert pick(scene, camera, 48, 32) is None
    assert usual_distance(Scene()) == 1.0
    grid = demo_scene()
    delete(grid, index("cloud", list(range(12))))
    assert usual_distance(grid) == pytest.approx(1.0)
    duplicate(grid, index("chair", [0]))
    move(grid, index("chair", [0]), [0.25, 0.0, 0.0])
    assert usual_distance(grid) == pytest.approx(1.0)

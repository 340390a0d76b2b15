"""The panel of a training: its buttons steer it, its figures are the training's."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from pages import Page, opened

from smalti.scene import delete, index
from smalti.trainers import loop
from smalti.trainers.checkpoints import checkpoint_steps
from smalti.viewer.live import Live
from smalti.viewer.stage import Stage

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from live_runs import Silent, a_trainer, require_aligned

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@contextmanager
def trained(folder: Path, steps: int = 400) -> Iterator[tuple[Live, Page]]:
    """A paused training with a page; it is let go at the end."""
    trainer = a_trainer(folder, run__steps=steps)
    live = Live(trainer, "a training")
    live.pause()
    thread = threading.Thread(target=loop.train, args=(trainer, Silent(), live), daemon=True)
    with opened(live.stage) as page:
        thread.start()
        page.until(lambda: page.find("Training", "Save a checkpoint now"))
        try:
            yield live, page
        finally:
            trainer.config.run.steps = trainer.step_number + 1
            live.go_on()
            thread.join(60)
            assert not thread.is_alive()
            assert not page.problems()


def test_buttons_pause_step_save_and_go_on(tmp_path: Path) -> None:
    with trained(tmp_path / "run") as (live, page):
        page.until(lambda: "waiting" in page.text("Training"))
        for wanted in (1, 2):
            page.press("Training", "One step")
            page.until(lambda wanted=wanted: page.state("training").get("step") == wanted)
        assert page.state("training")["paused"] is True
        page.press("Training", "Save a checkpoint now")
        page.until(lambda: any("000002" in line["text"] for line in page.view.said))
        assert checkpoint_steps(live.trainer.run.path) == [2]
        page.press("Training", "Go on")
        page.until(lambda: page.state("training")["step"] > 12)
        page.until(lambda: "steps/s" in page.text("Training"))
        page.press("Training", "Pause")
        page.until(lambda: live.state()["waiting"])
        assert page.viewer.state()["training"]["step"] == live.trainer.step_number
        step = live.trainer.step_number
        page.until(lambda: f"step {step:,} of 400" in page.text("Training"))
        page.until(lambda: f"{live.state()['psnrs'][-1][1]:.2f} dB" in page.text("Training"))


def test_curves_show_what_the_training_told(tmp_path: Path) -> None:
    with trained(tmp_path / "run") as (live, page):
        live.go_on()
        page.until(lambda: live.state()["step"] >= 25)
        live.pause()
        page.until(lambda: live.state()["waiting"])
        curves = {c["title"]: k for k, c in page.controls.items() if c["type"] == "GuiUplotMessage"}
        assert len(curves) == 3

        def shown(title: str) -> np.ndarray:
            data = page.controls[curves[title]]["data"]
            return np.stack([np.frombuffer(bytes(each), dtype=np.float64) for each in data])

        told = live.state()
        for title, key in (("loss", "losses"), ("PSNR of the steps, dB", "psnrs")):
            page.until(lambda title=title, key=key: shown(title).shape[1] == len(told[key]))
            np.testing.assert_allclose(shown(title).T, np.array(told[key]))
            assert page.controls[curves[title]]["visible"] is True


def test_an_edit_from_the_page_is_followed_and_trained_on(tmp_path: Path) -> None:
    with trained(tmp_path / "run") as (live, page):
        page.press("Training", "One step")
        page.until(lambda: live.state()["step"] == 1)
        (name,) = live.stage.scene.layers
        count = len(live.stage.scene)
        page.panel("edit").select(index(name, list(range(30))))
        page.panel("edit").change("delete", delete)
        assert len(live.stage.scene) == count - 30
        require_aligned(live.trainer)
        assert live.trainer.adam.counts[f"{name}/means"] == 1
        page.press("Training", "One step")
        page.until(lambda: live.state()["step"] == 2)
        assert live.trainer.adam.counts[f"{name}/means"] == 2
        page.until(lambda: page.find("Edit", "Change", "Undo: delete"))
        page.press("Edit", "Change", "Undo: delete")
        page.until(lambda: len(live.stage.scene) == count)
        page.press("Training", "One step")
        page.until(lambda: live.state()["step"] == 3)
        require_aligned(live.trainer)


def test_without_a_training_there_is_no_folder() -> None:
    from smalti.scene import demo_scene

    with opened(Stage(demo_scene())) as page:
        page.until(lambda: page.find("Edit", "Download", "The selection"))
        assert page.state("training") == {}
        assert not [c for c in page.controls.values() if c.get("label") == "Training"]

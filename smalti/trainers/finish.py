"""The end of a run: figures, curves, comparison sheet, scene file, video, as `run.finish` lists them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from smalti.trainers import evaluation
from smalti.trainers.trainer import Trainer

if TYPE_CHECKING:
    from smalti.scene.parts import Parts
    from smalti.trainers.part_pictures import Stand

VIDEO_FRAMES = 90


class Finish:
    """Makes the parts one by one; the figures are measured once, whoever needs them first."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, self.run = trainer, trainer.run
        self._result: evaluation.Evaluation | None = None
        self.makers: dict[str, Callable[[], list[str]]] = {
            "evaluation": self.evaluation,
            "curves": self.curves,
            "sheet": self.sheet,
            "export": self.export,
            "video": self.video,
            "parts": self.parts,
            "turntable": self.turntable,
            "exploded": self.exploded,
            "flat": self.flat,
        }

    def result(self) -> evaluation.Evaluation:
        """The held-out views (all views where none is held out), by the function that `smalti eval` uses."""
        if self._result is None:
            trainer = self.trainer
            protocol = evaluation.protocol_for(trainer.config.data, trainer.dataset)
            rows = trainer.test_rows or trainer.train_rows
            self._result = evaluation.evaluate(trainer.scene, trainer.cache, rows, protocol, backend=trainer.backend)
        return self._result

    def evaluation(self) -> list[str]:
        """Figures on paper, and one more record in metrics.jsonl."""
        trainer, result = self.trainer, self.result()
        which = "held-out" if trainer.test_rows else "training"
        path = self.run.path / "evaluation.json"
        loss = {"perceptual": trainer.perceptual_kind}
        values = {"step": trainer.step_number, "views": which, **loss, **result.to_json()}
        path.write_text(json.dumps(values, indent=1), encoding="utf-8")
        if trainer.test_rows and not self._is_recorded():
            clock = {"cpu_seconds": round(trainer.clock.cpu, 3), "wall_seconds": round(trainer.clock.wall, 3)}
            facts = {**clock, "primitives": len(trainer.scene), "layers": trainer.scene.counts(), **loss}
            self.run.record({"kind": "evaluation", "step": trainer.step_number, **facts, **result.mean})
        said = [] if trainer.perceptual is None else [f"trained with the {trainer.perceptual.describe()}"]
        return [f"{which} views:", *said, *result.lines(per_view=False), f"figures per view: {path}"]

    def _is_recorded(self) -> bool:
        """Whether these figures are in metrics.jsonl already: the run was finished before and is finished again."""
        last = [each for each in self.run.metrics() if each["kind"] == "evaluation"][-1:]
        return bool(last) and last[0]["step"] == self.trainer.step_number

    def curves(self) -> list[str]:
        """Learning curves."""
        from smalti.trainers.sheets import draw_curves

        path = self.run.path / "curves.png"
        draw_curves(path, self.run.metrics())
        return [f"learning curves: {path}"]

    def sheet(self) -> list[str]:
        """Truth, render, error."""
        from smalti.trainers.sheets import comparison_sheet

        path = self.run.path / "comparison.png"
        comparison_sheet(path, self.trainer.scene, self.trainer.cache, self.result(), backend=self.trainer.backend)
        return [f"comparison sheet: {path}"]

    def export(self) -> list[str]:
        """The scene as a file for other programs, in the input's frame."""
        from smalti.scene.contents import contents
        from smalti.scene.exchange import export_scene
        from smalti.scene.folder import save_scene

        scene, path = self.trainer.scene, self.run.path
        size = save_scene(scene, path / "scene")
        lines = [f"scene folder: {path / 'scene'} ({contents(scene)}, {size / 1e6:.1f} MB)"]
        names = [layer.name for layer in scene.visible_layers() if layer.family.is_splats]
        if not names:
            return lines
        try:
            done = export_scene(scene, path / "scene.ply", names)
        except ValueError as error:
            return [*lines, f"scene file: not made: {error}"]
        part = "" if len(names) == len(scene.layers) else f", layers {', '.join(names)} alone"
        return [*lines, f"scene file: {done.path} ({done.primitives:,} primitives, {done.bytes / 1e6:.1f} MB{part})"]

    def video(self) -> list[str]:
        """An orbit."""
        from smalti.trainers.pictures import path_cameras, render_path, write_video

        trainer, path = self.trainer, self.run.path / "orbit.mp4"
        cameras = path_cameras(trainer.cameras, "orbit", VIDEO_FRAMES)
        background = trainer.scene.background or (0.0, 0.0, 0.0)
        write_video(path, render_path(trainer.scene, cameras, background, backend=trainer.backend))
        return [f"video: {path}"]

    def parts(self) -> list[str]:
        """A closed, textured mesh of each separate part, all in one file, and their assembly."""
        from smalti.scene.exchange_parts import export_parts

        done = export_parts(self.trainer.scene, self.run.path / "parts", beside=self.run.path)
        return [str(done), *(f"  note: {notice}" for notice in done.notices)]

    def turntable(self) -> list[str]:
        """The parts alone, turned about."""
        from smalti.trainers import part_pictures
        from smalti.trainers.pictures import write_video

        parts, stand = self._taken_apart()
        path, backend = self.run.path / "turntable.mp4", self.trainer.backend
        cameras = part_pictures.turntable_cameras(parts, stand, VIDEO_FRAMES)
        write_video(path, part_pictures.picture_frames(parts.alone, cameras, backend=backend))
        return [f"turntable: {path}"]

    def exploded(self) -> list[str]:
        """The parts moved apart: a picture, and a video where one can be written."""
        from smalti.trainers import part_pictures
        from smalti.trainers.pictures import VideoUnavailable, write_video

        parts, stand = self._taken_apart()
        path, backend = self.run.path / "exploded.png", self.trainer.backend
        part_pictures.draw_exploded(path, parts, stand, backend=backend)
        film = path.with_suffix(".mp4")
        try:
            write_video(film, part_pictures.exploding_frames(parts, stand, backend=backend))
        except VideoUnavailable as error:
            return [f"exploded view: {path}", f"its video was not made: {error}"]
        return [f"exploded view: {path}, {film.name}"]

    def flat(self) -> list[str]:
        """The parts in flat colours over some of the training photographs."""
        from smalti.trainers.flat_pictures import chosen_views, draw_flat

        trainer, path = self.trainer, self.run.path / "flat.png"
        parts, _ = self._taken_apart()
        rows = chosen_views(trainer.train_rows)
        draw_flat(path, trainer.scene, parts, trainer.cache, rows, trainer.backend)
        return [f"parts in flat colours: {path}"]

    def _taken_apart(self) -> tuple[Parts, Stand]:
        from smalti.scene.parts import parts_of
        from smalti.trainers.part_pictures import stand_of

        parts = parts_of(self.trainer.scene)
        return parts, stand_of(parts, self.trainer.cameras)


def finish(trainer: Trainer, begin: Callable[[str], None] | None = None) -> list[str]:
    """Make all that `run.finish` lists; returns lines to show. What cannot be made is said and does not stop the
    rest. `begin` is called with the name of each before it is made.
    """
    parts, lines = Finish(trainer), []
    for name in trainer.config.run.finish:
        if begin is not None:
            begin(name)
        try:
            with trainer.clock:  # the training is over: records of what it took stay as they are
                lines += parts.makers[name]()
        except (ImportError, OSError, RuntimeError, ValueError, NotImplementedError) as error:
            lines.append(f"{name}: not made: {error}")
    return lines

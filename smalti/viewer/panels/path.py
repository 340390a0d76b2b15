"""A camera path: key frames, its spline in the scene, played on the page, taken away as a film or as a file."""

from __future__ import annotations

import re
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from smalti.cameras.rotations import quaternion_from_matrix
from smalti.viewer.fitting import fitted
from smalti.viewer.key_frames import Cancelled, KeyFrames, film
from smalti.viewer.panels.controls import Quiet, Ticker, bytes_in_words, in_words, small, telling

if TYPE_CHECKING:
    from smalti.cameras.camera import Camera
    from smalti.viewer.client import ClientView

PLAYED_FPS = 20.0
"""Of the page's own camera while the path is played."""
MOST_PLAYED = 2000
"""Cameras of a preview: longer paths are played in larger steps."""
LONGEST = 8192
"""Pixels of a side of a film."""
MOST_FRAMES = 20_000
"""Of a film."""
TOLD_EVERY = 0.2
"""Seconds between two lines of progress."""
LINE_POINTS = 24
"""Of the drawn spline, per key frame."""
COLOR = (200, 40, 90)


class CameraPath:
    """The panel; see the module. Callbacks of one client may run at once: `_lock` guards the key frames."""

    name = "path"

    def __init__(self, view: ClientView) -> None:
        self._view, gui = view, view.client.gui
        self._quiet, self._lock = Quiet(), threading.RLock()
        self._keys = KeyFrames()
        self._spline: list[Camera] = []
        self._nodes: list[Any] = []
        self._player: Ticker | None = None
        self._turn = threading.Lock()  # of two quick clicks one would leave a player that nobody stops
        self._film: threading.Thread | None = None
        self._cancelled = threading.Event()
        self._export: dict[str, Any] = {"running": False, "frame": 0, "frames": 0}
        with gui.add_folder("Camera path", expand_by_default=False):
            self._line = gui.add_html("")
            self._add = gui.add_button("Add key frame here")
            self._chosen = gui.add_slider("Key frame", 0, 1, 1, 0, visible=False)
            self._does = gui.add_button_group("This one", ["Go", "Replace", "Remove"], visible=False)
            self._moves = gui.add_button_group("Order", ["Earlier", "Later", "Clear"], visible=False)
            self._seconds = gui.add_number("Seconds between", self._keys.seconds, min=0.05, max=600.0, step=0.05)
            self._closed = gui.add_checkbox("Closed", False, hint="Back to the first key frame at the end")
            self._shown = gui.add_checkbox("Show path", True)
            self._play = gui.add_button_group("Preview", ["Play", "Stop"], visible=False)
            self._at = gui.add_slider("At", 0.0, 1.0, 0.001, 0.0, visible=False)
            self._fps = gui.add_number("Frames per second", 30.0, min=1.0, max=240.0, step=1.0)
            self._width = gui.add_number("Width", 0, min=0, max=LONGEST, step=2, hint="0: as the first key frame")
            self._render = gui.add_button("Export film (mp4)", visible=False)
            self._progress = gui.add_progress_bar(0.0, visible=False)
            self._cancel = gui.add_button("Cancel", visible=False)
            self._save = gui.add_button("Save path", visible=False, hint="For smalti render --trajectory, and to go on")
            self._load = gui.add_upload_button("Load path", mime_type="application/json")
        self._add.on_click(lambda _: self._added())
        self._chosen.on_update(lambda _: self._go(int(self._chosen.value)))
        self._does.on_click(lambda _: self._done(self._does.value))
        self._moves.on_click(lambda _: self._moved(self._moves.value))
        for control in (self._seconds, self._closed, self._shown):
            control.on_update(lambda _: self._set())
        self._play.on_click(lambda _: self._played(self._play.value == "Play"))
        self._at.on_update(lambda _: self._previewed())
        self._render.on_click(lambda _: self._exported())
        self._cancel.on_click(lambda _: self._cancelled.set())
        self._save.on_click(lambda _: self._saved())
        self._load.on_upload(lambda _: self._loaded())
        self._show()

    def refresh(self) -> None:
        """See `Panel`."""

    def state(self) -> dict[str, Any]:
        """See `Panel`."""
        with self._lock:
            return {
                "key_frames": len(self._keys.cameras),
                "chosen": int(self._chosen.value) if self._keys.cameras else None,
                "seconds": self._keys.seconds,
                "closed": self._keys.closed,
                "duration": self._keys.duration,
                "playing": self._player is not None and self._player.alive,
                "export": dict(self._export),
            }

    def close(self) -> None:
        """See `Panel`."""
        self._cancelled.set()
        if self._player is not None:
            self._player.stop()
        if self._film is not None and self._film is not threading.current_thread():
            self._film.join(timeout=10.0)
        self._nodes.clear()

    # -- key frames ---------------------------------------------------------------------------------------------------
    def _added(self) -> None:
        """Behind the one that is chosen."""
        with telling(self._view, "Camera path"), self._lock:
            place = int(self._chosen.value) + 1 if self._keys.cameras else 0
            self._keys.cameras.insert(place, self._view.look.camera)
            self._show(place)

    def _done(self, what: str) -> None:
        with telling(self._view, "Camera path"), self._lock:
            place = int(self._chosen.value)
            if not self._keys.cameras:
                return
            if what == "Go":
                self._go(place)
            elif what == "Replace":
                self._keys.cameras[place] = self._view.look.camera
                self._show(place)
            else:
                del self._keys.cameras[place]
                self._show(place - 1 if place else 0)

    def _moved(self, what: str) -> None:
        with telling(self._view, "Camera path"), self._lock:
            cameras, place = self._keys.cameras, int(self._chosen.value)
            if what == "Clear":
                cameras.clear()
                self._show(0)
                return
            other = place + (1 if what == "Later" else -1)
            if 0 <= other < len(cameras):
                cameras[place], cameras[other] = cameras[other], cameras[place]
                self._show(other)

    def _set(self) -> None:
        if self._quiet:
            return
        with telling(self._view, "Camera path"), self._lock:
            seconds = float(self._seconds.value)
            if not 0 < seconds < 1e6:
                raise ValueError("seconds between key frames should be positive")
            self._keys.seconds, self._keys.closed = seconds, self._closed.value
            self._show()

    # -- looking ------------------------------------------------------------------------------------------------------
    def _go(self, place: int) -> None:
        if self._quiet:
            return
        with telling(self._view, "Camera path"), self._lock:
            if 0 <= place < len(self._keys.cameras):
                self._to(self._keys.cameras[place])

    def _to(self, camera: Camera) -> None:
        look = self._view.look
        if camera.time != look.camera.time:
            self._view.change(time=camera.time)
        self._view.go_to(fitted(camera, look.camera.width, look.camera.height))

    def _frames(self) -> list[Camera]:
        """Of the preview; made when they are first needed."""
        if not self._spline:
            self._spline = self._keys.frames(min(self._keys.count(PLAYED_FPS), MOST_PLAYED))
        return self._spline

    def _previewed(self) -> None:
        if self._quiet:
            return
        with telling(self._view, "Camera path"), self._lock:
            cameras = self._frames()
            self._to(cameras[round(float(self._at.value) * (len(cameras) - 1))])

    def _played(self, wanted: bool) -> None:
        with telling(self._view, "Camera path"), self._turn:
            if self._player is not None:
                self._player.stop()
                self._player = None
            if not wanted:
                return
            with self._lock:
                cameras, closed = self._frames(), self._keys.closed
                pace = len(cameras) / max(self._keys.duration, 0.1)
            began, last = time.monotonic(), len(cameras) - 1

            def step() -> bool:
                place = int((time.monotonic() - began) * pace)
                place = place % len(cameras) if closed else min(place, last)
                with telling(self._view, "Camera path"), self._quiet:
                    self._to(cameras[place])
                    self._at.value = place / max(last, 1)
                return not self._view.closed and (closed or place < last)

            self._player = Ticker("path", 1.0 / PLAYED_FPS, step)

    # -- taking away --------------------------------------------------------------------------------------------------
    def _exported(self) -> None:
        with telling(self._view, "Film"):
            from smalti.trainers.pictures import require_video

            with self._lock:
                if self._export["running"]:
                    raise ValueError("a film is being made already; cancel it first")
                fps, count = self._counted()
                if not count:
                    self._keys.frames(0)  # says what is missing
                size = self._size()
                require_video(Path("film.mp4"))
                keys = replace(self._keys, cameras=list(self._keys.cameras))
                self._export = {"running": True, "frame": 0, "frames": count}
                self._cancelled.clear()
                name, arguments = "smalti-viewer-film", (keys, size, fps)
                self._film = threading.Thread(target=self._make_film, args=arguments, name=name, daemon=True)
                self._film.start()

    def _make_film(self, keys: KeyFrames, size: tuple[int, int] | None, fps: float) -> None:
        from smalti.trainers.pictures import write_video

        view, count, began, told = self._view, keys.count(fps), time.monotonic(), 0.0

        def advance(number: int) -> bool:
            nonlocal told
            self._export["frame"] = number
            if time.monotonic() - told > TOLD_EVERY:
                told = time.monotonic()
                self._progress.value = 100.0 * number / count
            return not self._cancelled.is_set() and not view.closed

        self._film_controls(True)
        outcome: dict[str, Any] = {}
        try:
            with telling(view, "Film"), tempfile.TemporaryDirectory() as folder:
                path, name = Path(folder) / "film.mp4", f"{self._file_name()}.mp4"
                try:
                    write_video(path, film(view.stage, view.look, keys.frames(count, size), advance), fps)
                except Cancelled:
                    outcome["cancelled"] = True
                    return
                content = path.read_bytes()
                view.client.send_file_download(name, content)
                seconds = time.monotonic() - began
                outcome |= {"file": name, "bytes": len(content), "seconds": seconds, "frame": count}
                view.say(f"{name}: {in_words(count, 'frame')}, {bytes_in_words(len(content))}, in {seconds:.0f} s")
        finally:
            self._export |= {"running": False, **outcome}
            self._film_controls(False)

    def _film_controls(self, running: bool) -> None:
        if not self._view.closed:
            self._progress.value = 0.0
            self._progress.visible = self._cancel.visible = running
            self._render.visible = not running and bool(self._keys.cameras)

    def _saved(self) -> None:
        with telling(self._view, "Camera path"):
            with self._lock:
                text = self._keys.to_text(self._counted()[0], self._size())
            self._view.client.send_file_download(f"{self._file_name()}.json", text.encode())

    def _loaded(self) -> None:
        with telling(self._view, "Camera path"):
            file = self._load.value
            try:
                text = file.content.decode("utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(f"{file.name}: not a text file ({error}); give one that was saved here") from error
            loaded = KeyFrames.from_text(text, file.name)
            with self._lock:
                self._keys = loaded
                with self._quiet:
                    self._seconds.value, self._closed.value = loaded.seconds, loaded.closed
                self._show(0)
            self._view.say(f"{file.name}: {in_words(len(loaded.cameras), 'key frame')}")

    def _counted(self) -> tuple[float, int]:
        """(frames per second, frames); ValueError where they are too many."""
        fps = float(self._fps.value)
        count = self._keys.count(fps)
        if count > MOST_FRAMES:
            raise ValueError(f"{count} frames are more than {MOST_FRAMES}; lower the seconds or the frames")
        return fps, count

    def _size(self) -> tuple[int, int] | None:
        """(width, height) of the film; None: as the first key frame. ValueError where it is too large."""
        width = int(self._width.value)
        if width <= 0 or not self._keys.cameras:
            return None
        first = self._keys.cameras[0]
        height = max(round(first.height * width / first.width), 1)
        if max(width, height) > LONGEST:
            raise ValueError(f"{width} x {height} pixels are too many; a side has {LONGEST} at most")
        return width, height

    def _file_name(self) -> str:
        return re.sub(r"[^\w.-]+", "-", self._view.stage.title).strip("-.") or "path"

    # -- showing ------------------------------------------------------------------------------------------------------
    def _show(self, place: int | None = None) -> None:
        """What is true of the key frames, with that one chosen."""
        keys, count = self._keys, len(self._keys.cameras)
        self._spline = []
        with self._quiet:
            self._chosen.max = max(count - 1, 1)
            if place is not None:
                self._chosen.value = min(max(place, 0), max(count - 1, 0))
        self._chosen.visible = count > 1
        for control in (self._does, self._moves, self._play, self._at, self._save):
            control.visible = count > 0
        self._render.visible = count > 0 and not self._export["running"]
        frames = keys.count(float(self._fps.value))
        words = f"{in_words(count, 'key frame')} · {keys.duration:.1f} s · {in_words(frames, 'frame')}"
        self._line.content = small(words if count else "Look somewhere and add a key frame.")
        self._draw()

    def _draw(self) -> None:
        for node in self._nodes:
            node.remove()
        self._nodes.clear()
        cameras = self._keys.cameras
        if not cameras or not self._shown.value:
            return
        scene = self._view.client.scene
        centres = np.stack([camera.centre.detach().numpy() for camera in cameras]).astype(np.float64)
        size = 0.05 * float(np.linalg.norm(np.ptp(centres, axis=0))) or 0.1
        for k, camera in enumerate(cameras):
            node = scene.add_camera_frustum(
                f"/path/{k}",
                fov=2.0 * float(np.arctan(0.5 * camera.height / float(camera.intrinsics[1]))),
                aspect=camera.width / camera.height,
                scale=size,
                thickness=1.5,
                thickness_units="screen",
                color=COLOR,
                wxyz=quaternion_from_matrix(camera.rotation.detach().double().T).numpy(),
                position=centres[k],
                cast_shadow=False,
                receive_shadow=False,
            )
            self._nodes.append(node)
        if len(cameras) > 1:
            points = np.stack([each.centre.numpy() for each in self._keys.frames(LINE_POINTS * len(cameras))])
            points = np.concatenate([points, points[:1]]) if self._keys.closed else points
            pairs = np.stack([points[:-1], points[1:]], axis=1).astype(np.float32)
            line = scene.add_line_segments("/path/line", pairs, COLOR, thickness=2.0, thickness_units="screen")
            self._nodes.append(line)

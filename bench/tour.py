"""The pictures of docs/tour.md, made again by a hand in a real browser: `python bench/tour.py RUN --data FOX`.

RUN is what `smalti train gaussians-fast --data FOX --downscale 4 --stretch 0.25 --out RUN` made. Needs the extras
viewer and video, Playwright and a Chromium; ends with 0 and a message where no browser is. `--only NAME ...` makes some
of the pictures: training, page, cut, floor (which needs what cut downloads: give both the same `--work FOLDER`).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/viewer"))
import chromium  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Page

SMALTI = (sys.executable, "-c", "import sys; from smalti.cli.main import main; sys.exit(main())")
WIDTH, HEIGHT, PANEL = 1200, 760, 345
"""Pixels of the page, and those at its right edge that the panel covers."""
SIDE, FRONT = "1 images/0002.jpg", "14 images/0025.jpg"
"""The two views that the fox is outlined in."""
PATH = (SIDE, "9 images/0014.jpg", FRONT, "20 images/0033.jpg")
"""Key frames of the film."""
OUTLINES = {
    SIDE: "600,92 648,52 684,68 704,142 765,132 772,150 750,195 760,262 788,312 770,340 726,345 694,376 648,462 640,492"
    " 564,545 514,525 456,466 445,420 466,285 525,258 560,190",
    FRONT: "428,158 448,158 520,198 548,190 632,122 648,160 652,245 672,310 736,350 738,520 690,568 628,598 574,568"
    " 540,525 528,430 486,400 466,368 484,330 458,262 432,195",
}
"""Corners in pixels of the page."""


class Hand:
    """A page, used as a person uses it, and what its viewer says of itself."""

    def __init__(self, page: Page, url: str) -> None:
        self.page, self.url = page, url
        self.until(lambda client: client["panels"])
        page.locator(".mantine-Notification-closeButton").first.click()

    def state(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}state", timeout=60) as answer:
            return json.load(answer)

    def client(self) -> dict[str, Any]:
        clients = self.state()["clients"]
        return clients[-1] if clients else {"panels": {}, "picture": None}

    def until(self, done: Any, seconds: float = 120.0) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while not done(found := self.client()):
            if time.monotonic() > end:
                raise TimeoutError(json.dumps(found)[:3000])
            self.page.wait_for_timeout(100)
        return found

    def rest(self) -> dict[str, Any]:
        """Once the picture is lossless and of what is looked at, and the page has shown it."""
        self.page.wait_for_timeout(600)

        def rests(client: dict[str, Any]) -> bool:
            picture = client["picture"]
            return picture is not None and picture["lossless"] and picture["current"]

        self.until(rests)
        self.page.wait_for_timeout(600)
        return self.until(rests)

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).first.click()

    def tick(self, label: str) -> None:
        self.page.get_by_label(label, exact=True).first.click()

    def folds(self, *names: str) -> None:
        for name in names:
            self.page.get_by_text(name, exact=True).first.click()
        self.page.wait_for_timeout(500)

    def choose(self, label: str, option: str) -> None:
        self.page.get_by_label(label, exact=True).first.click()
        self.page.get_by_role("option", name=option, exact=True).click()

    def go_to(self, view: str) -> None:
        """A view of the data set, by its line in the list."""
        self.page.locator("input[value*='images/']").first.click()
        self.page.get_by_role("option", name=view, exact=True).click()
        row = int(view.split()[0])
        self.until(lambda client: client["panels"]["cameras"]["row"] == row and client["panels"]["cameras"]["at_view"])
        self.rest()

    def lasso(self, outline: str) -> None:
        """Around what lies within, whatever hides it."""
        for corner in outline.split():
            x, y = map(float, corner.split(","))
            before = len(self.client()["panels"]["edit"]["lasso"])
            self.page.mouse.click(x, y)
            self.until(lambda client, before=before: len(client["panels"]["edit"]["lasso"]) > before)
        self.press("Close lasso")
        self.until(lambda client: not client["panels"]["edit"]["lasso"])
        self.rest()

    def downloaded(self, button: str, path: Path) -> None:
        """What the page offers once the button is pressed."""
        link = self.page.locator("a[download]")
        before = link.count()
        self.press(button)
        end = time.monotonic() + 120
        while link.count() <= before and time.monotonic() < end:
            self.page.wait_for_timeout(200)
        with self.page.expect_download(timeout=60_000) as waiting:
            link.last.click()
        waiting.value.save_as(path)

    def seen(self, panel: bool = True) -> np.ndarray[Any, Any]:
        """[h, w, 3] uint8: the page; without its panel, what is left of it."""
        import imageio.v3 as iio

        pixels = np.asarray(iio.imread(io.BytesIO(self.page.screenshot())))[..., :3]
        return pixels if panel else pixels[:, : WIDTH - PANEL]


@contextlib.contextmanager
def looking(
    *arguments: str, height: int = HEIGHT, folder: Path | None = None
) -> Generator[tuple[Hand, subprocess.Popen[str]], None, None]:
    """A command that shows a page, and a hand at it."""
    command = subprocess.Popen([*SMALTI, *arguments], cwd=folder, stdout=subprocess.PIPE, text=True)
    try:
        assert command.stdout is not None
        lines: list[str] = []
        for line in command.stdout:
            lines.append(line)
            if found := re.search(r"http://[\d.]+:\d+/", line):
                break
        else:
            raise RuntimeError("".join(lines))
        url = found[0]
        with chromium.started() as browser, chromium.opened(browser, f"{url}?fixedDpr=1", WIDTH, height) as opened:
            yield Hand(opened[0], url), command
    finally:
        command.terminate()
        command.communicate(timeout=60)


def kept(name: str, pixels: np.ndarray[Any, Any], folder: Path, quality: int = 82) -> None:
    """As a JPEG."""
    import imageio.v3 as iio

    path = folder / f"{name}.jpg"
    iio.imwrite(path, pixels, quality=quality)
    print(f"{path.name}: {pixels.shape[1]} x {pixels.shape[0]}, {path.stat().st_size:,} bytes", flush=True)


def tiled(pictures: Sequence[np.ndarray[Any, Any]], columns: int) -> np.ndarray[Any, Any]:
    rows = [np.concatenate(pictures[k : k + columns], axis=1) for k in range(0, len(pictures), columns)]
    return np.concatenate(rows)


def page(run: Path, folder: Path) -> None:
    """The page as it opens, and its modes."""
    with looking("view", str(run)) as (hand, _):
        hand.go_to(SIDE)
        kept("page", hand.seen(), folder)
        small: list[np.ndarray[Any, Any]] = []
        for mode in ("Depth", "Normals", "Alpha", "Contribution"):
            hand.choose("Mode", mode)
            hand.until(lambda client, mode=mode: client["picture"]["legend"]["mode"] in mode.lower())
            hand.rest()
            small.append(hand.seen(panel=False)[::2, ::2])
        kept("modes", tiled(small, 2), folder)


def outlined(hand: Hand) -> None:
    """Two lassos, of which what lies in both is taken; the panel shows Edit alone afterwards."""
    hand.go_to(SIDE)
    hand.folds("Layers", "Picture", "Edit")
    hand.choose("Tool", "Lasso")
    hand.tick("Behind, too")
    hand.lasso(OUTLINES[SIDE])
    hand.go_to(FRONT)
    hand.choose("Selection", "Intersect")
    hand.lasso(OUTLINES[FRONT])


def cut(run: Path, folder: Path, work: Path) -> None:
    """The fox selected, cut out, the cut undone and made again as a layer; downloaded."""
    with looking("view", str(run)) as (hand, _):
        everyone = hand.client()["panels"]["layers"]["count"]
        outlined(hand)
        print("selected", hand.client()["panels"]["edit"]["selected"], flush=True)
        kept("selected", hand.seen(), folder)
        hand.choose("Tool", "Look around")
        hand.press("Invert")
        hand.press("Delete")
        hand.until(lambda client: client["panels"]["edit"]["undo"] == ["delete"])
        hand.press("None")
        hand.rest()
        kept("cut", hand.seen(), folder)
        hand.press("Undo: delete")
        hand.until(lambda client: client["panels"]["edit"]["redo"] == ["delete"])
        hand.until(lambda client: client["panels"]["layers"]["count"] == everyone)
        hand.press("Redo: delete")
        hand.until(lambda client: client["panels"]["edit"]["undo"] == ["delete"])
        hand.page.get_by_text("Download", exact=True).first.click()
        hand.choose("Format", ".spz")
        hand.downloaded("What is visible", work / "scene.spz")
        print(f"scene.spz: {(work / 'scene.spz').stat().st_size:,} bytes", flush=True)


def training(data: Path, folder: Path, work: Path) -> None:
    """A training, watched."""
    command = ("train", "gaussians-fast", "--data", str(data.resolve()), "--downscale", "4", "--stretch", "0.25")
    with looking(*command, "--out", str((work / "watched").resolve()), "--view") as (hand, _):
        hand.until(lambda _: (hand.state()["training"] or {"step": 1000})["step"] >= 700, 600)
        hand.page.wait_for_timeout(1500)
        kept("training", hand.seen(), folder)


def floor(data: Path, folder: Path, work: Path) -> None:
    """The cut out fox on a floor, and a film of it along a path made on the page."""
    subprocess.run([sys.executable, str(ROOT / "docs/tour/floor.py")], cwd=work, check=True)
    with looking("view", "floor.smalti", "--data", str(data.resolve()), folder=work) as (hand, _):
        hand.go_to(FRONT)
        kept("floor", hand.seen(), folder)
        hand.folds("Layers", "Picture", "Camera path")
        for number, view in enumerate(PATH):
            hand.go_to(view)
            hand.press("Add key frame here")
            hand.until(lambda client, number=number: client["panels"]["path"]["key_frames"] == number + 1)
        hand.downloaded("Save path", work / "path.json")
    film = [*SMALTI, "render", "floor.smalti", "--trajectory", "path.json", "--width", "600", "--out", "fox.mp4"]
    subprocess.run(film, cwd=work, check=True)
    import imageio.v3 as iio

    frames = [frame for frame in iio.imiter(work / "fox.mp4")]
    picked = [frames[round(k * (len(frames) - 1) / 3)] for k in range(4)]
    kept("film", tiled(picked, 2), folder)


def main() -> int:
    """Makes the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data/fox")
    parser.add_argument("--only", nargs="*", default=("training", "page", "cut", "floor"))
    parser.add_argument("--out", type=Path, default=ROOT / "docs/tour")
    parser.add_argument("--work", type=Path)
    arguments = parser.parse_args()
    if missing := chromium.missing():
        print(f"skipped: {missing}")
        return 0
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        if "training" in arguments.only:
            training(arguments.data, arguments.out, work)
        if "page" in arguments.only:
            page(arguments.run, arguments.out)
        if "cut" in arguments.only:
            cut(arguments.run, arguments.out, work)
        if "floor" in arguments.only:
            floor(arguments.data, arguments.out, work)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`Scene.find_groups`: mirrors, arrays, grids and rotations among the blocks of a scene, by description length.

After the part of Jones et al. 2023 (ShapeCoder) that needs no training: its cost table, on free planes and axes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, overload

from smalti.scene.groups.choosing import find
from smalti.scene.groups.fit import Fit, price, separate_cost
from smalti.scene.groups.group import Group
from smalti.scene.groups.members import PartId, read_all
from smalti.scene.groups.search import KINDS, Search
from smalti.scene.groups.state import Book, Held, Member, State

if TYPE_CHECKING:
    from smalti.scene.scene import Scene

SHARE = 0.02
"""Of the scene's extent: the tolerance where none is given."""


class Groups(Sequence[Group]):
    """The groups of a scene, that with the largest gain first."""

    def __init__(self, scene: Scene, book: Book, tolerance: float) -> None:
        self.scene, self.tolerance = scene, tolerance
        self._book = book

    @property
    def _groups(self) -> list[Group]:
        return [Group(held) for held in self._book.held if held.state.members]

    @overload
    def __getitem__(self, index: int) -> Group: ...
    @overload
    def __getitem__(self, index: slice) -> list[Group]: ...
    def __getitem__(self, index: int | slice) -> Group | list[Group]:
        return self._groups[index]

    def __len__(self) -> int:
        return len(self._groups)

    def __iter__(self) -> Iterator[Group]:
        return iter(self._groups)

    def __repr__(self) -> str:
        return "\n".join(f"{group.id}: {group!r}, gain {group.gain:.1f}" for group in self) or "no groups"

    @property
    def separate_cost(self) -> float:
        """Of the scene's blocks without any regularity: 15 n - 1."""
        return separate_cost(len(read_all(self.scene)[0]))

    @property
    def cost(self) -> float:
        """Of the scene's program with these groups; the error term is left out."""
        models = [(held.state.model, len(held.state.members)) for held in self._book.held if held.state.members]
        free = len(read_all(self.scene)[0]) - sum(count for _, count in models)
        things = len(models) + free
        return sum(price(*each) for each in models) + separate_cost(1) * free + max(things - 1, 0)

    @property
    def free(self) -> list[PartId]:
        """Blocks in no group."""
        owned = {part for group in self for part in group.members}
        return [part for part in read_all(self.scene)[0] if part not in owned]

    def to_plain(self) -> list[dict[str, Any]]:
        """For JSON (`smalti.scene.groups.schema`); groups in groups after those that hold them."""
        from smalti.scene.groups.schema import to_plain

        return [line for group in self for line in to_plain(group)]

    def save(self, path: Path | str) -> None:
        """Write them as JSON, beside the scene that they are of (`Scene.save` does not hold them). The file appears
        whole, replacing what was there.
        """
        from smalti.files.checked import whole_file

        with whole_file(Path(path)) as stream:
            stream.write(json.dumps(self.to_plain(), indent=1, allow_nan=False).encode("utf-8"))

    @staticmethod
    def load(scene: Scene, path: Path | str) -> Groups:
        """The groups that `save` wrote, on the scene as it was then; edits go on as if it had never been away, but for
        those from before, which are not in its history. GroupError for what does not fit, OSError for no file.

        >>> import tempfile
        >>> from smalti.scene import Scene
        >>> from smalti.scene.groups import Groups
        >>> from smalti.scene.groups.demo import demo_table
        >>> scene = demo_table()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     written = scene.save(f"{folder}/table.smalti")
        ...     scene.find_groups().save(f"{folder}/table.groups.json")
        ...     again = Scene.load(f"{folder}/table.smalti")
        ...     groups = Groups.load(again, f"{folder}/table.groups.json")
        >>> len(groups[0].move([0.1, 0, 0])), again.undo()
        (4, 'move')
        """
        from smalti.scene.groups.schema import GroupError, from_plain

        try:
            plain = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise GroupError(f"{path}: it is no JSON: {error}") from error
        lines = cast(list[Any], plain if isinstance(plain, list) else [plain])
        if not isinstance(plain, list) or not all(isinstance(line, dict) for line in lines):
            raise GroupError(f"{path}: expected a list of groups, as `Groups.save` writes it")
        return from_plain(scene, cast(list[dict[str, Any]], lines))

    @staticmethod
    def from_plain(scene: Scene, plain: Sequence[dict[str, Any]]) -> Groups:
        """The groups that `to_plain` wrote, on a scene that has their members. GroupError for what does not fit."""
        from smalti.scene.groups.schema import from_plain

        return from_plain(scene, plain)


def find_groups(
    scene: Scene, tolerance: float | None = None, kinds: Sequence[str] = KINDS, min_gain: float = 0.0
) -> Groups:
    """See `Scene.find_groups`."""
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise ValueError(f"find_groups: there is no kind {unknown[0]!r}; there are {', '.join(KINDS)}")
    parts, boxes = read_all(scene)
    unit = boxes.extent() or 1.0
    reach = SHARE * unit if tolerance is None else float(tolerance)
    if not 0 < reach < float("inf"):
        raise ValueError(f"find_groups: tolerance should be a length above 0, got {tolerance}")
    book = Book(scene)
    for number, fit in enumerate(find(Search(boxes, reach, tuple(kinds), unit), float(min_gain))):
        book.held.append(Held(book, f"group-{number + 1}", state_of(fit, parts, reach)))
    return Groups(scene, book, reach)


def state_of(fit: Fit, parts: Sequence[PartId], tolerance: float) -> State:
    """Members in the order of their slots."""
    order = sorted(range(len(fit.rows)), key=lambda each: fit.slots[each])
    members = tuple(Member(parts[fit.rows[each]], fit.slots[each]) for each in order)
    distances = fit.match.distances
    residual = (float(distances.mean()), float(distances.max()))
    return State(fit.model, members, tolerance, fit.gain, residual, (False,) * len(fit.model.levels))

"""Regularities among the blocks of a scene: found by description length, edited as wholes (`docs/groups.md`).

Where what stands, in the order in which one meets it:

- words: `boxes` (blocks as arrays, and how far one is from another), `levels` (the regularities: where copies lie, what
  they cost), `fit` (a part and its levels against the blocks that are there; least squares).
- finding: `find` (the call, and what it returns), `choosing` (which groups together are the shortest description),
  `candidates` (all that there might be), by `mirrors`, `repeated` and, among points, `walks`; `search` is what they all
  look at.
- a group: `group` (what one holds in hand), `state` (what it is at a moment, how it follows the scene's history),
  `members` (blocks by layer and row, read and written).
- its edits: `changing` (every one of them), `settings` (`Group.set`), `breaking` (`Group.break_member`), `overlaps`
  (what they warn of).
- beside the scene: `schema` (groups as JSON), `program` (the scene as an expression tree) and `grammar` (what its
  functions take), `demo` (scenes for examples).
"""

from __future__ import annotations

from smalti.scene.groups.changing import Edited
from smalti.scene.groups.find import Groups, find_groups
from smalti.scene.groups.group import Group
from smalti.scene.groups.levels import DoubleMirror, Grid, Level, LinearArray, Mirror, Rotation, SameSize
from smalti.scene.groups.members import PartId
from smalti.scene.groups.overlaps import Overlap
from smalti.scene.groups.schema import GroupError

__all__ = [
    "DoubleMirror",
    "Edited",
    "Grid",
    "Group",
    "GroupError",
    "Groups",
    "Level",
    "LinearArray",
    "Mirror",
    "Overlap",
    "PartId",
    "Rotation",
    "SameSize",
    "find_groups",
]

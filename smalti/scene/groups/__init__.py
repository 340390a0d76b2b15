"""Regularities among the blocks of a scene: found by description length, edited as wholes (`docs/groups.md`)."""

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

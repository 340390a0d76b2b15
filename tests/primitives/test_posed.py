"""Families of solids say where their parts are, and take other poses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_families import blocks

from smalti.primitives.family import FamilyError
from smalti.primitives.posed import Posed, Poses
from smalti.primitives.superquadrics import Superquadrics


def taken(poses: Poses, rows: torch.Tensor) -> Poses:
    return Poses(*(value[rows] for value in vars(poses).values()))


def a_family() -> Superquadrics:
    family = blocks(4)
    assert isinstance(family, Posed)
    return family


def test_they_are_what_the_family_draws() -> None:
    family = a_family()
    poses = family.poses()
    assert torch.allclose(poses.centres, family.positions().double())
    assert torch.allclose(poses.rotations, family.axes().double(), atol=1e-6)
    assert torch.allclose(poses.half_extents, family.sizes().double(), atol=1e-6)
    assert torch.allclose(poses.exponents, family.exponents().double(), atol=1e-6)


def test_what_is_given_is_what_is_said() -> None:
    family, other, rows = a_family(), a_family(), torch.tensor([2, 0])
    before = {key: value.detach().clone() for key, value in family.parameters.items()}
    wanted = taken(other.poses(), torch.tensor([1, 3]))
    wanted = replace(
        wanted, half_extents=wanted.half_extents * 1.5, exponents=torch.tensor([[0.3, 1.2], [1.0, 0.4]]).double()
    )
    family.set_poses(rows, wanted)
    got = taken(family.poses(), rows)
    for one, two in zip(vars(got).values(), vars(wanted).values(), strict=True):
        assert torch.allclose(one, two, atol=1e-6)
    for key, value in family.parameters.items():
        assert torch.equal(value[[1, 3]], before[key][[1, 3]])
        if key not in family.pose_parameters:
            assert torch.equal(value, before[key])


def test_what_stays_keeps_its_bytes() -> None:
    family = a_family()
    family.replace({"rotations": 3.7 * family.parameters["rotations"]})  # the same directions
    before = {key: value.detach().clone() for key, value in family.parameters.items()}
    family.set_poses(torch.arange(4), family.poses())
    assert all(torch.equal(value, before[key]) for key, value in family.parameters.items())
    poses = family.poses()
    family.set_poses(torch.arange(4), replace(poses, centres=poses.centres + 1.0))
    assert all(torch.equal(value, before[key]) for key, value in family.parameters.items() if key != "translations")


def test_blocks_have_a_least_size() -> None:
    family = a_family()
    before, poses = family.parameters["raw_scales"].detach().clone(), family.poses()
    with pytest.raises(FamilyError, match=r"below 0.2 ratio.*scale their whole layer"):
        family.set_poses(torch.arange(4), replace(poses, half_extents=0.01 * poses.half_extents))
    assert torch.equal(family.parameters["raw_scales"], before)

"""Mass properties in closed form, the files for engines, and a real engine's word on them."""

from __future__ import annotations

import doctest
import math
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules

import pytest
import torch

import smalti.scene.physics
from smalti.cameras.similarity import Similarity
from smalti.primitives.gaussians import Gaussians
from smalti.primitives.meshes import Meshes
from smalti.primitives.superquadric_shape import surface_points
from smalti.primitives.superquadrics import Superquadrics
from smalti.primitives.surface import Surface, icosphere
from smalti.scene import Scene, demo_camera
from smalti.scene.physics import World, bodies_of, mesh_mass, simulate, superquadric_mass, to_mjcf, to_urdf

pytestmark = pytest.mark.usefixtures("one_torch_thread")
MODULES = sorted(module.name for module in iter_modules(smalti.scene.physics.__path__))
Z_UP = (0.0, 0.0, 1.0)


def brick(sides: tuple[float, float, float], middle: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Meshes:
    signs = torch.cartesian_prod(*[torch.tensor([-0.5, 0.5])] * 3)
    vertices = signs * torch.tensor(sides) + torch.tensor(middle)
    quads = torch.tensor([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])
    faces = torch.cat([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    return Meshes.from_mesh(vertices, faces, torch.full((8, 3), 0.5), {})


def block(exponent: float, half: tuple[float, float, float], centre: tuple[float, float, float]) -> Superquadrics:
    """One opaque block along the axes."""
    made = Superquadrics.from_points(
        torch.tensor([centre]), torch.tensor([[0.7, 0.3, 0.2]]), {"texture_size": 4, "level": 3, "ratio": 0.1}
    )
    raw = math.log((exponent - 0.1) / (1.9 - exponent))
    scales = (torch.tensor([half]) / 0.1 - 0.2).log()
    made.replace(
        {
            "raw_exponents": torch.full((1, 2), raw),
            "raw_scales": scales,
            "logit_opacities": torch.full((1,), 9.0),
        }
    )
    return made


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name: str) -> None:
    assert doctest.testmod(import_module(f"smalti.scene.physics.{name}")).failed == 0


# -- mass -------------------------------------------------------------------------------------------------------------
def test_a_brick_has_the_inertia_of_the_textbook() -> None:
    mass = mesh_mass(brick((2.0, 3.0, 4.0), (5.0, -6.0, 7.0)).surface()).scaled(10.0, 0.1)
    assert mass.mass == pytest.approx(24.0 * 10.0 * 1e-3, rel=1e-6)
    assert mass.centre.tolist() == pytest.approx([0.5, -0.6, 0.7], rel=1e-6)
    expected = torch.tensor([3.0**2 + 4**2, 2**2 + 4**2, 2**2 + 3**2]) * 1e-2 * mass.mass / 12
    assert torch.allclose(mass.inertia, torch.diag(expected.double()), rtol=1e-5, atol=1e-9)


def test_the_far_brick_loses_no_digits() -> None:
    near, far = (mesh_mass(brick((1.0, 2.0, 3.0), (x, 0.0, 0.0)).surface()) for x in (0.0, 1000.0))
    assert torch.allclose(near.inertia, far.inertia, rtol=1e-3, atol=1e-3)


def test_an_ellipsoid_has_the_inertia_of_the_textbook() -> None:
    a, b, c = 0.5, 1.0, 2.0
    mass = superquadric_mass(torch.ones(2), torch.tensor([a, b, c]))
    assert mass.mass == pytest.approx(4 / 3 * math.pi * a * b * c, rel=1e-12)
    expected = torch.tensor([b * b + c * c, a * a + c * c, a * a + b * b]).double() * mass.mass / 5
    assert torch.allclose(mass.inertia.diagonal(), expected, rtol=1e-12)


def test_a_cylinder_has_the_inertia_of_the_textbook() -> None:
    """e1 -> 0, e2 = 1: a cylinder along y of radius r and height 2 h."""
    r, h = 0.5, 2.0
    mass = superquadric_mass(torch.tensor([1e-4, 1.0]), torch.tensor([r, h, r]))
    assert mass.mass == pytest.approx(math.pi * r * r * 2 * h, rel=1e-3)
    across = mass.mass * (3 * r * r + (2 * h) ** 2) / 12
    assert mass.inertia.diagonal().tolist() == pytest.approx([across, mass.mass * r * r / 2, across], rel=1e-3)


@pytest.mark.parametrize("e1", [0.3, 1.0, 1.8])
@pytest.mark.parametrize("e2", [0.4, 1.3])
def test_closed_form_and_mesh_agree(e1: float, e2: float) -> None:
    """A fine mesh encloses a little less than the smooth shape; at 16 times the faces less than half as little."""
    exponents, half = torch.tensor([e1, e2]).double(), torch.tensor([0.5, 0.8, 1.2]).double()
    exact = superquadric_mass(exponents, half)
    errors = []
    for level in (4, 6):
        ball = icosphere(level)
        found = mesh_mass(Surface(surface_points(ball.vertices, exponents[None])[0] * half, ball.faces))
        assert float(found.centre.abs().max()) < 1e-6
        errors.append(
            max(
                abs(found.mass / exact.mass - 1),
                float((found.inertia.diagonal() / exact.inertia.diagonal() - 1).abs().max()),
            )
        )
        assert float((found.inertia - torch.diag(found.inertia.diagonal())).abs().max()) < 1e-6
    assert errors[0] < 0.05
    assert errors[1] < 0.5 * errors[0] + 1e-4


def test_open_and_inverted_meshes_are_refused() -> None:
    solid = brick((1.0, 1.0, 1.0)).surface()
    with pytest.raises(ValueError, match="3 edges of the mesh have not exactly two faces"):
        mesh_mass(Surface(solid.vertices, solid.faces[1:]))
    with pytest.raises(ValueError, match="wrong way round"):
        mesh_mass(Surface(solid.vertices, solid.faces.flip(1)))


# -- bodies -----------------------------------------------------------------------------------------------------------
def mixed() -> Scene:
    generator = torch.Generator().manual_seed(0)
    scene = Scene(order="ray")
    blocks = Superquadrics.from_points(
        torch.rand(3, 3, generator=generator), torch.rand(3, 3, generator=generator), {"texture_size": 4}
    )
    blocks.replace(
        {
            "logit_opacities": torch.tensor([4.0, -4.0, 4.0]),
            "rotations": torch.randn(3, 6, generator=generator),
        }
    )
    place = Similarity(0.5, translation=torch.tensor([0.3, 0.0, 0.0]).double())
    scene.add("blocks", blocks, similarity=place)
    scene.add("brick", brick((0.5, 0.4, 0.3), (-0.8, 0.0, 0.5)))
    scene.add("cloud", Gaussians.from_points(torch.rand(20, 3, generator=generator), torch.rand(20, 3), {}))
    return scene


def test_bodies_at_their_own_places_are_the_same_picture() -> None:
    scene, camera = mixed(), demo_camera(64, 48)
    bodies = bodies_of(scene)
    assert [body.name for body in bodies.moving] == ["blocks-0", "blocks-2", "brick"]
    assert bodies.scene.counts() == {"blocks": 1, "cloud": 20}
    again = bodies.posed([body.place for body in bodies.moving])
    difference = again.render(camera).color - scene.flattened().render(camera).color
    assert float(difference.detach().abs().max()) < 1e-4
    assert len(scene["blocks"].family) == 3


def test_bodies_move_as_their_places_say() -> None:
    bodies = bodies_of(mixed(), ["brick"])
    (body,) = bodies.moving
    moved = bodies.posed([Similarity(translation=torch.tensor([0.0, 3.0, 0.0]).double())])
    family = moved.layers["brick moving"].family
    assert family.positions().mean(dim=0).tolist() == pytest.approx([0.0, 3.0, 0.0], abs=1e-5)
    assert body.place.translation.tolist() == pytest.approx([-0.8, 0.0, 0.5], abs=1e-6)
    with pytest.raises(ValueError, match="1 bodies, but 0 places"):
        bodies.posed([])


def test_what_is_no_body_is_said() -> None:
    scene = mixed()
    with pytest.raises(ValueError, match="no solid shape; convert it to meshes"):
        bodies_of(scene, ["cloud"])
    with pytest.raises(ValueError, match="there is no layer 'chair'"):
        bodies_of(scene, ["chair"])
    scene["blocks"].visible = scene["brick"].visible = False
    with pytest.raises(ValueError, match="no block and no closed mesh"):
        bodies_of(scene)


def test_what_is_not_convex_is_said(tmp_path: Path) -> None:
    star = icosphere(2)
    spikes = 1.0 + 0.5 * (torch.arange(len(star.vertices)) % 2 == 0)
    scene = Scene()
    scene.add(
        "star", Meshes.from_mesh((star.vertices * spikes[:, None]).float(), star.faces, star.vertices.float(), {})
    )
    (notice,) = to_mjcf(scene, tmp_path).notices
    assert "star is not convex" in notice
    scene = Scene()
    scene.add("box", block(0.2, (0.3, 0.3, 0.3), (0.0, 0.0, 0.0)))
    assert not to_mjcf(scene, tmp_path).notices


# -- an engine --------------------------------------------------------------------------------------------------------
def test_mujoco_reads_the_mass_properties(tmp_path: Path) -> None:
    mujoco = pytest.importorskip("mujoco")
    scene = Scene()
    scene.add("brick", brick((0.2, 0.3, 0.4), (1.0, 2.0, 3.0)))
    written = to_mjcf(scene, tmp_path, World(density=500.0, metres=2.0, up=Z_UP))
    model = mujoco.MjModel.from_xml_path(str(written.path))
    body = model.body("brick")
    mass = 0.2 * 0.3 * 0.4 * 8 * 500
    assert float(body.mass[0]) == pytest.approx(mass, rel=1e-5)
    sides = [0.4, 0.6, 0.8]
    expected = sorted(mass / 12 * (sum(s * s for s in sides) - side * side) for side in sides)
    assert sorted(body.inertia.tolist()) == pytest.approx(expected, rel=1e-5)
    assert body.pos.tolist() == pytest.approx([2.0, 4.0, 6.0], rel=1e-6)
    # What it would take from the mesh itself, with its own default density, is the same.
    text = written.path.read_text()
    start, end = text.index("<inertial"), text.index("/>", text.index("<inertial")) + 2
    written.path.write_text(text[:start] + text[end:])
    guessed = mujoco.MjModel.from_xml_path(str(written.path)).body("brick")
    assert float(guessed.mass[0]) == pytest.approx(mass * 1000 / 500, rel=1e-4)
    assert sorted((guessed.inertia * 500 / 1000).tolist()) == pytest.approx(expected, rel=1e-4)


def test_a_body_falls_by_half_g_t_squared(tmp_path: Path) -> None:
    pytest.importorskip("mujoco")
    scene = Scene()
    scene.add("ball", block(1.0, (0.1, 0.1, 0.1), (0.0, 0.0, 0.0)))
    motion = simulate(to_mjcf(scene, tmp_path, World(metres=2.0)), 0.5, 20.0, timestep=5e-4)
    # Up is -y: it falls along +y. The semi-implicit step is ahead by g t dt / 2.
    fallen = motion.positions[:, 0, 1]
    exact = 0.5 * 9.81 * motion.times**2
    assert torch.allclose(fallen, exact + 0.5 * 9.81 * motion.times * 5e-4, atol=1e-9)
    assert float((fallen - exact).abs().max()) < 2e-3
    centre = motion.scene(len(motion) - 1).layers["ball-0 moving"].family.positions()
    assert float(centre[0, 1].detach()) == pytest.approx(float(fallen[-1]) / 2.0, rel=1e-5)
    # Energy stays: what it loses in height it has in speed.
    assert float((motion.energy - motion.energy[0]).abs().max()) < 1e-2 * float(
        0.5 * bodies_mass(motion.exported.bodies.moving[0].mass.mass) * (9.81 * 0.5) ** 2
    )


def bodies_mass(volume: float) -> float:
    return volume * 1000.0 * 8.0


@pytest.mark.parametrize("exponent", [0.15, 1.0])
def test_a_block_comes_to_rest_on_the_floor(exponent: float, tmp_path: Path) -> None:
    """At the height of its half extent: a box lies flat, a ball (of 642 corners) within the sagitta of its faces."""
    pytest.importorskip("mujoco")
    scene = Scene()
    scene.add("block", block(exponent, (0.2, 0.15, 0.2), (0.0, 0.0, 0.4)))
    written = to_mjcf(scene, tmp_path, World(up=Z_UP, floor=-0.1))
    motion = simulate(written, 3.0, 20.0)
    half = 0.2
    height = motion.positions[-1, 0, 2]
    lowest = float(scene["block"].family.sizes().detach().amin())
    assert lowest == pytest.approx(0.15, rel=1e-4)
    assert -0.1 + 0.15 - 5e-3 < float(height) < -0.1 + half + 5e-3
    speed = (motion.positions[-1] - motion.positions[-5]).norm() / 0.2
    assert float(speed) < 0.05
    if exponent < 1:  # it was let go flat, so it lies on the side that it had below
        assert float(height) == pytest.approx(-0.1 + half, abs=4e-3)
    # Contacts take energy away and give none (while one is pressed together it holds some that is not counted here).
    assert float(motion.energy.max()) <= float(motion.energy[0]) * (1 + 1e-4)
    late = motion.energy[-20:]
    assert float(late.max() - late.min()) < 1e-2 * float(motion.energy[0] - motion.energy[-1])


def test_tangled_bodies_are_moved_apart_without_bursting(tmp_path: Path) -> None:
    """Two balls that share most of their volume: let go as they are they fly apart, untangled they stay."""
    pytest.importorskip("mujoco")
    scene = Scene()
    scene.add("one", block(1.0, (0.2, 0.2, 0.2), (0.0, 0.0, 0.0)))
    scene.add("two", block(1.0, (0.2, 0.2, 0.2), (0.1, 0.0, 0.0)))
    written = to_mjcf(scene, tmp_path, World(up=Z_UP))
    burst, calm = (simulate(written, 0.2, 50.0, untangle=each) for each in (False, True))
    speeds = [
        float((motion.positions[-1, 0, :2] - motion.positions[-2, 0, :2]).norm()) * 50 for motion in (burst, calm)
    ]
    assert speeds[0] > 0.5
    assert speeds[1] < 0.1 * speeds[0]
    apart = (calm.positions[0, 0] - calm.positions[0, 1]).norm()
    assert 0.37 < float(apart) < 0.42
    # Gravity is back: both fall.
    fallen = calm.positions[0, :, 2] - calm.positions[-1, :, 2]
    assert fallen.tolist() == pytest.approx([0.5 * 9.81 * 0.04] * 2, rel=0.05)


def test_urdf_says_the_same(tmp_path: Path) -> None:
    from xml.etree import ElementTree

    scene = Scene()
    scene.add("my brick", brick((0.2, 0.3, 0.4)))
    written = to_urdf(scene, tmp_path, World(density=500.0))
    (name,) = written.names
    root = ElementTree.parse(tmp_path / f"{name}.urdf").getroot()
    values = {node.tag: node.attrib for node in root.iter()}
    mass = 0.024 * 500
    assert float(values["mass"]["value"]) == pytest.approx(mass, rel=1e-5)
    assert float(values["inertia"]["ixx"]) == pytest.approx(mass * (0.09 + 0.16) / 12, rel=1e-5)
    assert abs(float(values["inertia"]["ixy"])) < 1e-9
    trimesh = pytest.importorskip("trimesh")
    mesh = trimesh.load(tmp_path / values["mesh"]["filename"])
    assert mesh.is_watertight
    assert float(mesh.volume) == pytest.approx(0.024, rel=1e-5)


@pytest.mark.parametrize(
    "names", [("a b", "a_b"), ("Ball", "ball"), ("floor", "world"), ("a", "a moving"), ("\u5854", "\u6865")]
)
def test_bodies_have_names_of_their_own(names: tuple[str, ...], tmp_path: Path) -> None:
    """Whatever the layers are called: one file each, an engine takes them, and what moves finds its place."""
    scene = Scene()
    for number, name in enumerate(names):
        scene.add(name, brick((0.2, 0.2, 0.2), (float(number), 0.0, 0.0)))
    scene.add("here moving", Gaussians.from_points(torch.zeros(1, 3), torch.zeros(1, 3), {}))
    scene.add("here", brick((0.2, 0.2, 0.2), (0.0, 9.0, 0.0)))
    written = to_mjcf(scene, tmp_path, World(up=Z_UP, floor=-1.0))
    assert len(written.names) == len({name.casefold() for name in written.names}) == 3
    assert {path.stem for path in tmp_path.glob("*.obj")} == set(written.names)
    posed = written.bodies.posed([body.place for body in written.bodies.moving])
    assert len(posed) == len(scene)
    if find_spec("mujoco"):
        assert len(simulate(written, 0.01, 100.0).scene(1)) == len(scene)


def test_a_missing_engine_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    scene = Scene()
    scene.add("brick", brick((1.0, 1.0, 1.0)))
    written = to_mjcf(scene, tmp_path)
    monkeypatch.setitem(sys.modules, "mujoco", None)
    with pytest.raises(ImportError, match=r"smalti\[physics\]"):
        simulate(written, 1.0)

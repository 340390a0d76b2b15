"""Family `meshes`: topology, subdivision that keeps the picture, own texels, surfaces from points, voxels, blocks."""

from __future__ import annotations

import math

import pytest
import torch
from small_families import a_camera, blocks, mesh, picture
from torch import Tensor

from smalti.primitives.family import FamilyError, LossContext, RowMap
from smalti.primitives.meshes import Meshes
from smalti.primitives.surface import Surface, icosphere, tangent_frames
from smalti.primitives.surface_nets import solid_from_points, surface_nets
from smalti.primitives.texture import logit, painted, texture_lookup
from smalti.primitives.topology import face_cells, face_edges, face_neighbours, gathered, subdivided

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def context() -> LossContext:
    return LossContext(1.0, torch.Generator().manual_seed(0))


# -- topology ---------------------------------------------------------------------------------------------------------
def test_neighbours_share_the_edge_from_a_corner_to_the_next() -> None:
    faces = torch.tensor([[0, 1, 2], [2, 1, 3], [4, 5, 6]])
    assert face_neighbours(faces).tolist() == [[-1, 1, -1], [0, -1, -1], [-1, -1, -1]]
    three_at_an_edge = torch.tensor([[0, 1, 2], [1, 0, 3], [0, 1, 4]])
    assert face_neighbours(three_at_an_edge).tolist() == [[-1] * 3] * 3
    ball = icosphere(1)
    across = face_neighbours(ball.faces).long()
    assert int(across.min()) >= 0
    for face in range(len(ball.faces)):
        for corner in range(3):
            edge = {int(ball.faces[face, corner]), int(ball.faces[face, (corner + 1) % 3])}
            assert edge <= set(ball.faces[across[face, corner]].tolist())


def test_icospheres_are_closed_and_outward() -> None:
    for level, volume in enumerate((2.5362, 3.6587, 4.0470)):
        ball = icosphere(level)
        assert len(ball.vertices) == 10 * 4**level + 2
        assert ball.volume() == pytest.approx(volume, abs=5e-5)
        assert torch.allclose(ball.vertices.norm(dim=1), torch.ones(len(ball.vertices), dtype=torch.float64))
    with pytest.raises(ValueError, match="level must be"):
        icosphere(9)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.4, 0.8, 1.0])
def test_any_set_of_cut_edges_leaves_a_closed_surface_in_the_same_place(share: float) -> None:
    ball = icosphere(1)
    edges, _ = face_edges(ball.faces)
    cut = torch.rand(len(edges), generator=torch.Generator().manual_seed(1)) < share
    after = subdivided(ball.faces, len(ball.vertices), cut)
    vertices = torch.cat([ball.vertices, ball.vertices[after.ends].mean(1)])
    finer = Surface(vertices, after.faces)
    assert len(after.faces) == len(ball.faces) + 2 * int(cut.sum())
    assert int(face_neighbours(after.faces).min()) >= 0
    assert finer.volume() == pytest.approx(ball.volume())
    assert float(finer.areas().sum()) == pytest.approx(float(ball.areas().sum()))
    assert torch.allclose(finer.normals(), ball.normals()[after.source], atol=1e-9)
    assert torch.equal(after.faces[: after.untouched], ball.faces[after.source[: after.untouched]])


def test_gradients_of_gathering_are_those_of_indexing() -> None:
    rows = torch.rand(7, 3, dtype=torch.float64, requires_grad=True)
    index = torch.randint(0, 7, (50, 3), generator=torch.Generator().manual_seed(0))
    weights = torch.rand(50, 3, 3, dtype=torch.float64)
    (wanted,) = torch.autograd.grad((rows[index] * weights).sum(), rows)
    (found,) = torch.autograd.grad((gathered(rows, index) * weights).sum(), rows)
    assert torch.allclose(found, wanted)
    assert torch.equal(gathered(rows, index), rows[index])


def test_no_number_of_threads_changes_a_gradient() -> None:
    """In float32, with more corners than torch adds up on one thread."""
    ball = icosphere(5)
    rows = ball.vertices.float().requires_grad_(True)
    weights = torch.rand(len(ball.faces), 3, 3, generator=torch.Generator().manual_seed(0))
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(torch.autograd.grad((gathered(rows, ball.faces) * weights).sum(), rows)[0])
    torch.set_num_threads(1)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_texels_may_have_an_opacity_of_their_own() -> None:
    family = mesh(texture_size=24, texel_opacity=True, initial_opacity=0.6, edges="hard")
    assert tuple(family.parameters["raw_texture"].shape) == (24, 24, 4)
    assert "logit_opacities" not in family.parameters
    alpha = picture(family)[..., 3].detach()
    assert float(alpha.max()) == pytest.approx(1 - 0.4**2, abs=1e-6)
    family.cap_opacities(0.5)
    assert float(picture(family)[..., 3].detach().max()) == pytest.approx(0.75, abs=1e-6)


def test_far_meshes_look_at_coarser_levels_where_asked() -> None:
    """Stripes of one texel from afar: their mean, and all texels feel it; without levels a few of them do."""
    surface = icosphere(2)
    uvs = torch.stack([surface.vertices[:, 0], surface.vertices[:, 1]], dim=1).mul(0.45).add(0.5)[surface.faces]
    given = Surface(surface.vertices, surface.faces, uvs=uvs)
    found: dict[int, tuple[float, float]] = {}
    for levels in (0, 24):
        metadata = {"texture_size": 64, "mipmaps": levels, "edges": "hard"}
        family = Meshes.from_surface(given, 10, torch.Generator(), metadata)
        stripes = torch.where(torch.arange(64) % 2 == 1, 4.0, -4.0)
        family.replace({"raw_texture": stripes[None, :, None].expand(64, 64, 3).clone()})
        rgba = picture(family, a_camera(12, 9))
        inside = rgba[..., 3].detach() == 1
        rgba[..., :3].sum().backward()
        felt = family.parameters["raw_texture"].grad
        assert felt is not None
        found[levels] = float((rgba[..., :3].detach()[inside] - 0.5).abs().mean()), float((felt != 0).double().mean())
    assert found[24][0] < 0.02 < 0.2 < found[0][0]
    assert found[0][1] < 0.2 < 0.6 < found[24][1]


# -- structure --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("copies", [2, 4])
@pytest.mark.parametrize("options", [{}, {"texture_size": 24}, {"initial_opacity": 0.6, "smooth_normals": True}])
def test_subdivision_keeps_the_picture(options: dict[str, object], copies: int) -> None:
    family = mesh(edges="hard", **options)
    before, count = picture(family).detach(), len(family)
    change = family.split(torch.tensor([0, 7, 3]), copies, torch.Generator())
    assert len(family) > count + 3
    assert int(face_neighbours(family.faces).min()) >= 0
    assert float((picture(family).detach() - before).abs().max()) < 2e-7
    fresh = change.primitives.fresh
    assert not bool(fresh[: int((~fresh).sum())].any())  # untouched faces come first


def test_two_children_share_the_longest_edge_of_their_parent() -> None:
    vertices = torch.tensor([[0.0, 0, 0], [3, 0, 0], [0, 1, 0]])
    family = Meshes.from_mesh(vertices, torch.tensor([[0, 1, 2]]), torch.rand(3, 3), {})
    family.split(torch.tensor([0]), 2, torch.Generator())
    assert torch.allclose(family.parameters["vertices"][3], torch.tensor([1.5, 0.5, 0.0]))
    assert torch.allclose(family.areas(), torch.tensor([0.75, 0.75]))


def test_pruned_faces_take_their_own_vertices_along() -> None:
    vertices = torch.rand(6, 3)
    faces = torch.tensor([[0, 1, 2], [3, 4, 5], [2, 1, 3]])
    family = Meshes.from_mesh(vertices, faces, torch.rand(6, 3), {"initial_opacity": 0.5})
    change = family.prune(torch.tensor([False, True, False]))
    assert family.faces.tolist() == [[0, 1, 2], [2, 1, 3]]
    assert torch.equal(family.parameters["vertices"], vertices[[0, 1, 2, 3]])
    assert change.parameters["vertices"].source.tolist() == [0, 1, 2, 3]
    assert change.parameters["logit_opacities"].source.tolist() == [0, 2]


def test_copied_faces_are_patches_of_their_own() -> None:
    family = mesh()
    maps = family.rearrange(RowMap.append(20, torch.tensor([0, 1])))
    assert len(family) == 22
    patch = torch.unique(icosphere(0).faces[:2])
    assert len(family.parameters["vertices"]) == 12 + len(patch)
    assert not set(family.faces[20:].reshape(-1).tolist()) & set(family.faces[:20].reshape(-1).tolist())
    assert torch.equal(family.corners()[20:], family.corners()[:2])
    assert int(maps["vertices"].fresh.sum()) == len(patch)
    assert int(face_neighbours(family.faces[20:]).max()) == int(face_neighbours(icosphere(0).faces[:2]).max())


def test_relocation_removes_the_dead_and_refines_the_hosts() -> None:
    family = mesh(initial_opacity=0.5)
    family.parameters["logit_opacities"].data[4] = -9.0
    corners = family.corners().detach()
    change = family.relocate(torch.tensor([4]), torch.tensor([9]))
    assert 4 not in change.primitives.source.tolist()
    assert change.primitives.source.tolist().count(9) == 2
    kept = ~change.primitives.fresh
    assert torch.equal(family.corners().detach()[kept], corners[change.primitives.source[kept]])


def test_rows_of_the_same_faces() -> None:
    vertices, faces = torch.rand(5, 3), torch.tensor([[0, 1, 2], [2, 3, 4]])
    family = Meshes.from_mesh(vertices, faces, torch.rand(5, 3), {"initial_opacity": 0.5})
    found = family.same_primitives("vertices", torch.tensor([0]))
    assert {key: value.tolist() for key, value in found.items()} == {
        **{"vertices": [0, 1, 2], "raw_colors": [0, 1, 2], "logit_opacities": [0]}
    }
    assert family.same_primitives("logit_opacities", torch.tensor([1]))["vertices"].tolist() == [2, 3, 4]
    textured = mesh(texture_size=24)
    assert list(textured.same_primitives("raw_texture", torch.tensor([3]))) == ["raw_texture"]


def test_faces_without_a_parameter_are_exactly_opaque() -> None:
    family = mesh()
    assert bool((family.opacities() == 1).all())
    assert "logit_opacities" not in family.parameters
    assert float(picture(mesh(edges="hard"))[..., 3].detach().max()) == 1
    assert family.bytes_per_primitive * 20 >= 8 * 2 * 12 * 3


# -- textures ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("count", "size"), [(1, 4), (2, 5), (20, 24), (50, 64)])
def test_every_face_has_texels_of_its_own(count: int, size: int) -> None:
    uvs = face_cells(count, size)
    colors = torch.arange(float(count))[:, None, None].expand(count, 3, 3) / count
    texture = painted(colors, uvs, size)
    weights = torch.rand(200, 3, generator=torch.Generator().manual_seed(0))
    weights = torch.cat([weights / weights.sum(1, keepdim=True), torch.eye(3), 0.5 * (1 - torch.eye(3))])
    for face in range(count):
        shown = texture_lookup(texture, weights @ uvs[face])
        assert torch.allclose(shown, colors[face, :1].expand_as(shown), atol=2e-6)


def test_a_painted_texture_shows_what_vertex_colours_show() -> None:
    generator = torch.Generator().manual_seed(0)
    colors, uvs = 0.2 + 0.6 * torch.rand(20, 3, 3, generator=generator), face_cells(20, 64)
    texture = painted(colors, uvs, 64)
    weights = torch.rand(100, 3, generator=generator)
    weights = weights / weights.sum(1, keepdim=True)
    for face in range(20):
        shown = texture_lookup(texture, weights @ uvs[face])
        assert torch.allclose(shown, weights @ colors[face], atol=1e-5)
    with pytest.raises(ValueError, match="too small for 20 faces"):
        face_cells(20, 15)


def test_lookups_are_bilinear_clamped_or_wrapped() -> None:
    texture = torch.arange(8.0).reshape(2, 4, 1).expand(2, 4, 3)
    where = torch.tensor([[0.125, 0.25], [0.25, 0.5], [0.0, 0.0], [1.0, 1.0], [1.125, 0.25]])
    assert texture_lookup(texture, where)[:, 0].tolist() == [0.0, 2.5, 0.0, 7.0, 3.0]
    assert texture_lookup(texture, where, wrap=True)[:, 0].tolist() == [0.0, 2.5, 1.5, 5.5, 0.0]


def test_a_surface_with_its_own_coordinates_keeps_them() -> None:
    ball = icosphere(1)
    uvs = torch.rand(80, 3, 2)
    surface = Surface(ball.vertices, ball.faces, torch.rand(42, 3), uvs)
    family = Meshes.from_surface(surface, 10, torch.Generator(), {"texture_size": 16})
    assert torch.equal(family.constants["uvs"], uvs)
    assert tuple(family.parameters["raw_texture"].shape) == (16, 16, 3)
    plain = Meshes.from_surface(surface, 400, torch.Generator(), {})
    assert len(plain) == 320


def test_faces_are_held_in_32_bits_and_read_from_either() -> None:
    ball = icosphere(1)
    colors = torch.rand(42, 3)
    made = [Meshes.from_mesh(ball.vertices.float(), ball.faces.to(kind), colors, {})
            for kind in (torch.int64, torch.int32)]  # fmt: skip
    for family in made:
        assert family.constants["faces"].dtype == torch.int32
        assert torch.equal(family.faces, ball.faces)
        assert family.bytes == 80 * 3 * 4 + 42 * 6 * 4
        family.split(torch.tensor([0, 3]), 2, torch.Generator())
        family.prune(torch.arange(len(family)) % 5 == 0)
        assert family.constants["faces"].dtype == torch.int32
    former = Meshes(made[0].parameters, {}, {"faces": made[0].faces})  # as checkpoints of earlier versions hold them
    assert torch.equal(former.constants["faces"], made[1].constants["faces"])


# -- surfaces ---------------------------------------------------------------------------------------------------------
def test_surface_nets_of_a_ball() -> None:
    grid = torch.stack(torch.meshgrid(*[torch.arange(30.0)] * 3, indexing="ij"), -1)
    centre = torch.tensor([14.3, 14.6, 15.1])
    found = surface_nets(9.0 - (grid - centre).norm(dim=-1), 0.0)
    assert int(face_neighbours(found.faces).min()) >= 0
    assert found.volume() == pytest.approx(4 / 3 * math.pi * 9**3, rel=0.02)
    assert torch.allclose((found.vertices - centre).norm(dim=1), torch.full((len(found.vertices),), 9.0), atol=0.06)
    assert torch.allclose(found.vertices.mean(0), centre, atol=0.05)
    nothing = surface_nets(torch.zeros(4, 4, 4), 0.5)
    assert nothing.faces.shape == (0, 3)


def test_what_reaches_the_edge_of_the_grid_is_closed() -> None:
    found = surface_nets(torch.ones(3, 4, 5), 0.5)
    assert int(face_neighbours(found.faces).min()) >= 0
    assert 2 * 3 * 4 < found.volume() <= 3 * 4 * 5


def test_points_on_a_surface_become_the_solid_they_enclose() -> None:
    generator = torch.Generator().manual_seed(0)
    spots = torch.nn.functional.normalize(torch.randn(3000, 3, generator=generator), dim=1) + torch.tensor([5.0, 0, 0])
    colors = (spots[:, :1] > 5.0).float().expand(-1, 3)
    family = Meshes.from_points(spots, colors, {"resolution": 24})
    surface = family.surface()
    assert surface.volume() == pytest.approx(4 / 3 * math.pi, rel=0.15)
    right = surface.vertices[:, 0] > 5.2
    assert float(surface.colors[right].min()) > 0.9  # type: ignore[index]
    solid, _, _ = solid_from_points(spots, 24)
    assert float(solid[tuple(size // 2 for size in solid.shape)]) == 1.0


def test_voxels_become_their_surface_where_they_are() -> None:
    voxels = torch.stack(torch.meshgrid(*[torch.arange(2, 14)] * 3, indexing="ij"), -1).reshape(-1, 3)
    place = (torch.tensor([1.0, 2.0, 3.0]), 0.25)
    family = Meshes.from_voxels(voxels, place, torch.full((len(voxels), 3), 0.2))
    vertices = family.parameters["vertices"].detach()
    middle = place[0] + 8 * 0.25
    assert torch.allclose(0.5 * (vertices.amin(0) + vertices.amax(0)), middle, atol=1e-5)
    assert family.surface().volume() == pytest.approx(3.0**3, rel=0.12)  # edges are rounded off


def test_blocks_become_their_own_mesh() -> None:
    source = blocks(2, level=2)
    source.replace({"logit_opacities": torch.full((2,), 8.0).double()})
    family = Meshes.from_family(source, 0, torch.Generator(), {"edges": "hard"})
    assert len(family) == 2 * 320
    assert family.surface().volume() == pytest.approx(source.surface().volume(), rel=1e-6)  # type: ignore[union-attr]
    assert torch.allclose(family.surface().vertices.double(), source.surface().vertices, atol=1e-6)


def test_samples_are_weighted_by_area_and_opacity() -> None:
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [10, 0, 0], [13, 0, 0], [10, 1, 0]])
    faces = torch.tensor([[0, 1, 2], [3, 4, 5]])
    family = Meshes.from_mesh(vertices, faces, torch.rand(6, 3), {"initial_opacity": 0.5})
    assert torch.allclose(family.areas(), torch.tensor([0.5, 1.5]))
    assert not family.volumes().any()
    family.parameters["logit_opacities"].data[:] = torch.logit(torch.tensor([0.9, 0.1]))
    spots, _ = family.sample_points(4000, torch.Generator().manual_seed(0))
    share = float((spots[:, 0] < 5).float().mean())
    assert share == pytest.approx(0.45 / (0.45 + 0.15), abs=0.03)


def test_frames_are_proper_also_without_a_tangent() -> None:
    normals = torch.nn.functional.normalize(torch.randn(20, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    for tangents in (None, normals, torch.ones(20, 3)):
        frames = tangent_frames(normals, tangents)
        assert torch.allclose(frames.mT @ frames, torch.eye(3).expand(20, 3, 3), atol=1e-5)
        assert torch.allclose(torch.linalg.det(frames), torch.ones(20), atol=1e-5)
        assert torch.allclose(frames[:, :, 2], normals)


# -- losses and errors ------------------------------------------------------------------------------------------------
def test_smoothness_and_evenness_have_no_unit() -> None:
    family = Meshes.sphere(torch.zeros(3), 2.0, {"level": 0})
    terms = family.regularizers(context())
    assert float(terms["edges"]().detach()) == pytest.approx(0, abs=1e-6)
    before = float(terms["smoothness"]().detach())
    family.replace({"vertices": 7 * family.parameters["vertices"].detach()})
    assert float(family.regularizers(context())["smoothness"]().detach()) == pytest.approx(before, rel=1e-5)
    rough = family.parameters["vertices"].detach().clone()
    rough[0] *= 1.5
    family.replace({"vertices": rough})
    terms = family.regularizers(context())
    assert float(terms["smoothness"]().detach()) > 1.02 * before
    assert float(terms["edges"]().detach()) > 0.01


def some_parts() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    parameters = {"vertices": torch.rand(4, 3), "raw_colors": logit(torch.rand(4, 3))}
    return parameters, {"faces": torch.tensor([[0, 1, 2], [0, 2, 3]])}


def test_parts_that_do_not_fit_are_named() -> None:
    parameters, constants = some_parts()
    with pytest.raises(FamilyError, match="`faces` is missing"):
        Meshes(parameters, {}, {})
    with pytest.raises(FamilyError, match="vertex number lies outside"):
        Meshes(parameters, {}, {"faces": torch.tensor([[0, 1, 4]])})
    with pytest.raises(FamilyError, match="either raw_colors per vertex, or raw_texture"):
        Meshes({"vertices": parameters["vertices"]}, {}, constants)
    with pytest.raises(FamilyError, match="raw_colors should have 4 rows"):
        Meshes({**parameters, "raw_colors": torch.zeros(3, 3)}, {}, constants)
    with pytest.raises(FamilyError, match="logit_opacities should have 2 rows"):
        Meshes({**parameters, "logit_opacities": torch.zeros(4)}, {}, constants)
    with pytest.raises(FamilyError, match="edges cannot be 'round'"):
        Meshes(parameters, {"edges": "round"}, constants)


def test_a_trimesh_comes_with_its_colours() -> None:
    trimesh = pytest.importorskip("trimesh", reason="trimesh is not installed")
    made = trimesh.creation.box((1, 2, 3))
    made.visual.vertex_colors = (torch.rand(len(made.vertices), 4) * 255).to(torch.uint8).numpy()
    surface = Surface.from_trimesh(made)
    assert surface.volume() == pytest.approx(6.0)
    assert surface.colors is not None
    wanted = torch.as_tensor(made.visual.vertex_colors[:, :3].copy()).float() / 255
    assert torch.allclose(surface.colors, wanted)
    family = Meshes.from_surface(surface, 1, torch.Generator(), {})
    assert torch.allclose(family.parameters["raw_colors"].detach().sigmoid(), wanted, atol=2e-4)


def test_an_empty_surface_stays_empty() -> None:
    nothing = Surface(torch.zeros(3, 3), torch.zeros(0, 3, dtype=torch.long), torch.zeros(3, 3))
    assert len(Meshes.from_surface(nothing, 100, torch.Generator())) == 0

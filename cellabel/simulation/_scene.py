"""From cells to maps: optical path, stains and labels of one field on the fine grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage

from cellabel.simulation._physics import Physics

__all__ = ["Scene", "render_scene"]

Image = NDArray[np.float32]
Window = tuple[slice, slice]


@dataclass
class Scene:
    """Maps of one field on the fine grid, all (N, N); stains are per pixel with bright structures near 1.

    Attributes:
        path_um: optical path difference against the medium of index 1.337.
        thickness_um: of the cells; nucleus_um of the nuclei.
        label, nucleus: int32, index of the cell + 1, 0 is background.
        stains: nuclei, er, golgi, gfp before any optics.
    """

    path_um: Image
    thickness_um: Image
    nucleus_um: Image
    label: NDArray[np.int32]
    nucleus: NDArray[np.int32]
    stains: dict[str, Image]


@dataclass
class _Patch:
    """One cell on its own window of the grid."""

    window: Window
    thickness: Image
    depth: Image  # 0 in the middle, 1 at the outline
    nucleus: Image  # thickness of the nucleus
    nucleus_at: tuple[float, float]  # µm, x and y
    golgi_towards: float


def render_scene(
    rng: np.random.Generator,
    cells: pd.DataFrame,
    n: int,
    pixel_um: float,
    physics: Physics,
    *,
    delay_min: float = 0.5,
) -> Scene:
    """Render the cells on an (n, n) grid of `pixel_um`; moving cells shift from channel to channel.

    Args:
        rng: of everything that is drawn below the level of the cell.
        cells: of `draw_cells`.
        n: side of the grid.
        pixel_um: of the fine grid.
        physics: the family's numbers.
        delay_min: minutes between channels.
    """
    # the textures first: they take the same numbers from the stream whatever the cells are
    length = physics.er_texture_length_um
    visible, hidden = (_texture(rng, n, length / pixel_um / 2) for _ in range(2))
    scene = Scene(
        path_um=np.zeros((n, n), np.float32),
        thickness_um=np.zeros((n, n), np.float32),
        nucleus_um=np.zeros((n, n), np.float32),
        label=np.zeros((n, n), np.int32),
        nucleus=np.zeros((n, n), np.int32),
        stains={stain: np.zeros((n, n), np.float32) for stain in ("nuclei", "er", "golgi", "gfp")},
    )
    records = cells.to_dict("records")
    patches = [_shape(rng, cell, n, pixel_um, physics) for cell in records]
    for i, patch in enumerate(patches):
        if patch is not None:
            _claim(scene, patch, i)
    texture_um = np.zeros((n, n), np.float32)
    for i, (cell, patch) in enumerate(zip(records, patches, strict=True)):
        if patch is not None:
            _fill(scene, texture_um, cell, patch, i, physics, pixel_um, delay_min)
    scene.path_um += texture_um * visible
    shared = physics.er_visible_r2
    stain_texture = np.sqrt(shared) * visible + np.sqrt(1 - shared) * hidden
    contrast = physics.er_texture_contrast
    scene.stains["er"] *= np.exp(contrast * stain_texture - contrast**2 / 2)
    scene.stains["nuclei"] *= 1 + 0.15 * hidden
    _details(rng, scene, records, patches, pixel_um, physics, delay_min)
    return scene


def _texture(rng: np.random.Generator, n: int, sigma_px: float) -> Image:
    """Unit Gaussian noise of correlation length 2σ."""
    noise = ndimage.gaussian_filter(
        rng.standard_normal((n, n), np.float32), max(sigma_px, 0.3), mode="wrap", truncate=3
    )
    return noise / np.float32(noise.std())


def _outline(rng: np.random.Generator, cell: dict) -> NDArray[np.float32]:
    """Distance of the outline from the centre at 256 angles, µm; the area is the cell's."""
    angle = np.linspace(0, 2 * np.pi, 256, endpoint=False)
    draws = rng.standard_normal(16)
    if cell["state"] in ("adherent",):
        along = angle - cell["angle"]
        stretch = np.sqrt(cell["elongation"])
        outline = 1 / np.hypot(np.cos(along) / stretch, np.sin(along) * stretch)
        for k in range(2, 6):
            outline = outline * (1 + 0.20 / k * draws[k] * np.cos(k * angle + 3 * draws[k + 4]))
        for side, strength in ((0.0, draws[10]), (np.pi, draws[11]), (3 * draws[12], draws[13])):
            outline = outline + 0.35 * max(strength, 0) * np.exp(
                9 * (np.cos(along - side - 0.3 * draws[14]) - 1)
            )
    else:
        wobble = 0.10 if cell["state"] == "dead" else 0.03
        outline = 1 + sum(wobble / k * draws[k] * np.cos(k * angle + 3 * draws[k + 4]) for k in range(2, 6))
    outline = np.maximum(outline, 0.3)
    area = np.mean(outline**2) * np.pi
    return (outline * np.sqrt(cell["area_um2"] / area)).astype(np.float32)


def _shape(rng: np.random.Generator, cell: dict, n: int, pixel_um: float, physics: Physics) -> _Patch | None:
    """The cell's thickness and nucleus; None when it lies outside of the grid."""
    outline = _outline(rng, cell)
    offset, jitter = rng.normal(0, physics.nucleus_offset, 2), rng.normal(0, physics.golgi_angle_sd)
    stretch = float(np.exp(np.abs(rng.normal(0.08, 0.10))))
    reach = float(outline.max())
    x0, y0 = (max(int((cell[a] - reach) / pixel_um) - 1, 0) for a in ("x_um", "y_um"))
    x1, y1 = (min(int((cell[a] + reach) / pixel_um) + 2, n) for a in ("x_um", "y_um"))
    if x1 <= x0 or y1 <= y0:
        return None
    x = (np.arange(x0, x1, dtype=np.float32) + 0.5) * np.float32(pixel_um) - np.float32(cell["x_um"])
    y = (np.arange(y0, y1, dtype=np.float32) + 0.5) * np.float32(pixel_um) - np.float32(cell["y_um"])
    radius = np.hypot(x[None, :], y[:, None])
    turn = np.arctan2(y[:, None], x[None, :]) * np.float32(256 / (2 * np.pi))
    depth = radius / outline[turn.astype(np.int32) % 256]
    mean_radius = np.sqrt(cell["area_um2"] / np.pi)
    nucleus_radius = np.sqrt(cell["nucleus_um2"] / np.pi)
    at = offset * (mean_radius - 0.6 * nucleus_radius)
    c, s = np.float32(np.cos(cell["angle"])), np.float32(np.sin(cell["angle"]))
    u, v = x[None, :] - np.float32(at[0]), y[:, None] - np.float32(at[1])
    across2 = ((c * u + s * v) / stretch) ** 2 + ((c * v - s * u) * stretch) ** 2
    inner = np.maximum(1 - across2 / np.float32(nucleus_radius**2), 0)
    inside = np.maximum(1 - depth**2, 0)
    if cell["state"] == "adherent":
        rim = np.clip((1 - depth) / 0.10, 0, 1)
        nucleus = np.float32(min(0.75 * cell["height_um"], 5.0)) * np.sqrt(inner)
        thickness = cell["height_um"] * (0.22 * rim + 0.78 * inside**1.3)
        thickness = np.where(depth < 1, np.maximum(thickness, 1.08 * nucleus + 0.5), 0)
        nucleus = np.where(depth < 1, nucleus, 0)
    else:
        thickness = cell["height_um"] * np.sqrt(inside)
        nucleus = np.minimum(2 * np.float32(nucleus_radius) * np.sqrt(inner), 0.9 * thickness)
    away = float(np.arctan2(-at[1], -at[0])) + jitter
    centre = (cell["x_um"] + at[0], cell["y_um"] + at[1])
    window = (slice(y0, y1), slice(x0, x1))
    return _Patch(window, thickness.astype(np.float32), depth, nucleus.astype(np.float32), centre, away)


def _claim(scene: Scene, patch: _Patch, i: int) -> None:
    """Where cells meet, the thicker one owns the pixel."""
    thickness, label = scene.thickness_um[patch.window], scene.label[patch.window]
    higher = patch.thickness > thickness
    np.copyto(thickness, patch.thickness, where=higher)
    label[higher] = i + 1


def _moved(window: Window, cell: dict, minutes: float, pixel_um: float, n: int) -> tuple[Window, Window]:
    """Where a moving cell's window lies some minutes later, and the part of it that stays on the grid."""
    step = cell["speed_um_min"] * minutes / pixel_um
    parts = []
    for side, shift in zip(
        window, (round(step * np.sin(cell["heading"])), round(step * np.cos(cell["heading"]))), strict=True
    ):
        start = max(side.start + shift, 0)
        stop = max(min(side.stop + shift, n), start)
        parts.append((slice(start, stop), slice(start - shift - side.start, stop - shift - side.start)))
    return (parts[0][0], parts[1][0]), (parts[0][1], parts[1][1])


def _fill(
    scene: Scene,
    texture_um: Image,
    cell: dict,
    patch: _Patch,
    i: int,
    physics: Physics,
    pixel_um: float,
    delay: float,
) -> None:
    """Path, stains and nucleus of the pixels that the cell owns."""
    own = scene.label[patch.window] == i + 1
    thickness, nucleus = patch.thickness * own, patch.nucleus * own
    cytoplasm = thickness - nucleus
    scene.path_um[patch.window] += cell["cytoplasm_index"] * cytoplasm + cell["nucleus_index"] * nucleus
    texture_um[patch.window] += cell["texture_index"] * np.sqrt(physics.er_texture_length_um * cytoplasm)
    scene.nucleus_um[patch.window] += nucleus
    scene.nucleus[patch.window][nucleus > 0.3] = i + 1
    condensed = cell["state"] in ("dead", "mitotic")  # pyknotic and mitotic chromatin is packed
    chromatin = _packed(patch.nucleus) * own if condensed else nucleus
    volume = max(float((_packed(patch.nucleus) if condensed else patch.nucleus).sum()) * pixel_um**2, 1.0)
    emission = {
        "nuclei": 65.0 * cell["stained_dna"] / 2.7 * chromatin / volume,
        "er": cell["er"] * cytoplasm / 5 * (0.25 + 0.75 * np.exp(-2.0 * patch.depth**2)),
        "golgi": physics.golgi_diffuse * cell["golgi"] * cytoplasm / 5 * np.exp(-2.0 * patch.depth**2),
        "gfp": cell["gfp"] * thickness / 6,
    }
    for channel, (stain, light) in enumerate(emission.items(), start=1):
        there, part = _moved(patch.window, cell, channel * delay, pixel_um, len(scene.label))
        scene.stains[stain][there] += light[part]


def _packed(nucleus: Image) -> Image:
    """Condensed chromatin: a nucleus shrunk to its inner part."""
    return np.sqrt(np.maximum(nucleus - np.float32(0.6) * nucleus.max(initial=0.0), 0))


def _details(
    rng: np.random.Generator,
    scene: Scene,
    records: list[dict],
    patches: list[_Patch | None],
    pixel_um: float,
    physics: Physics,
    delay: float,
) -> None:
    """Nucleoli, vesicles, Golgi and its unstained look-alikes: small bodies, stamped all at once."""
    bodies: dict[str, list[tuple[float, float, float, float]]] = {
        k: [] for k in ("nucleolus", "vesicle", "golgi", "stain")
    }
    for cell, patch in zip(records, patches, strict=True):
        if patch is None or cell["state"] == "dead":
            continue
        nucleus_radius = np.sqrt(cell["nucleus_um2"] / np.pi)
        if cell["state"] != "mitotic":
            _nucleoli(rng, bodies["nucleolus"], cell, patch, nucleus_radius, physics)
        _vesicles(rng, bodies["vesicle"], cell, physics)
        _golgi(rng, bodies, cell, patch, nucleus_radius, physics, delay)
    inside = scene.label > 0
    nucleolus = _stamp(bodies["nucleolus"], scene.label.shape, pixel_um, sphere=True)
    nucleolus[scene.nucleus == 0] = 0
    scene.path_um += nucleolus
    scene.path_um += inside * _stamp(bodies["vesicle"], scene.label.shape, pixel_um, sphere=True)
    scene.path_um += inside * _stamp(bodies["golgi"], scene.label.shape, pixel_um, sphere=False)
    scene.stains["nuclei"] *= 1 - np.minimum(nucleolus / 0.045, 0.6)
    scene.stains["golgi"] += _stamp(bodies["stain"], scene.label.shape, pixel_um, sphere=False)


def _nucleoli(
    rng: np.random.Generator, bodies: list, cell: dict, patch: _Patch, nucleus_radius: float, physics: Physics
) -> None:
    for _ in range(cell["nucleoli"]):
        angle, away = rng.uniform(0, 2 * np.pi), 0.65 * nucleus_radius * np.sqrt(rng.random())
        index = rng.uniform(*physics.nucleolus_index) - cell["nucleus_index"]
        x, y = patch.nucleus_at[0] + away * np.cos(angle), patch.nucleus_at[1] + away * np.sin(angle)
        bodies.append((x, y, rng.uniform(1.0, 2.5) / 2, index))


def _vesicles(rng: np.random.Generator, bodies: list, cell: dict, physics: Physics) -> None:
    k = int(cell["vesicles"])
    angle, away = rng.uniform(0, 2 * np.pi, k), np.sqrt(cell["area_um2"] / np.pi) * rng.uniform(0.3, 0.9, k)
    index = rng.uniform(*physics.vesicle_index, k) - cell["cytoplasm_index"]
    index = np.where(rng.random(k) < 0.08, -cell["cytoplasm_index"], index)  # vacuoles hold water
    radius = rng.uniform(0.15, 0.5, k)
    bodies.extend(
        zip(
            cell["x_um"] + away * np.cos(angle),
            cell["y_um"] + away * np.sin(angle),
            radius,
            index,
            strict=True,
        )
    )


def _golgi(
    rng: np.random.Generator,
    bodies: dict,
    cell: dict,
    patch: _Patch,
    nucleus_radius: float,
    physics: Physics,
    delay: float,
) -> None:
    """A ribbon of 5–8 stacks beside the nucleus, and ribbons of the same path that no stain shows."""
    moved = cell["speed_um_min"] * 3 * delay
    drift = (moved * np.cos(cell["heading"]), moved * np.sin(cell["heading"]))
    for ribbon in range(1 + int(rng.poisson(physics.lookalikes_per_cell))):
        extent, k = rng.uniform(*physics.golgi_extent_um), int(rng.integers(5, 9))
        towards = patch.golgi_towards if ribbon == 0 else rng.uniform(0, 2 * np.pi)
        away = nucleus_radius * 0.95 + 0.3 * extent + rng.uniform(0, 0.6)
        out, round_ = rng.normal(0, 0.18 * extent, k), rng.uniform(-0.45, 0.45, k) * extent
        x = patch.nucleus_at[0] + (away + out) * np.cos(towards) - round_ * np.sin(towards)
        y = patch.nucleus_at[1] + (away + out) * np.sin(towards) + round_ * np.cos(towards)
        radius = rng.uniform(0.9, 1.4, k)
        index = rng.uniform(*physics.golgi_index, k)
        bodies["golgi"].extend(zip(x, y, radius, index * physics.golgi_thickness_um, strict=True))
        if ribbon == 0:
            light = cell["golgi"] * rng.uniform(0.5, 0.8, k)
            bodies["stain"].extend(zip(x + drift[0], y + drift[1], radius, light, strict=True))


def _stamp(bodies: list, shape: tuple[int, int], pixel_um: float, *, sphere: bool) -> Image:
    """Sum of bodies (x, y, radius, amount): thickness of a sphere × amount, or a Gaussian of that height."""
    if not bodies:
        return np.zeros(shape, np.float32)
    x, y, radius, amount = np.asarray(bodies, np.float32).T
    half = int(np.ceil((radius.max() + pixel_um if sphere else 2.2 * radius.max()) / pixel_um)) + 1
    step = np.arange(-half, half + 1)
    rows, columns = np.floor(y / pixel_um).astype(int), np.floor(x / pixel_um).astype(int)
    rows, columns = rows[:, None] + step, columns[:, None] + step
    dy = (rows + 0.5) * pixel_um - y[:, None]
    dx = (columns + 0.5) * pixel_um - x[:, None]
    square = (dy**2)[:, :, None] + (dx**2)[:, None, :]
    if sphere:
        # a pixel averages over its own width: the sphere is widened by it and keeps its volume
        wide = radius**2 + pixel_um**2 / 4
        height = 2 * np.sqrt(np.maximum(wide[:, None, None] - square, 0))
        height *= ((radius**3) / wide**1.5)[:, None, None]
    else:
        height = np.exp(-square / (2 * (0.7 * radius[:, None, None]) ** 2))
    height *= amount[:, None, None]
    on_grid = ((rows >= 0) & (rows < shape[0]))[:, :, None] & ((columns >= 0) & (columns < shape[1]))[
        :, None, :
    ]
    flat = (rows[:, :, None] * shape[1] + columns[:, None, :])[on_grid]
    return np.bincount(flat, height[on_grid], shape[0] * shape[1]).reshape(shape).astype(np.float32)

"""demo_look.py: paints a subject's lasting look over the photograph: shape, colours, hair, beard, glasses.

The shape is one smooth displacement of the whole head; everything else is painted on the photograph before
expressions move it, so that beards, freckles and brows go along with the skin. Glasses lie over the face and
stay where they are. Lengths are pixels of the photograph.
"""

from __future__ import annotations

from functools import cache, lru_cache

import numpy as np
import torch
from demo_face import (
    DENSITY,
    LEFT_BROW,
    LEFT_EYE,
    MOUTH_CENTER,
    OUTLINE,
    PATCH,
    RIGHT_BROW,
    RIGHT_EYE,
    WINDOW,
    Look,
    bell,
    bump,
    photograph,
    without_eyes,
)
from demo_subject import NUM_BUMPS, Camera, Subject
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor

FACE = (
    (184, 74), (188, 73), (196, 78), (206, 80.5), (226, 80.5), (240, 81.5), (250, 84.5), (258, 87.5),
    (266, 88.5), (269, 96), (270, 110), (270, 129), (277, 128), (275, 134), (269, 137), (266, 140),
    (262, 153), (257, 166), (254, 177), (251, 186), (238, 189.5), (224, 188), (206, 185), (192, 182),
    (186.5, 175), (186.5, 152), (183.5, 141), (182, 131), (177, 130), (171, 121), (178, 120), (181, 118),
    (181, 104), (183.5, 88),
)  # fmt: skip
"""Skin of face, ears and neck, clockwise from under the hair at the left."""
SKIN_MEAN, HAIR_MEAN = (0.87, 0.69, 0.58), 0.36
"""Of the photograph: colour of the skin, lightness of the hair."""
LUMA = (0.299, 0.587, 0.114)


@lru_cache(maxsize=2)
def paint(subject: Subject) -> Look:
    """Everything about a person's picture that neither time nor expression changes."""
    rng = np.random.default_rng([*subject.stream, 5])
    x, y = _grid(WINDOW)
    color, alpha = _recolor(subject), _outline().clone()
    color, alpha = _cut_hair(color, alpha, subject, x, y, rng)
    color = develop(_draw_face(color, subject, x, y, rng), subject.camera)
    x0, y0, x1, y1 = (round(v * DENSITY) for v in PATCH)
    left, top = round(WINDOW[0] * DENSITY), round(WINDOW[1] * DENSITY)
    patch = color[:, y0 - top : y1 - top, x0 - left : x1 - left].contiguous()
    px, py = _grid(PATCH)
    return Look(
        portrait=torch.cat([color * alpha, alpha])[None],
        patch=patch[None],
        lids=without_eyes(patch, px, py)[None],
        shape=_shape(subject, rng)[None],
        glasses=_glasses(subject, px, py),
    )


def develop(color: Tensor, camera: Camera) -> Tensor:
    """What a camera makes of colours, `3 H W`: white balance, gamma, saturation."""
    color = torch.lerp(color.mean(0, keepdim=True).expand_as(color), color, camera.saturation)
    return (color.clamp(0.0, 1.0) ** camera.gamma * _rgb(camera.gains)).clamp(0.0, 1.0)


def _grid(window: tuple[int, int, int, int], density: float = DENSITY) -> tuple[Tensor, Tensor]:
    """x and y of each pixel of a window of the photograph."""
    x0, y0, x1, y1 = window
    across = x0 + (torch.arange(round((x1 - x0) * density)) + 0.5) / density
    down = y0 + (torch.arange(round((y1 - y0) * density)) + 0.5) / density
    y, x = torch.meshgrid(down, across, indexing="ij")
    return x, y


# --- masks of the photograph --------------------------------------------------------------------


def _area(polygon: tuple[tuple[float, float], ...], softness: float) -> Tensor:
    """`1 H W`: 1 inside a polygon, over the window."""
    x0, y0, x1, y1 = WINDOW
    mask = Image.new("L", (4 * (x1 - x0), 4 * (y1 - y0)), 0)
    ImageDraw.Draw(mask).polygon([(4 * (x - x0), 4 * (y - y0)) for x, y in polygon], fill=255)
    size = (round((x1 - x0) * DENSITY), round((y1 - y0) * DENSITY))
    mask = mask.filter(ImageFilter.GaussianBlur(4 * softness)).resize(size, Image.Resampling.BOX)
    return torch.from_numpy(np.asarray(mask, np.float32) / 255.0)[None]


@cache
def _outline() -> Tensor:
    return _area(OUTLINE, 1.25)


@cache
def _skin() -> Tensor:
    return _area(FACE, 1.0)


@cache
def _eyes() -> Tensor:
    x, y = _grid(WINDOW)
    open_eyes = [bump(x, y, (cx - 0.5, cy), 6.5, 2.4) for cx, cy in (LEFT_EYE, RIGHT_EYE)]
    return (1.6 * sum(open_eyes)).clamp(0, 1)[None]


@cache
def _teeth() -> Tensor:
    x, y = _grid(WINDOW)
    color = photograph(WINDOW)
    pale = ((0.22 - (color[0] - color[2])) / 0.08).clamp(0, 1)
    across = ((x - MOUTH_CENTER) / 21.0).clamp(-1, 1)
    upper, lower = 143.0 - 3.2 * across**2, 150.0 - 9.0 * across**2
    return (pale * ((y - upper) * (lower - y)).clamp(0, 1) * (across.abs() < 1))[None]


@cache
def _lips() -> Tensor:
    x, y = _grid(WINDOW)
    across = ((x - MOUTH_CENTER) / 23.0).clamp(-1, 1)
    top, bottom = 138.2 + 1.0 * across**2, 157.0 - 14.5 * across**2
    inside = ((y - top) / 1.5).clamp(0, 1) * ((bottom - y) / 1.5).clamp(0, 1)
    return (inside * (1 - across**8))[None] * (1 - _teeth())


def _luma(color: Tensor) -> Tensor:
    return (color * torch.tensor(LUMA)[:, None, None]).sum(0, keepdim=True)


def _rgb(color: tuple[float, float, float]) -> Tensor:
    return torch.tensor(color)[:, None, None]


# --- colours ------------------------------------------------------------------------------------


def _recolor(subject: Subject) -> Tensor:
    """The photograph with other skin, hair, eyes, lips and clothes: `3 H W`."""
    color = photograph(WINDOW)
    luma = _luma(color)
    _, y = _grid(WINDOW)
    above = ((150.0 - y) / 4.0).clamp(0, 1)[None]
    skin = _skin()
    tone = _rgb(subject.skin) * (color / _rgb(SKIN_MEAN)).clamp(min=0.0) ** (1.35 - 0.35 * max(subject.skin))
    hair = _rgb(subject.hair) * (luma / HAIR_MEAN) ** 0.9
    clothes = _rgb(subject.clothes) * (luma / 0.5) ** 0.8
    other = torch.lerp(torch.lerp(color, clothes, 0.92), hair, above)
    painted = torch.lerp(other, tone, skin)
    painted = torch.lerp(painted, _rgb(subject.lips) * (luma / 0.55), 0.75 * _lips())
    painted = torch.lerp(painted, color, (_eyes() + _teeth()).clamp(0, 1))
    x, y = _grid(WINDOW)
    for cx, cy in ((202.2, 100.8), (246.2, 103.2)):
        ring = (4.4 - ((x - cx) ** 2 + (y - cy) ** 2).sqrt()).clamp(0, 1) * ((y - cy + 3.6) / 1.2).clamp(0, 1)
        painted = torch.lerp(painted, _rgb(subject.iris) * (0.35 + 1.6 * luma), 0.85 * ring[None])
    return painted.clamp(0, 1)


def _cut_hair(
    color: Tensor, alpha: Tensor, subject: Subject, x: Tensor, y: Tensor, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Hair as it is, cropped close to the head, down to the shoulders, or under a cap."""
    if subject.cut in ("short", "cap"):
        reach = (((x - 226.5) / 55.0) ** 2 + ((y - 101.0) / 79.0).clamp(max=0) ** 2).sqrt()
        head = ((1.0 - reach) * 14.0).clamp(0, 1)[None]
        alpha = alpha * torch.where(y[None] < 142.0, torch.maximum(head, _skin()), torch.ones(()))
    if subject.cut == "long":
        strands = _noise(x.shape, (6, 90), rng) * 0.5 + _noise(x.shape, (14, 200), rng) * 0.5
        sides = torch.maximum(
            _strand(x, 166.0 - 0.10 * (y - 110), 17.0), _strand(x, 283.0 + 0.10 * (y - 120), 17.0)
        )
        down = ((y - 92.0) / 14.0).clamp(0, 1) * ((232.0 - y + 14 * strands) / 14.0).clamp(0, 1)
        hair = (sides * down)[None] * (1 - 0.9 * _skin())
        color = torch.lerp(color, _rgb(subject.hair) * (0.85 + 0.5 * strands[None]), hair)
        alpha = torch.maximum(alpha, hair)
    if subject.cut == "cap":
        edge = 71.0 + 0.004 * (x - 226.0) ** 2
        ribs = 0.12 * torch.sin(x * 1.6)
        band = 0.25 * ((y - edge + 13.0) / 1.5).clamp(0, 1)
        shade = (0.7 + 0.35 * (1 - ((x - 215.0) / 75.0) ** 2)).clamp(0.3) * (1 + ribs - band)
        cloth = ((edge - y) / 1.5).clamp(0, 1)[None]
        color = torch.lerp(color, (_rgb(subject.cap) * shade).clamp(0, 1), cloth)
    return color.clamp(0, 1), alpha


def _strand(x: Tensor, middle: Tensor, half_width: float) -> Tensor:
    return ((half_width - (x - middle).abs()) / 4.0).clamp(0, 1)


def _noise(shape: torch.Size, cells: tuple[int, int], rng: np.random.Generator) -> Tensor:
    """Smooth noise of so many cells down and across, in [-1, 1]."""
    coarse = torch.from_numpy(rng.uniform(-1, 1, (1, 1, *cells)).astype(np.float32))
    return torch.nn.functional.interpolate(coarse, tuple(shape), mode="bilinear", align_corners=True)[0, 0]


# --- what is drawn on the face ------------------------------------------------------------------


def _draw_face(color: Tensor, subject: Subject, x: Tensor, y: Tensor, rng: np.random.Generator) -> Tensor:
    """Brows, freckles, lines of age, beard."""
    skin = _skin() * (1 - _lips()) * (1 - _teeth()) * (1 - _eyes())
    dark = torch.tensor([0.55, 0.75, 0.85])[:, None, None]
    lines = subject.age * _lines_of_age(x, y)[None]
    spots = _freckles(subject, x, y, rng)[None]
    color = color * (1 - dark * (0.5 * lines + spots).clamp(0, 0.7) * skin)
    hair = _rgb(subject.hair) * (0.8 + 0.3 * _noise(x.shape, (240, 240), rng))
    brows = subject.brow_weight * _brows(x, y, subject.brow_weight)[None]
    color = torch.lerp(color, 0.7 * hair, (0.9 * brows).clamp(0, 0.9) * skin)
    beard = _beard(subject.beard, x, y)[None] * (0.8 + 0.35 * _noise(x.shape, (200, 200), rng))
    return torch.lerp(color, 0.85 * hair, beard.clamp(0, 0.93) * skin).clamp(0, 1)


def _brows(x: Tensor, y: Tensor, weight: float) -> Tensor:
    brows = torch.zeros_like(x)
    for (cx, cy), slope in ((LEFT_BROW, -0.01), (RIGHT_BROW, 0.02)):
        along = ((x - cx) / 12.5).clamp(-1.2, 1.2)
        middle = cy + 1.8 * along**2 + slope * (x - cx)
        stroke = bell(((y - middle) / (0.9 + 1.1 * weight)) ** 2) * (along.abs() < 1.05)
        brows = torch.maximum(brows, stroke)
    return brows


def _freckles(subject: Subject, x: Tensor, y: Tensor, rng: np.random.Generator) -> Tensor:
    """Freckles over nose and cheeks, and a few moles, which most people have."""
    spots = []
    for _ in range(round(70 * subject.freckles)):
        spots.append((0.4, rng.normal(224, 20), rng.normal(118, 7), rng.uniform(0.5, 0.9)))
    for _ in range(rng.integers(0, 4)):
        spots.append((0.9, rng.uniform(190, 260), rng.uniform(106, 168), rng.uniform(0.8, 1.5)))
    painted = torch.zeros_like(x)
    for depth, cx, cy, radius in spots:
        left, top = (int((v - v0 - 6.0) * DENSITY) for v, v0 in ((cx, WINDOW[0]), (cy, WINDOW[1])))
        near = slice(top, top + 15), slice(left, left + 15)
        painted[near] += depth * bump(x[near], y[near], (cx, cy), radius, radius)
    return painted


def _lines_of_age(x: Tensor, y: Tensor) -> Tensor:
    lines = torch.zeros_like(x)
    strokes = [((207, 126), (198, 146)), ((243, 127), (253, 147))]  # from the nose to the corners of the mouth
    strokes += [((189, 99 + d), (182, 96 + 3 * d)) for d in (0, 2, 4)]  # crow's feet
    strokes += [((261, 101 + d), (268, 98 + 3 * d)) for d in (0, 2, 4)]
    strokes += [((196, 110), (211, 109)), ((238, 111), (254, 112)), ((206, 84), (250, 86))]
    for (ax, ay), (bx, by) in strokes:
        along = (((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / ((bx - ax) ** 2 + (by - ay) ** 2)).clamp(0, 1)
        distance = (x - ax - along * (bx - ax)) ** 2 + (y - ay - along * (by - ay)) ** 2
        lines = torch.maximum(lines, bell(distance / 1.2**2))
    return lines


def _beard(kind: str, x: Tensor, y: Tensor) -> Tensor:
    if kind == "none":
        return torch.zeros_like(x)
    across = (x - MOUTH_CENTER) / 42.0
    jaw = ((y - 137.0) / 8.0).clamp(0, 1)
    sides = ((across.abs() - 0.62) / 0.2).clamp(0, 1) * ((y - 112.0) / 14.0).clamp(0, 1)
    low = ((y - 155.0) / 6.0).clamp(0, 1)
    under = ((184.0 - y) / 10.0).clamp(0, 1)
    moustache = bump(x, y, (MOUTH_CENTER, 135.5), 13.0, 2.6)
    if kind == "moustache":
        return 1.1 * moustache
    if kind == "goatee":
        return torch.maximum(moustache, bump(x, y, (MOUTH_CENTER, 168.0), 11.0, 8.0) * 1.3)
    cheeks = torch.maximum(sides, jaw * (2.5 * across.abs() - 0.9).clamp(0, 1))
    full = torch.maximum(torch.maximum(moustache, low), cheeks)
    return (0.38 if kind == "stubble" else 0.95) * full.clamp(0, 1) * under


def _glasses(subject: Subject, x: Tensor, y: Tensor) -> Tensor:
    """`4 H W` over the moving patch: colour of the rims and how much they cover."""
    rims = torch.zeros_like(x)
    power = {"none": 0, "round": 2, "square": 6}[subject.glasses]
    if power:
        shift = subject.shape["eye_distance"] * 0.2
        for cx, cy, side in ((*LEFT_EYE, -1.0), (*RIGHT_EYE, 1.0)):
            rx, ry = (14.0, 12.5) if power == 2 else (16.5, 10.5)
            across, down = (x - cx - side * shift).abs() / rx, (y - cy - 1.0).abs() / ry
            radius = (across**power + down**power) ** (1 / power)
            rims = torch.maximum(rims, (1.6 - (radius - 1.0).abs() * 12.0).clamp(0, 1))
        bridge = (1.3 - (y - 100.0).abs()).clamp(0, 1) * ((x - 225.2).abs() < 8.0)
        temples = (1.3 - (y - 99.5).abs()).clamp(0, 1) * ((x - 225.2).abs() > 37.0) * ((x - 225.2).abs() < 46.0)
        rims = torch.maximum(torch.maximum(rims, bridge), temples)
    return torch.cat([torch.tensor(subject.rim)[:, None, None].expand(3, *x.shape), 0.95 * rims[None]])


# --- shape --------------------------------------------------------------------------------------


def _shape(subject: Subject, rng: np.random.Generator) -> Tensor:
    """`2 h w` over the window: where this person's face is fetched from, relative to each point, in pixels."""
    trait = subject.shape
    x, y = _grid(WINDOW, 0.5)
    cx, cy = 225.0, 118.0
    head = bell(((x - cx) / 75.0) ** 4 + ((y - 100.0) / 95.0) ** 4)
    lower = ((y - 118.0) / 45.0).clamp(0, 1) * bell(((y - 155.0) / 40.0) ** 4)
    upper = ((cy - y) / 60.0).clamp(0, 1)
    dx = -(x - cx) * head * (trait["face_width"] + trait["jaw_width"] * lower)
    dy = -(y - cy) * head * trait["face_length"]
    dy = dy - trait["chin_length"] * bump(x, y, (cx, 172.0), 36.0, 16.0)
    dy = dy + trait["forehead"] * upper * bell(((x - cx) / 50.0) ** 4)
    for (ex, ey), side in ((LEFT_EYE, -1.0), (RIGHT_EYE, 1.0)):
        near, wide = bump(x, y, (ex, ey), 12.0, 9.0), bump(x, y, (ex, ey), 15.0, 12.0)
        dx = dx - trait["eye_size"] * (x - ex) * near - side * trait["eye_distance"] * wide
        dy = dy - trait["eye_size"] * (y - ey) * near - trait["eye_height"] * wide
        dy = dy + trait["eye_slant"] * side * (x - ex) / 12.0 * near
        dy = dy + trait["brow_height"] * bump(x, y, (ex, ey - 12.0), 15.0, 6.0)
        cheek = bump(x, y, (ex + side * 16.0, 134.0), 14.0, 20.0)
        dx = dx - side * trait["cheek_fullness"] * cheek
    nose = bump(x, y, (224.5, 125.0), 13.0, 12.0)
    dx = dx - trait["nose_width"] * (x - 224.5) * nose
    dy = dy - trait["nose_length"] * nose
    mouth = bump(x, y, (MOUTH_CENTER, 145.0), 24.0, 11.0)
    dx = dx - trait["mouth_width"] * (x - MOUTH_CENTER) * mouth
    dy = dy - trait["mouth_height"] * mouth - trait["lip_fullness"] * (y - 146.0) * mouth
    outside = ((((x - 226.0) / 46.0) ** 2 + ((y - 108.0) / 62.0) ** 2).sqrt() - 1.0).clamp(0, 1) * (y < 150)
    dx = dx - trait["hair_volume"] * (x - 226.0) * outside * head
    dy = dy - trait["hair_volume"] * (y - 108.0) * outside * head
    dx = dx + trait["turn"] * ((x - cx) ** 2 / 60.0 - 15.0) * head
    dx = dx + trait["lean"] * (y - cy) * head
    for _ in range(NUM_BUMPS):
        center = (rng.uniform(180, 270), rng.uniform(80, 180))
        own = bump(x, y, center, 16.0, 16.0)
        push = rng.uniform(-2.2, 2.2, 2)
        dx, dy = dx + push[0] * own, dy + push[1] * own
    return torch.stack([dx, dy])

"""demo_face.py: a photographed face that makes expressions: smooth warps of brows, eyes, nose and mouth.

The photograph is scikit-image's `astronaut.png`: Eileen Collins, official NASA portrait, public domain. Her
smile is taken back to rest first; every expression is then a sum of a few *actions* (after the action units of
Ekman & Friesen's FACS), each a displacement field with an amount between 0 and 1. Pixels move, and only three
things are painted: the dark of an open mouth, the lid of a closing eye, and the shade of a crease.

Lengths are pixels of the photograph (512 x 512) unless said otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from PIL import Image
from skimage.data import astronaut
from torch import Tensor
from torch.nn.functional import grid_sample

ACTIONS = (
    "smile",  # corners of the mouth out and up, cheeks up (AU 12; below zero: corners down, AU 15)
    "lip_stretch",  # corners apart and slightly down, lips taut (AU 20)
    "mouth_open",  # jaw dropped (AU 26)
    "nose_wrinkle",  # nose wings and upper lip up, creases beside the nose (AU 9 + 10)
    "brow_raise",  # whole brows up (AU 1 + 2)
    "brow_lower",  # brows down and together, creases between (AU 4)
    "inner_brow_raise",  # inner ends of the brows up (AU 1)
    "eye_widen",  # upper lids up (AU 5)
    "eye_close",  # lids together; 1 is shut (AU 43, 45)
)

WINDOW = (20, 0, 370, 340)
"""x0, y0, x1, y1 of the photograph that are used: head and shoulders."""
PATCH = (176, 64, 276, 188)
"""x0, y0, x1, y1 of the part that moves."""
FACE_CENTER = (224.5, 118.0)
FACE_HEIGHT = 112.0
"""Of the box that MTCNN puts around the face at rest."""
DENSITY = 1.25
"""Pixels in which warps are computed, per pixel of the photograph, along a side."""

OUTLINE = (
    (154, 78), (155, 65), (162, 54), (172, 46), (184, 38), (190, 33), (198, 26), (208, 21),
    (220, 18), (232, 16), (246, 18), (258, 22), (268, 28), (280, 34), (289, 41), (294, 52),
    (297, 62), (300, 74), (301, 85), (300, 93), (297, 104), (291, 112), (284, 119), (277, 127),
    (274, 134), (270, 136), (266, 134), (265, 142), (262, 152), (258, 161), (256, 172), (268, 181),
    (280, 192), (290, 205), (298, 218), (304, 232), (318, 240), (330, 250), (339, 262), (345, 278),
    (351, 290), (356, 310), (360, 330), (361, 345), (28, 345), (30, 330), (36, 310), (42, 293),
    (51, 278), (59, 262), (67, 249), (75, 239), (86, 228), (101, 217), (112, 207), (114, 195),
    (118, 187), (126, 181), (130, 172), (138, 163), (148, 156), (160, 151), (170, 150), (184, 150),
    (183, 141), (182, 132), (178, 130), (175, 124), (170, 117), (164, 108), (158, 100), (155, 90),
)  # fmt: skip
"""Head, collar and shoulders, clockwise from the left of the hair; what is outside is background."""

LEFT_EYE, RIGHT_EYE = (203.5, 101.0), (247.0, 103.5)
LEFT_BROW, RIGHT_BROW = (201.0, 88.5), (251.0, 91.0)
LEFT_CORNER, RIGHT_CORNER = (203.5, 140.0), (245.0, 141.0)
MOUTH_CENTER, MOUTH_HALF_WIDTH = 224.2, 21.5

REST = {"smile": -0.95, "lip_stretch": -0.15}
"""What turns the photograph's smile into a face at rest; the lips are closed besides."""
MOUTH_INSIDE = (0.16, 0.05, 0.05)
"""Colour behind the teeth."""
SHADE = (0.75, 1.0, 1.1)
"""How much a crease takes from red, green and blue: skin in shade turns warmer, not grey."""


@dataclass(frozen=True)
class MovingPatch:
    """Everything about the moving patch that does not depend on time; rows of `P` are its pixels."""

    displacement: Tensor
    """`A 2 P`: where to fetch a pixel from, relative to it, per unit of each action."""
    crease: Tensor
    """`A P`: darkening per unit of each action."""
    grid: Tensor
    """`2 P`: x, y of each pixel."""
    edge: Tensor
    """`H W`: 1 inside, fading to 0 at the border of the patch."""


@dataclass(frozen=True)
class Look:
    """One person's picture, as far as neither time nor expression changes it; see `demo_look.py`."""

    portrait: Tensor
    """`1 4 H W`: head and shoulders over `WINDOW`: RGB in [0, 1] multiplied by alpha, and alpha."""
    patch: Tensor
    """`1 3 H W`: the face over `PATCH`, in [0, 1]."""
    lids: Tensor
    """`1 3 H W`: the same with skin where the eyes are."""
    glasses: Tensor
    """`4 H W` over `PATCH`: colour of the rims, and how much they cover."""
    shape: Tensor
    """`1 2 h w` over `WINDOW`: where a point is fetched from, relative to it, in pixels of the photograph."""


@cache
def photograph(window: tuple[int, int, int, int]) -> Tensor:
    """`3 H W` in [0, 1], `DENSITY` pixels per pixel."""
    x0, y0, x1, y1 = window
    size = (round((x1 - x0) * DENSITY), round((y1 - y0) * DENSITY))
    cut = Image.fromarray(astronaut()).resize(size, Image.Resampling.BICUBIC, box=window)
    return torch.from_numpy(np.asarray(cut, np.float32) / 255.0).permute(2, 0, 1)


@cache
def moving_patch() -> MovingPatch:
    x0, y0, x1, y1 = PATCH
    height, width = round((y1 - y0) * DENSITY), round((x1 - x0) * DENSITY)
    y, x = torch.meshgrid(
        y0 + (torch.arange(height) + 0.5) / DENSITY, x0 + (torch.arange(width) + 0.5) / DENSITY, indexing="ij"
    )
    displacement = torch.stack([torch.stack(_displacement(action, x, y)) for action in ACTIONS])
    crease = torch.stack([_crease(action, x, y) for action in ACTIONS])
    to_border = torch.stack([x - x0, x1 - x, y - y0, y1 - y]).amin(0)
    return MovingPatch(
        displacement=-displacement.flatten(2),  # moved by +d: fetched from -d
        crease=crease.flatten(1),
        grid=torch.stack([x, y]).flatten(1),
        edge=(to_border / 5.0).clamp(0.0, 1.0),
    )


def bell(distance: Tensor) -> Tensor:
    """`exp(-distance / 2)` of squared distances; far away it stays above denormal numbers, which are slow."""
    return torch.exp(-0.5 * distance.clamp(max=40.0))


def bump(x: Tensor, y: Tensor, center: tuple[float, float], sx: float, sy: float) -> Tensor:
    return bell(((x - center[0]) / sx) ** 2 + ((y - center[1]) / sy) ** 2)


def _displacement(action: str, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Where one unit of `action` moves the face, in x and y.

    No bump is steeper than one pixel a pixel, so that nothing folds over.
    """
    still = torch.zeros_like(x)
    corners = [bump(x, y, c, 9.0, 8.0) for c in (LEFT_CORNER, RIGHT_CORNER)]
    brows = sum(bump(x, y, c, 13.0, 4.5) for c in (LEFT_BROW, RIGHT_BROW))
    inner = [bump(x, y, c, 6.5, 5.0) for c in ((211.0, 90.5), (240.5, 92.5))]
    if action == "smile":
        cheeks = sum(bump(x, y, c, 9.0, 8.0) for c in ((199.0, 122.0), (250.0, 124.0)))
        return 4.0 * (corners[1] - corners[0]), -6.0 * (corners[0] + corners[1]) - 2.0 * cheeks
    if action == "lip_stretch":
        return 7.0 * (corners[1] - corners[0]), 2.5 * (corners[0] + corners[1])
    if action == "nose_wrinkle":
        nose = bump(x, y, (224.5, 128.0), 11.0, 7.0)
        lip = bump(x, y, (224.5, 140.0), 11.0, 6.0)
        bridge = bump(x, y, (225.0, 108.0), 10.0, 7.0)
        return still, -3.0 * nose - 5.5 * lip + 1.5 * bridge
    if action == "brow_raise":
        return still, -5.0 * brows
    if action == "brow_lower":
        return 2.5 * (inner[0] - inner[1]), 4.0 * brows + 2.5 * (inner[0] + inner[1])
    if action == "inner_brow_raise":
        return still, -5.0 * (inner[0] + inner[1])
    if action == "eye_widen":
        eyes = (LEFT_EYE, RIGHT_EYE)
        return still, sum(0.55 * (y - c[1]) * bump(x, y, c, 9.0, 5.0) for c in eyes)
    return still, still  # mouth_open and eye_close are not displacements alone: see `_open` and `_blink`


def _crease(action: str, x: Tensor, y: Tensor) -> Tensor:
    def line(start: tuple[float, float], end: tuple[float, float], width: float) -> Tensor:
        (ax, ay), (bx, by) = start, end
        along = (((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / ((bx - ax) ** 2 + (by - ay) ** 2)).clamp(0, 1)
        distance = (x - ax - along * (bx - ax)) ** 2 + (y - ay - along * (by - ay)) ** 2
        return bell(distance / width**2) * (4 * along * (1 - along)).clamp(0.15, 1).sqrt()

    if action == "nose_wrinkle":
        bridge = sum(line((218, h + 1), (232, h), 1.2) for h in (106, 111))
        folds = line((209, 122), (199, 138), 2.2) + line((241, 122), (251, 139), 2.2)
        return 0.20 * bridge + 0.32 * folds
    if action == "brow_lower":
        return 0.28 * (line((220, 88), (222, 99), 1.4) + line((229.5, 88.5), (228, 99.5), 1.4))
    if action == "brow_raise":
        return 0.16 * sum(line((200, h), (250, h + 1.5), 0.8) for h in (83, 86))
    if action == "lip_stretch":
        return 0.22 * (line((197, 134), (198, 150), 1.5) + line((251, 135), (250, 151), 1.5))
    return torch.zeros_like(x)


def without_eyes(patch: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The patch with lids over the eyes: skin from above and below each eye."""
    lids = patch.clone()
    for cx, cy in (LEFT_EYE, RIGHT_EYE):
        top, bottom = (int(((y[:, 0] - (cy + d)).abs()).argmin()) for d in (-7.5, 8.0))
        weight = ((torch.arange(top, bottom + 1) - top) / (bottom - top))[None, :, None]
        skin = lids[:, top : top + 1] * (1 - weight) + lids[:, bottom : bottom + 1] * weight
        inside = torch.zeros_like(x)
        inside[top : bottom + 1] = _soft_ellipse(x, y, (cx, cy), 13.0, 6.5)[top : bottom + 1]
        filled = lids.clone()
        filled[:, top : bottom + 1] = skin
        lids = torch.lerp(lids, filled, inside.expand_as(lids))
    return lids


def _soft_ellipse(x: Tensor, y: Tensor, center: tuple[float, float], rx: float, ry: float) -> Tensor:
    radius = (((x - center[0]) / rx) ** 2 + ((y - center[1]) / ry) ** 2).sqrt()
    return ((1.0 - radius) * 4.0).clamp(0.0, 1.0)


def expressions(actions: Tensor, look: Look) -> Tensor:
    """The moving patch under each row of action amounts.

    :param actions: `N A`, in the order of `ACTIONS`; 0 is a face at rest.
    :return: `N 4 H W`: RGB in [0, 1] and the patch's own alpha, which fades at its border.
    """
    moving = moving_patch()
    height, width = moving.edge.shape
    n = len(actions)
    amounts = actions.clone()
    for name, value in REST.items():
        amounts[:, ACTIONS.index(name)] += value
    x, y = (moving.grid + (amounts @ moving.displacement.flatten(1)).view(n, 2, -1)).unbind(1)
    amount = {name: actions[:, i, None].clamp(min=0.0) for i, name in enumerate(ACTIONS)}
    y, inside = _part_lips(x, y, amount["smile"], amount["mouth_open"])
    source = _to_grid(x, y, PATCH).view(n, height, width, 2)
    picture = grid_sample(look.patch.expand(n, -1, -1, -1), source, align_corners=False, padding_mode="border")
    picture = _blink(picture, look, source, amount["eye_close"], x, y)
    dark = torch.tensor(MOUTH_INSIDE)[:, None, None]
    picture = torch.lerp(picture, dark.expand_as(picture), inside.view(n, 1, height, width))
    crease = (actions.clamp(min=0.0) @ moving.crease).view(n, 1, height, width)
    picture = picture * (1.0 - crease * torch.tensor(SHADE)[:, None, None]).clamp(0.2, 1.0)
    picture = torch.lerp(picture, look.glasses[:3].expand_as(picture), look.glasses[3:].expand_as(picture))
    return torch.cat([picture, moving.edge.expand(n, 1, -1, -1)], dim=1)


def _part_lips(x: Tensor, y: Tensor, smile: Tensor, mouth_open: Tensor) -> tuple[Tensor, Tensor]:
    """Close the photograph's lips over the teeth, then part them.

    A smile shows the teeth again, as they are in the photograph; an open mouth drops lower lip and jaw by up to
    15 px. Returns the rows to fetch from, and how much of each pixel lies in the dark behind the teeth.
    """
    across = ((x - MOUTH_CENTER) / MOUTH_HALF_WIDTH).clamp(-1.0, 1.0)
    upper = 143.2 - 3.2 * across**2 + 0.02 * (x - MOUTH_CENTER)
    lower = 149.8 - 9.4 * across**2 + 0.02 * (x - MOUTH_CENTER)
    rest = 0.5 * (upper + lower)
    parted = smile.clamp(max=1.0)
    top = torch.lerp(rest, upper, parted)
    drop = 15.0 * mouth_open
    gap = drop * (1.0 - across**2).clamp(min=0.0).sqrt()
    bottom = torch.lerp(rest, lower, parted) + gap
    jaw = drop * ((188.0 - y) / 22.0).clamp(0.0, 1.0) * bell(((x - MOUTH_CENTER) / 26.0) ** 4)
    near_bottom = bell(((y - bottom) / 6.0) ** 2)
    from_above = y - (top - upper) * bell(((y - top) / 5.0) ** 2)
    from_below = y - torch.lerp(jaw, bottom - lower, near_bottom)
    from_teeth = upper + (y - top)  # the upper teeth hang from the upper jaw
    source = torch.where(y <= top, from_above, torch.where(y >= bottom, from_below, from_teeth))
    hidden = (0.5 * (1.0 - parted)).clamp(min=0.0)
    behind = ((y - top - 0.8 * (lower - upper)) / 2.5).clamp(0.0, 1.0) * (mouth_open > 0)
    inside = torch.minimum(y - top, bottom - y).clamp(0.0, 1.0)
    return source, inside * torch.maximum(hidden, behind)


def _blink(picture: Tensor, look: Look, source: Tensor, closed: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Lids come down over the eyes as far as `closed` says, lashes on their edge."""
    if not bool((closed > 0).any()):
        return picture
    lids = grid_sample(
        look.lids.expand(len(picture), -1, -1, -1), source, align_corners=False, padding_mode="border"
    )
    cover, lashes = torch.zeros_like(x), torch.zeros_like(x)
    shut = closed.clamp(max=1.0)
    for cx, cy in (LEFT_EYE, RIGHT_EYE):
        # The edge of the lid: an arch over the open eye, hanging over the closed one.
        line = cy - 4.5 + 8.0 * shut + (0.04 - 0.06 * shut) * (x - cx) ** 2
        near = ((x - cx).abs() < 14.0) & ((y - cy).abs() < 9.0)
        cover = torch.where(near, (0.7 * (line - y) + 0.5).clamp(0.0, 1.0), cover)
        lash = bell(((y - line) / 0.9) ** 2) * (10.5 - (x - cx).abs()).clamp(0.0, 1.0)
        lashes = torch.maximum(lashes, lash * near)
    shape = (len(picture), 1, *picture.shape[2:])
    moving = (closed / 0.2).clamp(max=1.0)
    return torch.lerp(picture, lids, (cover * moving).view(shape)) * (1 - 0.6 * lashes * moving).view(shape)


def _to_grid(x: Tensor, y: Tensor, window: tuple[int, int, int, int]) -> Tensor:
    """Photograph coordinates → `grid_sample`'s, for a picture of `window`."""
    x0, y0, x1, y1 = window
    return torch.stack([2 * (x - x0) / (x1 - x0) - 1, 2 * (y - y0) / (y1 - y0) - 1], dim=-1)


def compose(
    actions: Tensor,
    look: Look,
    background: Tensor,
    center: Tensor,
    face_height: Tensor,
    angle: Tensor,
    mirror: bool,
) -> Tensor:
    """Frames of a person before a background.

    :param actions: `N A`, amounts in the order of `ACTIONS`.
    :param background: `3 H W` in [0, 1]; its size is the frames'.
    :param center: `N 2`: middle of the face, x and y in pixels of the frame.
    :param face_height: `N`, in pixels of the frame.
    :param angle: `N`: head tilt in radians.
    :param mirror: left and right exchanged.
    :return: `N 3 H W` in [0, 1].
    """
    _, height, width = background.shape
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    scale = (FACE_HEIGHT / face_height).view(-1, 1, 1)
    dx, dy = x - center[:, 0].view(-1, 1, 1), y - center[:, 1].view(-1, 1, 1)
    cos, sin = torch.cos(angle).view(-1, 1, 1) * scale, torch.sin(angle).view(-1, 1, 1) * scale
    px = FACE_CENTER[0] + (-1.0 if mirror else 1.0) * (cos * dx + sin * dy)
    py = FACE_CENTER[1] - sin * dx + cos * dy
    n = len(actions)
    shape = grid_sample(look.shape.expand(n, -1, -1, -1), _to_grid(px, py, WINDOW), align_corners=False)
    px, py = px + shape[:, 0], py + shape[:, 1]
    body = grid_sample(look.portrait.expand(n, -1, -1, -1), _to_grid(px, py, WINDOW), align_corners=False)
    face = grid_sample(expressions(actions, look), _to_grid(px, py, PATCH), align_corners=False)
    color = torch.lerp(body[:, :3], face[:, :3] * body[:, 3:], face[:, 3:])
    return color + background * (1.0 - body[:, 3:])

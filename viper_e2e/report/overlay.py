"""overlay.py: the overlay on a clip's pictures: the face's box, and the numbers of the moment."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from viper_e2e.labels import LabelSet
from viper_e2e.model import Record
from viper_e2e.report.drawing import clock, place_of, span_of, words
from viper_e2e.report.prediction_bars import Bar, Part, parts_said

_log = logging.getLogger(__name__)

_BOX, _BAR, _TRACK, _PANEL = (255, 214, 10), (86, 180, 233, 255), (95, 95, 95, 220), (0, 0, 0, 150)

_GRACE_SECONDS = 0.5
"""So long the numbers stay after the last window: pictures may outlast what was measured of a clip."""

Box = tuple[float, float, float, float]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


class Overlay:
    """The panel over a frame, at any second, from the records of a clip or of its windows."""

    def __init__(
        self,
        records: Sequence[Record],
        display_size: tuple[int, int],
        canvas: tuple[int, int],
        labels: LabelSet | None,
        name: str,
    ):
        """``records``: with ``boxes``, in order of time; ``canvas``: size of the pictures that are drawn on;
        ``labels``: None where the numbers are intensities from 0 to 1."""
        self.records, self.canvas, self.labels, self.name = records, canvas, labels, name
        self.scale = canvas[0] / display_size[0], canvas[1] / display_size[1]
        self.track = BoxTrack(_joined(records))
        centres = [(box[0] + box[2]) / 2 for box in self.track.boxes if box is not None]
        self.face_is_left = bool(centres) and float(np.median(centres)) < display_size[0] / 2
        # A moment belongs to the window whose middle is nearest.
        middles = [sum(record["window_seconds"]) / 2 for record in records] if len(records) > 1 else []
        self.borders = [(a + b) / 2 for a, b in pairwise(middles)]
        self._drawn: tuple[int, Image.Image] = (-1, Image.new("RGBA", (1, 1)))

    def draw(self, image: Image.Image, seconds: float) -> None:
        """Box and panel of this second of the clip, onto its picture."""
        found = self.track.at(seconds)
        if found is not None:
            box, interpolated = found
            corners = [value * self.scale[i % 2] for i, value in enumerate(box)]
            draw_box(image, corners, dashed=interpolated)
        number = int(np.searchsorted(self.borders, seconds, side="right"))
        span = self.records[number].get("window_seconds")
        if span is None or seconds <= span[1] + _GRACE_SECONDS:
            panel = self._panel(number)
            image.paste(panel, self._corner(panel), panel)

    def _panel(self, number: int) -> Image.Image:
        if self._drawn[0] != number:
            record = self.records[number]
            span = record.get("window_seconds")
            title = f"{clock(*span)}  {self.name}" if span else self.name
            if self.labels is None:
                self._drawn = number, bar_panel(record["intensities"], self.canvas, title=title)
            else:
                parts = parts_said(record["intensities"], self.labels, record.get("intervals"))
                self._drawn = number, panel_of(parts, self.canvas, title)
        return self._drawn[1]

    def _corner(self, panel: Image.Image) -> tuple[int, int]:
        """Corner of the panel: at the bottom, on the side where the face mostly is not."""
        margin = self.canvas[1] // 40
        x = self.canvas[0] - panel.width - margin if self.face_is_left else margin
        return max(x, 0), max(self.canvas[1] - panel.height - margin, 0)


class BoxTrack:
    """The face box of a record at any time of its clip."""

    def __init__(self, record: Record):
        self.seconds = np.asarray(record["frame_seconds"], np.float64)
        self.boxes = record["boxes"]

    def at(self, seconds: float) -> tuple[Box, bool] | None:
        """The box and whether it is interpolated in the record; None where there is no face.

        Between a frame with a face and one without, the nearer one decides.
        """
        after = int(np.searchsorted(self.seconds, seconds, side="right"))
        before, after = max(after - 1, 0), min(after, len(self.seconds) - 1)
        span = self.seconds[after] - self.seconds[before]
        share = float(np.clip((seconds - self.seconds[before]) / span, 0, 1)) if span > 0 else 0.0
        ends = self.boxes[before], self.boxes[after]
        if ends[0] is None or ends[1] is None:
            nearer = ends[round(share)]
            return None if nearer is None else (tuple(nearer[:4]), nearer[4] == "interpolated")
        box = tuple((1 - share) * a + share * b for a, b in zip(ends[0][:4], ends[1][:4], strict=True))
        return box, ends[round(share)][4] == "interpolated"


def _joined(records: Sequence[Record]) -> Record:
    """Frames and boxes of all records in order of time; a frame in two windows has the box of either."""
    boxes: dict[float, list | None] = {}
    for record in records:
        for seconds, box in zip(record["frame_seconds"], record["boxes"], strict=True):
            boxes[seconds] = boxes.get(seconds) or box
    seconds = sorted(boxes)
    return {"frame_seconds": seconds, "boxes": [boxes[at] for at in seconds]}


def draw_box(image: Image.Image, box: list[float], *, dashed: bool) -> None:
    """Outline a box (x0 y0 x1 y1, upper ends exclusive) where it is, never outside the picture."""
    draw = ImageDraw.Draw(image)
    thick = max(3, round(min(image.size) / 180))
    x0, y0 = (min(max(value, 0), side - 1) for value, side in zip(box[:2], image.size, strict=True))
    x1, y1 = (min(max(value - 1, 0), side - 1) for value, side in zip(box[2:], image.size, strict=True))
    corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)]
    for a, b in pairwise(corners):
        length = max(abs(b[0] - a[0]), abs(b[1] - a[1]), 1)
        dash = 4 * thick if dashed else length
        for start in np.arange(0, length, 2 * dash if dashed else dash):
            ends = [min(at, length) / length for at in (start, start + dash)]
            points = [tuple(p + end * (q - p) for p, q in zip(a, b, strict=True)) for end in ends]
            draw.line(points, fill=_BOX, width=thick)


def bar_panel(
    intensities: Mapping[str, float | None],
    canvas: tuple[int, int],
    limits: tuple[float, float] = (0.0, 1.0),
    title: str = "",
) -> Image.Image:
    """A panel of intensities alone."""
    bars = {name: Bar(name, value, limits) for name, value in intensities.items()}
    return panel_of([Part("", bars)], canvas, title)


def panel_of(parts: Sequence[Part], canvas: tuple[int, int], title: str = "") -> Image.Image:
    """A see-through panel that fits into the canvas: a title, a heading where a part has one, and a name, a bar
    and a number per label.

    Bars begin where zero is. What is chosen stands in the colour of the face's box; an interval is a thin line.
    """
    lines: list[str | Bar] = [title] if title else []
    for part in parts:
        lines += [part.heading] if part.heading else []
        lines += part.bars.values()
    bars = [line for line in lines if isinstance(line, Bar)]
    load = _font_for(*(words(line.name) if isinstance(line, Bar) else line for line in lines))
    size = min(28.0, min(canvas) / 30)
    while True:
        font = load(max(size, 4))
        names_width = max(font.getlength(words(bar.name)) for bar in bars)
        number_width = max(font.getlength(number) for number in ("-0.00", *map(_number, bars)))
        row, pad = 1.45 * size, 0.6 * size
        width = round(names_width + 6 * size + number_width + 4 * pad)
        height = round(row * len(lines) + 1.2 * pad)
        if size <= 4 or (width <= 0.95 * canvas[0] and height <= 0.95 * canvas[1]):
            break
        size *= 0.9
    panel = Image.new("RGBA", (width, height))
    draw = ImageDraw.Draw(panel)
    draw.rounded_rectangle((0, 0, width - 1, height - 1), radius=pad, fill=_PANEL)
    for i, line in enumerate(lines):
        middle = 0.6 * pad + (i + 0.5) * row
        if isinstance(line, Bar):
            draw.text((pad, middle), words(line.name), font=font, fill=_ink(line), anchor="lm")
            _draw_bar(draw, line, (pad * 2 + names_width, middle), size)
            draw.text((width - pad, middle), _number(line), font=font, fill=_ink(line), anchor="rm")
        else:
            colour = _BAR if i == 0 and title else _BOX
            draw.text(
                (pad, middle), _cut(words(line), font, width - 2 * pad), font=font, fill=colour, anchor="lm"
            )
    return panel


def _draw_bar(draw: ImageDraw.ImageDraw, bar: Bar, corner: tuple[float, float], size: float) -> None:
    (left, middle), length = corner, 6 * size
    top, bottom, thin = middle - 0.3 * size, middle + 0.3 * size, max(1, round(size / 14))
    draw.rectangle((left, top, left + length, bottom), fill=_TRACK)
    begin, end = span_of(0.0 if bar.value is None else bar.value, bar.limits)
    if end > begin:
        colour = _BOX if bar.is_chosen else _BAR
        draw.rectangle((left + begin * length, top, left + end * length, bottom), fill=colour)
    if 0 < (zero := span_of(0.0, bar.limits)[0]) < 1:
        at = left + zero * length
        draw.line((at, top - 1, at, bottom + 1), fill="white", width=thin)
    if bar.interval is not None:
        ends = [left + place_of(value, bar.limits) * length for value in bar.interval]
        draw.line((ends[0], middle, ends[1], middle), fill="white", width=thin)
        for at in ends:
            draw.line((at, middle - 0.15 * size, at, middle + 0.15 * size), fill="white", width=thin)


def _number(bar: Bar) -> str:
    return "-" if bar.value is None else f"{bar.value:.2f}"


def _ink(bar: Bar) -> tuple[int, int, int]:
    return _BOX if bar.is_chosen else (255, 255, 255)


def _font_for(*texts: str) -> Callable[[float], Font]:
    """Pillow's own font, which has nothing but ASCII, or one that has the letters of these texts."""
    if all(text.isascii() for text in texts):
        return ImageFont.load_default
    return partial(ImageFont.truetype, _font_with("".join(sorted(set("".join(texts)) | set("0123456789.-")))))


@cache
def _font_with(letters: str) -> str:
    """File of the font that comes with Matplotlib, or of the system's that lacks the fewest of these letters.

    What no font has is reported once; it is drawn as boxes.
    """
    # Found without importing Matplotlib.
    matplotlib = find_spec("matplotlib")
    assert matplotlib is not None, "a dependency of ours"
    assert matplotlib.origin is not None, matplotlib
    folder = Path(matplotlib.origin).parent
    best = str(folder / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf")
    lacking = _lacking(best, letters)
    if lacking:
        from matplotlib import font_manager

        for file in sorted(font_manager.findSystemFonts()):
            if len(still := _lacking(file, letters)) < len(lacking):
                best, lacking = file, still
            if not lacking:
                break
    if lacking:
        _log.warning(
            "no font of this system has %s: drawn as boxes; install one, such as Noto Sans CJK",
            " ".join(lacking),
        )
    return best


def _lacking(file: str, letters: str) -> str:
    """Those of the letters that a font draws as it draws what no font has."""
    try:
        font = ImageFont.truetype(file, 16)
    except OSError:
        return letters
    unknown = _drawn(font, "\U0010ffff")
    return "".join(letter for letter in letters if not letter.isspace() and _drawn(font, letter) == unknown)


def _drawn(font: ImageFont.FreeTypeFont, letter: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(letter)
    return mask.size, bytes(mask)


def _cut(text: str, font: Font, width: float) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."

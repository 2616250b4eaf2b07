"""odd_names.py: names of files that people and systems give."""

from __future__ import annotations

import os
import unicodedata

ODD_NAMES = [
    "a.mp4",
    "-dash.mp4",
    "=1+1.mp4",
    "@home.mp4",
    "takes [1].mp4",
    "star*.mp4",
    "what?.mp4",
    "{a,b}.mp4",
    "with space .mp4",
    " leading.mp4",
    "dots 2024-05-01 um 3.30.12.mp4",
    "v1.0_clip.mp4",
    "..mp4",
    "double..mp4",
    "UPPER.MP4",
    unicodedata.normalize("NFC", "Zoë.mp4"),
    unicodedata.normalize("NFD", "Noël.mp4"),
    "Recording 3\u202fPM.mp4",
    "nb\u00a0space.mp4",
    "👩\u200d🎓.mp4",
    "می\u200cخواهم.mp4",
    "soft\u00adhyphen.mp4",
    "喜び.mp4",
    "quo'te\".mp4",
    "back\\slash.mp4",
    "per%cent.mp4",
    "semi;colon,comma.mp4",
    "co:lon.mp4",
    "tab\there.mp4",
    "new\nline.mp4",
    "bracket [bold] markup.mp4",
    "x" * 200 + ".mp4",
    os.fsdecode(b"caf\xe9.mp4"),
    "~tilde.mp4",
    "$HOME.mp4",
    "#hash.mp4",
]

"""pages.py: a report as a page, read as a browser reads it."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np

from viper_e2e.labels import HUME_REACTION
from viper_e2e.model.predictions import Predictions
from viper_e2e.report.page import write_page
from viper_e2e.scoring import scores_of


class Page(HTMLParser):
    """Tags, attributes that name something, and text of a page."""

    def __init__(self, html: str):
        super().__init__()
        self.tags, self.addresses, self.attributes, self.words = [], [], [], []
        self.feed(html)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        self.addresses += [
            value for name, value in attrs if name in ("src", "href", "srcset", "action", "data")
        ]

    def handle_data(self, data):
        self.words.append(data)


def predictions(n: int = 20, **changes) -> Predictions:
    rng = np.random.default_rng(0)
    true = rng.random((n, 7))
    predicted = true + 0.2 * rng.standard_normal((n, 7))
    valid = np.ones(n, bool)
    valid[0], predicted[0] = False, np.nan
    values = {
        "labels": HUME_REACTION,
        "modalities": ("visual", "action_units"),
        "keys": [f"key{i:02}" for i in range(n)],
        "file_ids": [f"[{i}]" for i in range(n)],
        "shards": ["val-000.tar"] * n,
        "predicted": predicted,
        "true": true,
        "valid": valid,
        "errors": [None if good else "is cut short" for good in valid],
        "present": np.ones((n, 2), bool),
        "face_share": np.where(valid, 0.75, np.nan),
        "duration_seconds": np.where(valid, 3.25, np.nan),
    }
    return Predictions(**values | changes)


def page(tmp_path, given: Predictions, **changes) -> Page:
    scores = scores_of(given, num_resamples=20) if given.scored.any() else None
    settings = {"figures": {}, "strips": {}, "config": {}, "versions": {}} | changes
    path = write_page(tmp_path / "report.html", given, scores, **settings)
    return Page(path.read_text(encoding="utf-8"))

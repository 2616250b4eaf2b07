"""films.py: a folder of long films, packed with a table of labels."""

from __future__ import annotations

import av
import numpy as np

from support.media import tone
from viper_e2e.packing import PackOptions, pack
from viper_e2e.shards import ShardSet


def packed(folder, table: str, **more):
    (folder / "labels.csv").write_text(table)
    report = pack(folder / "videos", folder / "labels.csv", folder / "out", PackOptions(overwrite=True, **more))
    shards = ShardSet(str(folder / "out/*.tar"))
    return report, {shards.entry(n).key: shards.read(n) for n in range(len(shards))}


def wav(path, seconds: float, hertz: float) -> None:
    samples = (32_768 * tone(seconds, 16_000, 1, hertz)).astype(np.int16)
    with av.open(str(path), "w", format="wav") as container:
        stream = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))

"""absent_modalities.py: reports modalities that no clip of an epoch has; scores do not show it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from viper_e2e.config import looks_at_face
from viper_e2e.model import ViPEROutput
from viper_e2e.runtime import Processes, count_of


class AbsentModalities:
    """Counts over the first epoch that a process sees from its beginning, and tells once."""

    def __init__(self, modalities: tuple[str, ...], processes: Processes):
        self.modalities, self.processes = modalities, processes
        self.is_told = self._is_whole = False
        self._counts = torch.zeros(len(modalities) + 3)
        """Clips with each modality, that were looked at, that show a face, and all."""

    def begin(self, position: int) -> None:
        """Begin an epoch, at its start or wherever a run resumes."""
        self._is_whole = position == 0 and not self.is_told
        self._counts.zero_()

    @torch.no_grad()
    def add(self, output: ViPEROutput, weights: Float[Tensor, " B"]) -> None:
        """The clips of a batch that could be used."""
        if not self._is_whole:
            return
        counts = output.valid.cpu() & (weights.cpu() > 0)
        present, found = output.present.cpu()[counts], (output.face_found & output.used).any(1).cpu()[counts]
        looked = present[:, [looks_at_face(name) for name in self.modalities]].any(1)
        each = [present.sum(0), looked.sum()[None], (looked & found).sum()[None], counts.sum()[None]]
        self._counts += torch.cat(each)

    def notes(self) -> Iterator[str]:
        """At the end of an epoch, asked by all processes: a line for all that no clip has."""
        if not self._is_whole:
            return
        self.is_told = True
        table = self.processes.gather_scalars(*self._counts.tolist(), purpose="adding up what clips have")
        *present, looked, found, total = table.sum(0).long().tolist()
        for name, count in zip(self.modalities, present, strict=True):
            if total and not count:
                yield (
                    f"{name}: none of the {count_of(total, 'training clip')} has this modality; check the "
                    "files (viper check), or leave it out of --modalities"
                )
        if looked and not found:
            yield f"no face was found in any of {count_of(looked, 'training clip')}: whole pictures were used"

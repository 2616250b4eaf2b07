"""importing.py: a released checkpoint, from a file or the hub -> a model folder of ours."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from safetensors.torch import save_file

from viper_e2e.config import ModelConfig, backbone_places, backbones_of, needs_of, paper, with_settings
from viper_e2e.errors import ViperError
from viper_e2e.labels import HUME_REACTION
from viper_e2e.model import checkpoint, settings_of
from viper_e2e.published.released import ReleasedHead, read_released
from viper_e2e.runtime import HubError, fetch_file

FILES = {
    "VaianiLorenzo/ViPER-V": "perceiver_6.model",
    "VaianiLorenzo/ViPER-VA": "perceiver_6.model",
    "VaianiLorenzo/ViPER-VF": "perceiver_6.model",
    "VaianiLorenzo/ViPER-VT": "perceiver_12.model",
    "VaianiLorenzo/ViPER-VAT": "perceiver_8.model",
    "VaianiLorenzo/ViPER-VAF": "perceiver_4.model",
    "VaianiLorenzo/ViPER-VTF": "perceiver_4.model",
    "VaianiLorenzo/ViPER-VATF": "perceiver_7.model",
}
"""The eight released checkpoints on the Hugging Face hub."""

VISUAL_BACKBONE = "nateraw/vit-age-classifier"
"""The authors' runs name their visual features `visual_cropped_age`."""


@dataclass(frozen=True)
class Imported:
    """A released checkpoint in our folder format."""

    folder: Path
    modalities: tuple[str, ...]
    notes: tuple[str, ...]
    """Differences from the authors' own runs, a sentence each, shown to people who score with it."""


def is_published(source: str | os.PathLike) -> bool:
    """Whether this is the hub id of a released checkpoint, its ``.model`` file, or a folder with one in it."""
    path = Path(source)
    if path.is_dir():
        return not (path / checkpoint.MANIFEST).exists() and any(path.glob("*.model"))
    return source in FILES or (path.suffix == ".model" and path.is_file())


def import_published(
    source: str | os.PathLike,
    out: Path,
    *,
    revision: str | None = None,
    overrides: Mapping[str, str] | None = None,
) -> Imported:
    """Convert a released checkpoint, a ``.model`` file or one of the eight hub ids, into a model folder.

    ``overrides``: backbone → folder or hub id instead of the published one; ``sentence_bank`` → file. Needs no
    backbone at hand: they are recorded by name, and found when the model is first loaded. The tensors are
    views of the file: at full size (1.1 GB) converting peaks at its pages and what importing torch takes.
    Raises `ViperError` that says what was found.
    """
    file = _file_of(source, revision)
    head = read_released(file)
    config = _config(head, overrides or {})
    notes = approximations(config.modalities, overrides or {})
    checkpoint.write_folder(out, lambda folder: _write(folder, head, config, notes))
    return Imported(out, config.modalities, notes)


def published_checkpoint(
    source: str | os.PathLike, *, revision: str | None = None, overrides: Mapping[str, str] | None = None
) -> Imported:
    """Our folder for a released checkpoint (see `is_published`), fetched and converted at the first call.

    Kept under ``$XDG_CACHE_HOME/viper_e2e/published``, one folder per commit, or per content of a local file; a
    damaged one is made again. ``overrides`` only decide the notes: pass them on to `ViPER.from_pretrained`.
    """
    file = _file_of(source, revision)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    if source in FILES:
        # The hub's cache names the folder of a file after its commit.
        name = f"{os.fspath(source).replace('/', '--')}-{file.parent.name}"
    else:
        with file.open("rb") as content:
            name = f"{file.stem}-{hashlib.file_digest(content, 'sha256').hexdigest()[:32]}"
    target = cache / "viper_e2e" / "published" / name
    folder, _ = checkpoint.newest_whole(target)
    if folder is None:
        return import_published(file, target, overrides=overrides)
    modalities = tuple(checkpoint.read_json(folder / "config.json")["modalities"])
    return Imported(folder, modalities, approximations(modalities, overrides or {}))


def approximations(modalities: Sequence[str], overrides: Mapping[str, str]) -> tuple[str, ...]:
    """Parts that cannot match the authors' because they were never released or no longer exist."""
    notes = []
    needs = needs_of(modalities)
    if "face" in needs:
        notes.append("faces are found by MTCNN; the authors used YOLOv5-face")
    if "sentences" in needs:
        missing = {
            "image_text": "OpenAI's CLIP instead of the authors' fine-tuned one (--backbone image_text=…)",
            "sentence_bank": "our sentences instead of theirs (--sentence-bank)",
        }
        parts = [text for name, text in missing.items() if name not in overrides]
        if parts:
            notes.append(f"textual tokens are an approximation: {' and '.join(parts)}")
    if "units" in needs:
        notes.append(
            "action units of py-feat are an approximation: the models that the authors used no longer exist"
        )
    return tuple(notes)


def _file_of(source: str | os.PathLike, revision: str | None) -> Path:
    return _download(os.fspath(source), revision) if source in FILES else _local(Path(source))


def _download(hub_id: str, revision: str | None) -> Path:
    try:
        return fetch_file(hub_id, FILES[hub_id], revision=revision)
    except HubError as error:
        raise ViperError(
            f"{hub_id}: {FILES[hub_id]} is not in the cache and could not be fetched ({error}); fetch it on a "
            f"machine with internet and run viper import-published {FILES[hub_id]} --out FOLDER"
        ) from error


def _local(path: Path) -> Path:
    if not path.is_dir():
        return path
    files = sorted(path.glob("*.model"))
    if len(files) != 1:
        raise ViperError(f"{path}: {len(files)} .model files in this folder; give the file itself")
    return files[0]


def _config(head: ReleasedHead, overrides: Mapping[str, str]) -> ModelConfig:
    if head.num_outputs != len(HUME_REACTION):
        raise ViperError(
            f"{head.path}: {head.num_outputs} outputs; the released ones have {len(HUME_REACTION)}"
        )
    needs = needs_of(head.modalities)
    config = with_settings(
        replace(paper(), modalities=head.modalities, fusion=head.fusion),
        {"visual.backbone.source": VISUAL_BACKBONE, "action_units.source": "py-feat"}
        | ({} if "sound" in needs else {"decoding.sound": "none"}),
    )
    places = backbone_places(config)
    for name, source in overrides.items():
        if name == "sentence_bank" and "sentences" in needs:
            config = with_settings(config, {"textual.bank": str(Path(source).resolve())})
        elif name in places:
            config = with_settings(config, {f"{places[name]}.source": source})
        else:
            raise ViperError(f"{head.path}: has no {name}; its modalities are {', '.join(head.modalities)}")
    return config


def _write(folder: Path, head: ReleasedHead, config: ModelConfig, notes: Sequence[str]) -> None:
    """Write the files of `pretrained.write` without building a model: no backbone is needed."""
    records = {
        # Which bytes the authors used is not known: no hash to hold a backbone to.
        name: {"spec": backbone.source, "revision": backbone.revision, "tensors_sha256": None}
        for name, backbone in backbones_of(config).items()
    }
    checkpoint.write_json(folder / "config.json", settings_of(config, HUME_REACTION, records))
    tensors = {f"fusion.{name}": tensor for name, tensor in head.build().state_dict().items()}
    # Straight from the mapped file: `checkpoint.save_tensors` would hold a second copy of a full-size head.
    save_file(tensors, folder / "model.safetensors")
    (folder / "README.md").write_text(_card(head, records, notes), encoding="utf-8")


def _card(head: ReleasedHead, records: Mapping[str, Mapping], notes: Sequence[str]) -> str:
    lines = [
        f"# ViPER, {' + '.join(head.modalities)}: a released checkpoint in the format of viper_e2e",
        "",
        f"Converted from `{head.path.name}` of Vaiani et al. 2022, https://github.com/VaianiLorenzo/ViPER.",
        "The fusion head is theirs, bit for bit. Backbones:",
        "",
        *(f"- `{name}`: {record['spec']}" for name, record in records.items()),
        "",
        "What differs from their runs:",
        "",
        *(f"- {note}" for note in notes),
        "",
    ]
    return "\n".join(lines)

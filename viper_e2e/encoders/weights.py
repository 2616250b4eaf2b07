"""weights.py: where a backbone's files are, what they contain, and whether they are the expected ones."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from viper_e2e.config import BackboneConfig
from viper_e2e.encoders.parameter_budget import ParameterBudget, check_settings_size
from viper_e2e.errors import ViperError, did_you_mean, nearest
from viper_e2e.runtime import HubError, fetch_folder, plain_json

logger = logging.getLogger(__name__)

SMALL_FILES = (
    *("config.json", "open_clip_config.json", "preprocessor_config.json", "processor_config.json"),
    "video_preprocessor_config.json",
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "sentencepiece.bpe.model", "spiece.model"),
)
"""Architecture, preprocessor and tokenizer: everything but the weights."""
_SAFETENSORS = (
    "model.safetensors",
    "model-*-of-*.safetensors",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
)
_BIN = ("pytorch_model.bin", "pytorch_model-*-of-*.bin", "open_clip_pytorch_model.bin")


@dataclass(frozen=True)
class Search:
    """Search for backbones: where to look, and what they must be."""

    assets: Path | None = None
    """Folder of a saved checkpoint with one folder of small files per backbone."""
    records: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Backbone name → ``{"spec", "revision", "tensors_sha256"}`` that a checkpoint was trained with."""
    overrides: Mapping[str, str] = field(default_factory=dict)
    """Backbone name → path or hub id that replaces the recorded one (``--backbone visual=PATH``)."""
    bundled: frozenset[str] = frozenset()
    """Backbones whose weights the checkpoint itself holds: built without weights, filled by the caller."""

    def spec(self, name: str, config: BackboneConfig) -> str:
        """Name of the backbone: an override, else the checkpoint's record, else the settings."""
        return self.overrides.get(name) or self.records.get(name, {}).get("spec") or config.source

    @property
    def checkpoint_budget(self) -> ParameterBudget:
        """Budget of a part whose weights the checkpoint has; without a checkpoint, nothing."""
        weights = self.assets.parent / "model.safetensors" if self.assets is not None else None
        if weights is None or not weights.is_file():
            return ParameterBudget()
        return ParameterBudget.of_weights(shapes_in(weights))

    def small_files(self, name: str) -> Path | None:
        folder = self.assets / name if self.assets is not None else None
        return folder if folder is not None and folder.is_dir() else None


NOWHERE = Search()
"""No checkpoint and no overrides: what the settings say."""


def check_overrides(search: Search, known: Sequence[str]) -> None:
    """`ViperError` for an override of something that a model does not have, or that its checkpoint holds.

    A place that nothing is taken from would be believed to be used. ``known``: what this model has.
    """
    for name in search.overrides:
        option = "--sentence-bank" if name == "sentence_bank" else f"--backbone {name}"
        if name not in known:
            hint = did_you_mean(nearest(name, known))
            raise ViperError(f"{option}: this model has {', '.join(known) or 'no backbone'}{hint}")
        if name in search.bundled:
            raise ViperError(f"{option}: the checkpoint holds its own weights of {name}; leave this out")


@dataclass(frozen=True)
class Found:
    """A backbone's files on this machine."""

    name: str
    spec: str
    revision: str | None = None
    path: Path | None = None
    """Folder or file with the weights; ``None``: random, or bundled with the checkpoint."""
    small: Path | None = None
    """Folder with config, preprocessor and tokenizer; ``None``: the settings hold the architecture."""

    def read_json(self, file: str) -> dict[str, Any]:
        """A small JSON file of this backbone; its absence is an error that says where it belongs."""
        assert self.small is not None
        path = self.small / file
        if not path.is_file():
            raise ViperError(f"{self.name}: {self.small} has no {file}; copy it there from the original model")
        values = read_json(path)
        check_settings_size(self.name, path, values)
        return values


TAKE_ALONG = (
    "; where it was trained, viper export --checkpoint MODEL --out WHOLE makes a model with all backbones"
)
"""Further advice if a model's backbone is missing."""


def find(name: str, config: BackboneConfig, search: Search, hub_id: str | None = None) -> Found:
    """The files of backbone ``name``: override, recorded spec, ``$VIPER_BACKBONES``, the hub, in this order.

    ``hub_id`` is the repository behind a spec that is not itself one. ``ViperError`` says what is missing
    and where to put it.
    """
    small, record = search.small_files(name), search.records.get(name, {})
    override = search.overrides.get(name)
    spec = search.spec(name, config)
    revision = None if override else record.get("revision") or config.revision
    if name in search.bundled or spec == "random":
        if spec != "random" and small is None:
            raise ViperError(
                f"{name}: the checkpoint has no folder {search.assets}/{name} with its config.json"
            )
        return Found(name, spec, revision, None, None if spec == "random" else small)
    path, revision = _locate(
        name, spec, revision, hub_id, is_override=override is not None, more=TAKE_ALONG if record else ""
    )
    folder = path if path.is_dir() else path.parent
    return Found(name, spec, revision, path, small or folder)


def _locate(
    name: str, spec: str, revision: str | None, hub_id: str | None, *, is_override: bool, more: str
) -> tuple[Path, str | None]:
    local = Path(spec).expanduser()
    if hub_id is None and local.exists():
        return local, None
    hub_id = hub_id or spec
    is_hub_id = not (local.is_absolute() or spec.startswith((".", "~")) or hub_id.count("/") > 1)
    reason = None
    if is_hub_id:
        with suppress(HubError):  # the cache is only the first place to look
            return _with_commit(_snapshot(hub_id, revision, only_cached=True))
    shelf = os.environ.get("VIPER_BACKBONES")
    if shelf and not is_override:
        for candidate in (Path(shelf) / hub_id.rsplit("/", 1)[-1], Path(shelf) / name):
            if candidate.is_dir():
                logger.info("%s: %s is taken from %s", name, spec, candidate)
                return candidate, None
    if is_hub_id:
        try:
            return _with_commit(_snapshot(hub_id, revision))
        except HubError as error:
            reason = str(error)
    where = (
        f"is not on this machine and could not be fetched from the hub ({hub_id}: {reason})"
        if is_hub_id
        else "does not exist"
    )
    raise ViperError(
        f"{name}: backbone {spec} {where}; put its folder (config.json, preprocessor or tokenizer files, "
        f"model.safetensors) at $VIPER_BACKBONES/{name} or name it with --backbone {name}=FOLDER{more}"
    )


def _snapshot(hub_id: str, revision: str | None, *, only_cached: bool = False) -> Path:
    """Folder of a repository in the hub's cache, with weights; `HubError` where it cannot be had."""
    for patterns in (_SAFETENSORS, _BIN):
        folder = fetch_folder(
            hub_id, revision=revision, patterns=(*SMALL_FILES, *patterns), only_cached=only_cached
        )
        if _weight_files(folder):
            return folder
    raise HubError("it holds no weights that can be read here (model.safetensors)")


def _with_commit(folder: Path) -> tuple[Path, str]:
    """The hub's cache names the folder of a repository after its commit."""
    return folder, folder.name


# --- contents -----------------------------------------------------------------------------------


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object beside a backbone's weights; `ViperError` for anything else."""
    return plain_json.read_object(path, advice="copy it there again from the original model")


def small_files_of(folder: Path) -> dict[str, bytes]:
    """Config, preprocessor and tokenizer files, to be copied into a checkpoint."""
    return {name: (folder / name).read_bytes() for name in SMALL_FILES if (folder / name).is_file()}


def _weight_files(folder: Path) -> list[Path]:
    for pattern in (*_SAFETENSORS, *_BIN):
        if files := sorted(folder.glob(pattern)):
            return files
    return []


def weight_files(found: Found) -> list[Path]:
    """The files with the tensors: safetensors, or ``.bin`` where a backbone was published with nothing else."""
    assert found.path is not None
    files = [found.path] if found.path.is_file() else _weight_files(found.path)
    if not files:
        raise ViperError(f"{found.name}: {found.path} has no weights; model.safetensors is expected there")
    if files[0].suffix == ".bin":
        logger.info("%s: only %s exists: read as plain tensors (weights_only)", found.name, files[0].name)
    elif files[0].suffix != ".safetensors":
        raise ViperError(f"{found.name}: {files[0]} is not a .safetensors file; convert it first")
    return files


def read_tensors(files: list[Path]) -> dict[str, Tensor]:
    """All tensors of safetensors files (or of ``.bin`` ones, by ``torch.load(weights_only=True)``)."""
    tensors: dict[str, Tensor] = {}
    for path in files:
        try:
            if path.suffix == ".bin":
                tensors.update(torch.load(path, map_location="cpu", weights_only=True))
            else:
                with safe_open(path, framework="pt") as file:
                    tensors.update({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        except (SafetensorError, UnpicklingError, OSError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise ViperError(f"{path}: damaged or not plain tensors ({reason}); fetch it again") from error
    return tensors


def shapes_in(path: Path) -> list[tuple[int, ...]]:
    """Shapes of all tensors of a safetensors file, of which only the head is read."""
    try:
        with safe_open(path, framework="pt") as file:
            return [tuple(file.get_slice(name).get_shape()) for name in file.keys()]  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ViperError(f"{path}: damaged or not plain tensors ({error}); fetch it again") from error


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Hash over sorted names, dtypes, shapes and bytes: the same for any file format, sharding and path."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def check_hash(found: Found, sha256: str, search: Search) -> None:
    """Refuse weights that are not the ones the checkpoint was trained with."""
    record = search.records.get(found.name, {})
    expected = record.get("tensors_sha256")
    if expected is not None and expected != sha256:
        raise ViperError(
            f"{found.name}: the weights in {found.path} are not those of the checkpoint: sha256 {sha256}, "
            f"trained with {expected} ({record.get('spec')}, revision {record.get('revision')}); "
            f"name the right folder with --backbone {found.name}=FOLDER"
        )

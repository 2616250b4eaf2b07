"""pretrained.py: a whole model <-> a folder: settings, weights, backbones' small files, model card."""

from __future__ import annotations

import filecmp
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from torch import Tensor, nn

from viper_e2e.config import Frozen, ModelConfig, model_config_from_dict, unregistered
from viper_e2e.encoders import Backbone, Encoders, is_adapter
from viper_e2e.labels import LabelSet
from viper_e2e.model import checkpoint
from viper_e2e.model.calibration import Calibration
from viper_e2e.model.card import model_card
from viper_e2e.model.checkpoint import CheckpointError
from viper_e2e.model.checkpoint_settings import labels_in, read_settings, settings_of
from viper_e2e.runtime import count_of, digest, first_of

if TYPE_CHECKING:
    from typing import Self  # which beartype refuses around a method by itself

logger = logging.getLogger(__name__)

CALIBRATION = "calibration.json"
"""The file in a checkpoint that has one; earlier versions read past it."""
HUB_PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.model", "README.md", "backbones/*"]


class Pretrained(nn.Module):
    """Base of :class:`ViPER` with which a model is saved, loaded and shared.

    Its methods have the names of `huggingface_hub.ModelHubMixin`, which is no base of it: that one removes the
    config.json of a folder before it writes, so that a crash would cost the model that was there, and would
    import huggingface_hub with every model.
    """

    _config: ModelConfig
    labels: LabelSet
    modalities: tuple[str, ...]
    encoders: Encoders
    if TYPE_CHECKING:

        def __init__(
            self,
            config: ModelConfig,
            labels: LabelSet = ...,
            *,
            assets: os.PathLike[str] | None = ...,
            records: Mapping[str, Any] | None = ...,
            overrides: Mapping[str, str] | None = ...,
            bundled: frozenset[str] = ...,
        ) -> None: ...

        @property
        def backbones(self) -> dict[str, Backbone]: ...

    @property
    def config(self) -> ModelConfig:
        """The settings it is made of."""
        return self._config

    @config.setter
    def config(self, _: ModelConfig) -> NoReturn:
        raise AttributeError("a model keeps the settings it is made of: make another, or model.set_decoding(…)")

    content_id: str | None = None
    """Identity of a loaded model and its backbones by content; 64 hex digits."""

    def save_pretrained(self, folder: str | os.PathLike, *, self_contained: bool = False) -> None:
        """Write the model to a folder: safetensors, JSON, a model card and a manifest of sha256.

        Frozen backbones that can be found again are recorded by hash, not copied (their LoRA adapters are),
        unless ``self_contained``. A crash on the way leaves the folder as it was.
        """
        try:
            checkpoint.write_folder(Path(folder), lambda new: write(self, new, self_contained=self_contained))
        except OSError as error:
            reason = error.strerror or str(error)
            raise CheckpointError(
                f"{folder}: not written ({reason}); make room or name another folder"
            ) from error

    calibration: Calibration | None = None
    """Calibration by `viper calibrate`; applied to every prediction, not to what `forward` returns."""
    provenance: dict[str, Any] | None = None
    """Clips it was trained and validated on, by content, and its scores: for its model card."""

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike,
        *,
        revision: str | None = None,
        overrides: Mapping[str, str] | None = None,
    ) -> Self:
        """Load a model from a folder or a hub id; everything is frozen and in eval mode.

        ``overrides``: backbone name → folder or hub id to load it from. Raises :class:`CheckpointError`
        naming the file if the folder is incomplete or damaged, :class:`ViperError` if a backbone can't be
        found or is not the one the model was trained with.
        """
        folder = _fetch(os.fspath(source), revision)
        checkpoint.verify(folder)
        settings = read_settings(folder)
        bundled = frozenset(settings["bundled"])
        config = model_config_from_dict(settings["model"], f"{folder / 'config.json'}")
        if own := unregistered(config.modalities):
            raise CheckpointError(
                f"{folder / 'config.json'}: reads {', '.join(own)}, which is registered nowhere here; load it "
                "from a script that imports the file that registers it, as docs/how-to/modality.md has it"
            )
        model = cls(
            config,
            labels_in(settings, folder / "config.json"),
            assets=folder / "backbones",
            records=settings["backbones"],
            overrides=overrides,
            bundled=bundled,
        )
        read_weights(model, folder)
        for backbone in model.backbones.values():
            backbone.set_training_depth(Frozen())
        model.provenance = settings.get("provenance")
        model.calibration = read_calibration(folder, model.labels)
        model.content_id = digest([checkpoint.content_of(folder), _loaded_backbones(model)])
        return model.eval()

    def push_to_hub(self, repository: str, *, private: bool = True, token: str | None = None) -> str:
        """Upload the model, self-contained, to the Hugging Face hub; returns the address of the commit."""
        import tempfile

        from huggingface_hub import HfApi

        api = HfApi(token=token)
        api.create_repo(repository, private=private, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "model"
            self.save_pretrained(folder, self_contained=True)
            commit = api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Upload model")
        return str(commit.commit_url)


def write(model: Pretrained, folder: Path, *, self_contained: bool = False) -> None:
    """Fill an empty folder with a model; see :func:`checkpoint.write_folder` for the rest."""
    records = {} if self_contained else _records(model)
    bundled = [name for name in model.backbones if name not in records]
    settings = settings_of(model.config, model.labels, records, bundled, model.provenance)
    checkpoint.write_json(folder / "config.json", settings)
    checkpoint.save_tensors(folder / "model.safetensors", own_tensors(model, records))
    for encoder in model.encoders.values():
        encoder.save_assets(folder / "backbones")
    if model.calibration is not None:
        write_calibration(model.calibration, folder)
    card = model_card(
        model.config,
        model.labels,
        settings,
        num_parameters=sum(p.numel() for p in model.parameters()),
        provenance=model.provenance,
        calibration=model.calibration,
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def write_over(target: Path, fill: Callable[[Path], None], *, keep_previous: bool = False) -> None:
    """Replace a model by the one that ``fill`` writes, as :func:`checkpoint.write_folder` does.

    A calibration of the former one stays with the same model; of another one it would be wrong, and is gone,
    which is said.
    """
    former = target / CALIBRATION
    is_calibrated = former.is_file()

    def fill_all(new: Path) -> None:
        fill(new)
        if is_calibrated and _is_same_model(new, target) and not (new / CALIBRATION).exists():
            shutil.copy2(former, new)

    checkpoint.write_folder(target, fill_all, keep_previous=keep_previous)
    if is_calibrated and not former.exists():
        logger.warning("%s: holds another model now; it is not calibrated, as the former was", target)


def _is_same_model(one: Path, other: Path) -> bool:
    """Whether two folders are byte by byte the same in all that predictions come from before calibration."""

    def files(folder: Path) -> dict[Path, Path]:
        found = [folder / "config.json", folder / "model.safetensors", *folder.glob("backbones/**/*")]
        return {path.relative_to(folder): path for path in found if path.is_file()}

    ours, theirs = files(one), files(other)
    return ours.keys() == theirs.keys() and all(
        filecmp.cmp(path, theirs[name], shallow=False) for name, path in ours.items()
    )


def write_calibration(calibration: Calibration, folder: Path) -> None:
    checkpoint.write_json(folder / CALIBRATION, calibration.to_json())


def read_calibration(folder: Path, labels: LabelSet) -> Calibration | None:
    """Calibration in a checkpoint's folder, if any. `CheckpointError` if it belongs to another model."""
    path = folder / CALIBRATION
    if not path.exists():
        return None
    try:
        return Calibration.from_json(checkpoint.read_json(path), labels)
    except ValueError as error:
        raise CheckpointError(f"{path}: does not fit the model beside it ({error}); calibrate again") from error


def read_weights(model: Pretrained, folder: Path) -> None:
    """Load ``model.safetensors`` into a model of the same settings; names and shapes must all fit."""
    path = folder / "model.safetensors"
    tensors = checkpoint.load_tensors(path)
    expected = own_tensors(model, read_settings(folder)["backbones"])
    missing, unexpected = expected.keys() - tensors.keys(), tensors.keys() - expected.keys()
    if missing or unexpected:
        raise CheckpointError(
            f"{path}: does not fit the settings beside it ({count_of(len(missing), 'tensor')} "
            f"missing, {len(unexpected)} "
            f"unexpected: {first_of(sorted(missing | unexpected))})"
        )
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise CheckpointError(
                f"{path}: {name} is {tuple(tensor.shape)}, the settings beside it need "
                f"{tuple(expected[name].shape)}"
            )
    model.load_state_dict(tensors, strict=False)


def own_tensors(model: Pretrained, records: Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors that a checkpoint must hold: all but the detector (it comes with its package) and the weights
    that recorded backbones came with; their adapters are in it."""
    prefixes = [
        f"{prefix}."
        for prefix, module in model.named_modules()
        if isinstance(module, Backbone) and module.name in records
    ]
    left_out = ("faces.", *prefixes)
    return {
        name: tensor
        for name, tensor in model.state_dict().items()
        if is_adapter(name) or not name.startswith(left_out)
    }


def _records(model: Pretrained) -> dict[str, Any]:
    records: dict[str, Any] = {}
    for encoder in model.encoders.values():
        records |= encoder.records()
    return records


def _loaded_backbones(model: Pretrained) -> dict[str, Any]:
    """Backbones from outside of the checkpoint: a released one does not state which bytes they had."""
    return {
        name: [
            backbone.origin.tensors_sha256,
            {file: sha256(content).hexdigest() for file, content in backbone.origin.small_files.items()},
        ]
        for name, backbone in model.backbones.items()
    }


def labels_of(folder: Path) -> LabelSet:
    """The labels that the model in a folder predicts."""
    return labels_in(read_settings(folder), folder / "config.json")


def _fetch(source: str, revision: str | None) -> Path:
    folder = Path(source)
    if folder.is_dir():
        return checkpoint.folder_of(folder)
    if folder.exists():
        raise CheckpointError(f"{source}: is a file; give the checkpoint's folder")
    if folder.parent.name == "checkpoints" and (told := checkpoint.unfinished_line(folder.parent.parent)):
        raise CheckpointError(told)
    if source.count("/") != 1 or source.startswith((".", "/", "~")):
        raise CheckpointError(
            f"{source}: no such folder; a training run leaves one at RUN_DIR/checkpoints/best"
        )
    from viper_e2e.runtime import HubError, fetch_folder

    try:
        return fetch_folder(source, revision=revision, patterns=HUB_PATTERNS)
    except HubError as error:
        raise CheckpointError(
            f"{source}: not a folder here, and could not be fetched from the hub ({error})"
        ) from error

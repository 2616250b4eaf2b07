"""A model and its folder: what is saved comes back bitwise, what is recorded is found again or asked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import huggingface_hub
import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.media import make_clip
from support.models import model_of
from support.visual_encoders import write_vit

import viper_e2e
from viper_e2e.commands.cli import main
from viper_e2e.config import BackboneConfig, ModelConfig, with_settings
from viper_e2e.config.depth import Depths
from viper_e2e.config.presets import micro
from viper_e2e.errors import ViperError
from viper_e2e.labels import LabelSet
from viper_e2e.model import checkpoint, pretrained
from viper_e2e.model.checkpoint import CheckpointError
from viper_e2e.model.viper import ViPER

pytestmark = pytest.mark.usefixtures("nothing_from_outside")


@pytest.fixture
def vit(tmp_path) -> Path:
    torch.manual_seed(1)
    return write_vit(tmp_path / "vit")


def config(vit: Path) -> ModelConfig:
    return with_settings(micro(), {"visual.backbone": BackboneConfig(str(vit))})


@pytest.fixture
def clip(tmp_path) -> Path:
    return make_clip(tmp_path / "clip.mp4", num_frames=6)


def intensities(model: ViPER, clip: Path) -> dict[str, float]:
    return model.predict(clip)["intensities"]


@pytest.mark.slow
def test_what_was_saved_comes_back_bitwise_with_its_labels(tmp_path, clip):
    model = ViPER(micro(), LabelSet(("Joy", "Fear"), 0.0, 1.0, (0.2, 0.4))).eval()
    model.save_pretrained(tmp_path / "model")
    again = viper_e2e.load(tmp_path / "model")
    assert intensities(again, clip) == intensities(model, clip)
    assert again.labels == model.labels
    assert again.config == model.config
    assert not any(p.requires_grad for encoder in again.encoders.values() for p in encoder.parameters())


def test_a_model_of_the_first_schema_still_loads(tmp_path):
    model = ViPER(micro()).eval()
    model.save_pretrained(tmp_path / "new")
    settings = json.loads((tmp_path / "new/config.json").read_text())
    settings["held"] = settings.pop("bundled")
    settings["model"]["visual"]["backbone"] |= {"train": "all", "gradient_checkpointing": False}
    settings["model"]["fusion"]["modality_dropout"] = 0.1
    shutil.copytree(tmp_path / "new", tmp_path / "copied")

    def fill(folder: Path) -> None:
        shutil.copytree(tmp_path / "copied", folder, dirs_exist_ok=True)
        (folder / "manifest.json").unlink()
        checkpoint.write_json(folder / "config.json", settings | {"schema": 1})

    checkpoint.write_folder(tmp_path / "old", fill)
    again = viper_e2e.load(tmp_path / "old").state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in model.state_dict().items())


@pytest.mark.slow
def test_a_frozen_backbone_is_recorded_and_a_trained_one_is_inside(tmp_path, vit, clip):
    for train, inside in (("none", False), ("1", True)):
        folder = tmp_path / f"trained-{train}"
        model = ViPER(config(vit)).eval()
        model.set_training_depths(Depths.parse(f"visual={train}"))
        model.save_pretrained(folder)
        names = load_file(folder / "model.safetensors")
        assert any(name.startswith("encoders.visual.") for name in names) is inside
        assert ("visual" in json.loads((folder / "config.json").read_text())["backbones"]) is not inside
        assert (folder / "backbones/visual/preprocessor_config.json").is_file()
        assert intensities(viper_e2e.load(folder), clip) == intensities(model, clip)


@pytest.mark.slow
def test_a_backbone_that_went_away_is_asked_for_and_found_where_one_says(tmp_path, vit, clip):
    model = ViPER(config(vit)).eval()
    model.save_pretrained(tmp_path / "model")
    moved = shutil.move(vit, tmp_path / "elsewhere")
    with pytest.raises(ViperError, match=r"visual.*--backbone visual="):
        viper_e2e.load(tmp_path / "model")
    again = ViPER.from_pretrained(tmp_path / "model", overrides={"visual": str(moved)})
    assert intensities(again, clip) == intensities(model, clip)


@pytest.mark.slow
def test_a_backbone_that_changed_is_refused(tmp_path, vit):
    ViPER(config(vit)).save_pretrained(tmp_path / "model")
    tensors = load_file(vit / "model.safetensors")
    name = next(iter(tensors))
    save_file(tensors | {name: tensors[name] + 1}, vit / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ViperError, match="visual"):
        viper_e2e.load(tmp_path / "model")


@pytest.mark.slow
def test_an_exported_folder_needs_nothing_else(tmp_path, vit, clip, capsys):
    model = ViPER(config(vit)).eval()
    model.save_pretrained(tmp_path / "model")
    words = ["export", "--checkpoint", str(tmp_path / "model"), "--out", str(tmp_path / "whole")]
    assert main(words) == 0
    assert main(words) == 1, "an existing folder is never written over"
    assert "already exists" in capsys.readouterr().err
    files = [path for path in (tmp_path / "whole").rglob("*") if path.suffix in (".json", ".md")]
    assert not any(str(tmp_path) in path.read_text() for path in files), "names a folder of this machine"
    expected = intensities(model, clip)
    shutil.rmtree(vit)
    shutil.rmtree(tmp_path / "model")
    assert intensities(viper_e2e.load(tmp_path / "whole"), clip) == expected


@pytest.mark.parametrize("change", ["missing", "unexpected", "shape"])
def test_weights_that_do_not_fit_their_settings_are_refused(tmp_path, change):
    model = ViPER(micro())
    model.save_pretrained(tmp_path / "model")
    tensors = load_file(tmp_path / "model/model.safetensors")
    name = next(name for name in sorted(tensors) if name.startswith("fusion"))
    if change == "missing":
        del tensors[name]
    elif change == "unexpected":
        tensors["fusion.extra"] = torch.zeros(1)
    else:
        tensors[name] = torch.zeros(3, 1, 4)
    save_file(tensors, tmp_path / "model/model.safetensors")
    (tmp_path / "model/manifest.json").unlink()
    from viper_e2e.model import pretrained

    with pytest.raises(CheckpointError, match=r"does not fit|the settings beside it"):
        pretrained.read_weights(model, tmp_path / "model")


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("nowhere", "no such folder; a training run leaves one at"),
        ("someone/nothing-there", "not a folder here, and could not be fetched from the hub"),
    ],
)
def test_a_model_that_is_nowhere_is_one_line(source, told):
    with pytest.raises(CheckpointError, match=told) as error:
        viper_e2e.load(source)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (
            ("config.yaml", "sweep.json"),
            "no checkpoint yet; `viper sweep --resume --run-dir .* continues it",
        ),
        (
            ("config.yaml", "sweep.json", "trial-1/checkpoints/best/x"),
            "viper sweep --resume .* or name a model: .*trial-1",
        ),
        (("config.yaml", "retrained.json"), "`viper ablate --retrain --resume --run-dir"),
        (("config.yaml",), "`viper train --resume --run-dir"),
        (
            ("config.yaml", "seed-0/checkpoints/best/x"),
            "before it had one model; `viper train --resume",
        ),
    ],
)
def test_a_run_that_was_stopped_says_what_goes_on_with_it(tmp_path, files, told):
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("ensemble: 2\n")
    for source in (tmp_path, tmp_path / "checkpoints/best"):
        with pytest.raises(CheckpointError, match=told) as error:
            viper_e2e.load(str(source))
        assert "\n" not in str(error.value)
    # Several seeds are several models.
    if (tmp_path / "seed-0").exists():
        (tmp_path / "config.yaml").write_text("ensemble: 1\n")
        with pytest.raises(CheckpointError, match="holds several runs; did you mean"):
            viper_e2e.load(str(tmp_path))


@pytest.mark.slow
def test_pushing_uploads_a_folder_that_loads(tmp_path, clip, monkeypatch, vit):
    """The hub is stood in for by a folder; no connection is made."""
    uploaded = tmp_path / "hub"

    class Api:
        def __init__(self, token: str | None = None):
            assert token == "secret"

        def create_repo(self, repository: str, *, private: bool, exist_ok: bool) -> None:
            assert (repository, private) == ("someone/model", True)

        def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str):
            shutil.copytree(folder_path, uploaded)
            return huggingface_hub.CommitInfo(
                commit_url="https://huggingface.co/someone/model/commit/1",
                commit_message=commit_message,
                commit_description="",
                oid="1",
            )

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    model = ViPER(config(vit)).eval()
    assert model.push_to_hub("someone/model", token="secret") == "https://huggingface.co/someone/model/commit/1"
    expected = intensities(model, clip)
    model.save_pretrained(tmp_path / "own")
    shutil.rmtree(vit)
    with pytest.raises(ViperError, match="where it was trained, viper export --checkpoint MODEL"):
        viper_e2e.load(tmp_path / "own")
    assert intensities(viper_e2e.load(uploaded), clip) == expected
    card = (uploaded / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: viper_e2e")
    assert "consent" in card
    assert str(tmp_path) not in card


def test_a_calibration_stays_with_its_model_and_is_gone_with_another(tmp_path, caplog):
    folder, (model, other) = tmp_path / "best", (model_of("visual"), model_of("visual"))
    next(other.fusion.parameters()).data.add_(1.0)

    def over(written: ViPER) -> bool:
        pretrained.write_over(folder, lambda new: pretrained.write(written, new))
        return (folder / pretrained.CALIBRATION).is_file()

    assert not over(model)
    (folder / pretrained.CALIBRATION).write_text("{}")
    assert over(model)
    assert "another model" not in caplog.text
    assert not over(other)
    assert "holds another model now; it is not calibrated, as the former was" in caplog.text

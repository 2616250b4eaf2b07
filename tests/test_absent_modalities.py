"""What no clip of a training has for a modality is told once, whoever looks at scores alone."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator
from support.training_runs import make_corpus, settings

from viper_e2e.commands.cli import main, train
from viper_e2e.model import ViPEROutput
from viper_e2e.runtime import Processes
from viper_e2e.training.absent_modalities import AbsentModalities


def output(present: list[list[bool]], faces: list[bool], valid: list[bool] | None = None) -> ViPEROutput:
    """Of clips of four frames."""
    num_clips, found = len(faces), torch.tensor(faces)[:, None].expand(-1, 4)
    answers = torch.zeros(num_clips, 2)
    return ViPEROutput(
        intensities=answers,
        by_network=answers[:, None],
        valid=torch.tensor(valid or [True] * num_clips),
        present=torch.tensor(present),
        boxes=torch.zeros(num_clips, 4, 4),
        box_source=torch.zeros(num_clips, 4, dtype=torch.uint8),
        face_found=found,
        frame_seconds=torch.zeros(num_clips, 4),
        used=torch.ones_like(found),
        duration_seconds=torch.ones(num_clips),
        errors=(None,) * num_clips,
        notes=((),) * num_clips,
    )


def told(*outputs: ViPEROutput, position: int = 0) -> list[str]:
    absent = AbsentModalities(("visual", "audio"), Processes(Accelerator(cpu=True)))
    absent.begin(position)
    for one in outputs:
        absent.add(one, torch.ones(len(one.valid)))
    lines = [*absent.notes()]
    absent.begin(0)
    assert not lines or not [*absent.notes()], "told twice"
    return lines


def test_what_no_clip_has_is_named():
    silent = [[True, False]] * 2
    (line,) = told(output(silent, [True, True]), output(silent, [False, True]))
    assert line.startswith("audio: none of the 4 training clips has this modality")
    assert told(output(silent, [True, True]), output([[True, True]], [True])) == []


def test_faces_that_are_found_in_no_clip_are_told():
    both = [[True, True]] * 2
    assert told(output(both, [False, False])) == [
        "no face was found in any of 2 training clips: whole pictures were used"
    ]
    assert told(output(both, [False, True])) == []
    assert told(output([[False, True]], [False])) == [
        "visual: none of the 1 training clip has this modality; check the files (viper check), "
        "or leave it out of --modalities"
    ]


def test_clips_that_cannot_be_used_count_for_nothing():
    assert told(output([[True, True], [True, False]], [True, True], valid=[False, True]))[0].startswith("audio")
    assert told(output([[False, False]], [False], valid=[False])) == []


def test_an_epoch_that_was_entered_midway_is_not_judged():
    assert told(output([[True, False]], [True]), position=4) == []


@pytest.mark.slow
@pytest.mark.parametrize("head", ["tokens", "ridge"])
def test_a_run_on_silent_clips_says_so_and_its_evaluation_too(head, tmp_path, capsys):
    corpus = make_corpus(tmp_path / "corpus", silent=tuple(range(12)))
    words = ["--head=ridge"] if head == "ridge" else ["--epochs=2"]
    assert train(settings(corpus, tmp_path / "run", "--batch-size=4", *words)) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("audio: none of the 8 training clips has this modality") == 1
    model, shards = tmp_path / "run/checkpoints/last", f"{corpus}/shards/val-*.tar"
    out = str(tmp_path / "eval")
    assert main(["eval", f"--checkpoint={model}", f"--shards={shards}", f"--out={out}", "--num-workers=0"]) == 0
    both = capsys.readouterr()
    assert "audio: no clip has this modality" in " ".join((both.out + both.err).split())

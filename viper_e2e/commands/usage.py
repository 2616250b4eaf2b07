"""usage.py: the overview of commands, and one-line errors for wrong command lines, with the nearest name."""

from __future__ import annotations

import re
import sys
from argparse import ArgumentParser
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NoReturn

from viper_e2e.config import SettingsFile, option_of, setting_of, with_dashes
from viper_e2e.errors import ExitCode, did_you_mean, nearest
from viper_e2e.runtime import all_of


class Parser(ArgumentParser):
    """argparse whose mistakes cost one line: what was wrong, the nearest name, exit code 1."""

    words: Sequence[str] = ()
    """Words to parse, for messages about them."""

    def error(self, message: str) -> NoReturn:
        if message.startswith("the following arguments are required"):
            message += self._taken(message.rpartition(": ")[2])
        usage_error(self.prog, message, self._option_string_actions)

    def _taken(self, missing: str) -> str:
        """Hint at a clip that an option with an optional value has taken for its value."""
        for option, word in pairwise(self.words):
            action = self._option_string_actions.get(option)
            if action is not None and action.nargs == "?" and not word.startswith("-"):
                return f"; {option} took {word} as its value: write {missing} before {option}"
        return ""


def overview(commands: Mapping[str, str]) -> str:
    """`viper --help`. ``commands``: name → what it does, in a few words."""
    lines = [
        "usage: viper COMMAND [options]",
        "",
        "Emotion recognition from raw video, end to end in one PyTorch module.",
        "",
        "commands:",
        *(f"  {name:<18}{text}" for name, text in commands.items()),
        "",
        "viper COMMAND --help shows the options of a command; each takes -q (quiet) and -v (verbose).",
        "exit codes: 0 all fine, 1 nothing done (or a wrong option), 2 some clips or runs failed, 130 stopped",
    ]
    return "\n".join(lines)


def unknown_command(command: str, commands: Iterable[str]) -> ExitCode:
    hint = did_you_mean(nearest(command, commands)) or "; see viper --help"
    print(f"viper: no command {command!r}{hint}", file=sys.stderr)
    return ExitCode.NOTHING_DONE


def usage_error(
    prog: str, message: str, options: Iterable[str], files: Sequence[SettingsFile] = ()
) -> NoReturn:
    """One line on stderr, and exit code 1. ``files``: those of ``--config``, one of which may be wrong."""
    message = with_dashes(_in_plain_words(" ".join(message.split())))
    names = [option.lstrip("-") for option in options if option.startswith("--")]
    in_file = re.search(r"(?:Group '([\w.]+)' does not )?accept option '([\w.]+)'", message)
    in_file = in_file or re.search(r"Option '([\w.]+)' is not accepted", message)
    if in_file is not None:
        name = ".".join(filter(None, in_file.groups()))
        where = "".join(f"{file.path}: " for file in files if file.has(name))
        message = f"{where}has no setting '{name}'{did_you_mean(_likely_option(name, names))}"
    elif message.startswith("unrecognized arguments: "):
        message += _meant(re.findall(r"(?<= --)[\w.-]+", message), names)
    print(f"{prog}: {message} (see {prog} --help)", file=sys.stderr)
    raise SystemExit(ExitCode.NOTHING_DONE)


def _meant(unknown: Sequence[str], names: Sequence[str]) -> str:
    """End of a message with the options that are likely meant."""
    likely = {word: option_of(near) for word in unknown if (near := _likely_option(word, names)) is not None}
    if len(unknown) == 1:
        return did_you_mean(likely.get(unknown[0]))
    told = ", ".join(f"{near} for --{word}" for word, near in likely.items())
    return f"; did you mean {told}?" if told else ""


_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "NoneType": "null",
    "str": "text",
    "tuple": "a list such as [0.6,0.7,0.7]",
    "list": "a list such as [a,b]",
    "dict": "settings such as {name: value}",
}
"""Names of types in messages of parsers."""


def _in_plain_words(message: str) -> str:
    """Message of a parser about a value of a wrong type, as: option, value, what would be right."""
    if own := re.fullmatch(r"argument (--[\w-]+): ('.*)", message):
        return f"{own[1]} {own[2]}"  # from one of our own readers, which begin with the value
    if choice := re.fullmatch(r"argument (--[\w-]+): invalid choice: '(.*)' \(choose from (.*)\)", message):
        words = [word.strip("'") for word in choice[3].split(", ")]
        return f"{choice[1]} {choice[2]}: choose {all_of([*dict.fromkeys(words)], 'or')}"
    if other := re.fullmatch(r"argument (--[\w-]+): invalid (\w+) value: '(.*)'", message):
        return f"{other[1]} {other[3]}: give {_KINDS.get(other[2], other[2])}"
    where = re.match(r'(?:Parser key "config": ?)?Parser key "([\w.]+)": ?', message)
    if where is None:
        return message
    option, told = option_of(where[1]), message[where.end() :]
    if read := re.search(r"Not of type \w+: (.*)", told):
        return f"{option} {read[1]}"
    value = re.search(r"(?:Got|Given) value: (.*)", told)
    choices = re.findall(r"'([^']+)'", "".join(re.findall(r"Literal\[(.*?)\]", told)))
    kinds = [_KINDS.get(kind, kind) for kind in re.findall(r"Expected a <class '([\w.]+)'>", told)]
    if value is None or not kinds + choices:
        return f"{option}: {told}"
    known = [*dict.fromkeys([*choices, *kinds])]
    return f"{option} {value[1]}: {'choose' if choices else 'give'} {all_of(known, 'or')}"


SYNONYMS = {
    "lr": "learning_rate learningrate rate step_size",
    "backbone_lr": "encoder_lr lr_backbone finetune_lr",
    "epochs": "epoch num_epochs n_epochs max_epochs num_train_epochs",
    "max_steps": "steps num_steps iterations max_iterations",
    "batch_size": "bs batch batchsize per_device_train_batch_size train_batch_size",
    "num_workers": "workers n_workers num_proc num_processes jobs threads num_threads dataloader_num_workers",
    "accumulation": "gradient_accumulation_steps gradient_accumulation grad_accum accumulate accum",
    "clip_norm": "max_grad_norm grad_clip gradient_clip gradient_clip_val clip_grad",
    "weight_decay": "wd decay l2",
    "schedule": "scheduler lr_scheduler lr_schedule lr_scheduler_type",
    "warmup_fraction": "warmup warmup_ratio warmup_steps warmup_epochs",
    "mixed_precision": "precision amp fp16 bf16 half dtype autocast",
    "device": "gpu gpus cuda cpu mps use_cuda no_cuda",
    "checkpoint": "ckpt model weights model_path checkpoint_path pretrained resume_from_checkpoint",
    "run_dir": "output_dir out_dir outdir save_dir logdir log_dir logging_dir run_folder project output out",
    "output": "out outfile output_file save csv json out_file save_csv results",
    "out": "output output_dir out_dir outdir folder save_dir",
    "train_shards": "train data dataset train_data train_dir data_dir shards",
    "val_shards": "val valid validation dev val_data validation_data eval_data eval_shards",
    "shards": "data dataset data_dir tars",
    "resume": "resume_from continue go_on",
    "seed": "random_seed manual_seed",
    "window_seconds": "window window_size win window_length chunk_seconds",
    "hop_seconds": "hop stride step overlap hop_size",
    "render": "video overlay draw annotate save_video",
    "plot": "figure curves timeline",
    "report": "html",
    "videos": "video input clips video_dir input_dir",
    "labels": "label csv table annotations annotation targets",
    "ema_decay": "ema average",
    "save_every_steps": "save_steps save_every checkpoint_every",
    "augment": "augmentations data_augmentation",
    "loss": "criterion objective loss_fn",
    "freeze": "frozen freeze_backbone freeze_backbones freeze_encoder",
    "unfreeze": "finetune fine_tune train_backbone train_backbones",
    "lora": "adapters peft lora_rank lora_r",
    "log_with": "report_to tracker trackers logger wandb use_wandb mlflow tensorboard trackio comet neptune",
    "tracker_project": "project project_name wandb_project experiment experiment_name",
}
"""Our option → what other programs call it."""
NEVER_MEANT = ("print_shtab", "print_completion")
"""Options of the parser that do nothing for a person."""


def _likely_option(word: str, names: Sequence[str]) -> str | None:
    """The option that a word may mean: one that ends in it (``dim`` → ``model.fusion.dim``), or the nearest."""
    word = setting_of(word).lower()
    by_key = {setting_of(name): name for name in names if name not in NEVER_MEANT}
    near = [key for key, others in SYNONYMS.items() if key in by_key and word in others.split()]
    near = near or [key for key in by_key if key.endswith(f".{word}")]
    # There are hundreds of settings: one that is only roughly alike would mislead.
    likely = near[0] if near else nearest(word, by_key, likeness=0.75)
    return None if likely is None else by_key[likely]

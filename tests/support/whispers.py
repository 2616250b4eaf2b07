"""whispers.py: a whole Whisper with random weights, a tokenizer of bytes, and two seconds of hearing."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

MARKS = ("endoftext", "startoftranscript", "en", "ja", "translate", "transcribe", "startofprev", "nospeech")


def write_whisper(folder: Path, *, multilingual: bool = True) -> Path:
    """A folder as the hub would give it; what it writes is made up."""
    letters = sorted(letter for letter in pre_tokenizers.ByteLevel.alphabet() if letter.isascii())
    number = {f"<|{mark}|>": len(letters) + i for i, mark in enumerate((*MARKS, "notimestamps"))}
    times = [f"<|{i * 0.02:.2f}|>" for i in range(101)]
    own = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    own.pre_tokenizer, own.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    own.add_special_tokens([AddedToken(mark, special=True) for mark in number])
    own.add_tokens([AddedToken(time) for time in times])
    PreTrainedTokenizerFast(tokenizer_object=own, eos_token="<|endoftext|>").save_pretrained(folder)
    end, start = number["<|endoftext|>"], number["<|startoftranscript|>"]
    common = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end, "decoder_start_token_id": start}
    config = WhisperConfig(
        vocab_size=len(letters) + len(number) + len(times),
        num_mel_bins=16,
        max_source_positions=100,
        max_target_positions=40,
        **{f"{half}_{what}": 1 for half in ("encoder", "decoder") for what in ("layers", "attention_heads")},
        **{f"{half}_ffn_dim": 32 for half in ("encoder", "decoder")},
        d_model=16,
        init_std=0.3,
        **common,
    )
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(config)
    with torch.no_grad():  # letters are likelier than times, else it would write nothing else
        model.model.decoder.embed_tokens.weight[: len(letters)] *= 4
    more = {"lang_to_id": {t: number[t] for t in ("<|en|>", "<|ja|>")}} if multilingual else {}
    model.generation_config = GenerationConfig(
        **common,
        is_multilingual=multilingual,
        task_to_id={task: number[f"<|{task}|>"] for task in ("translate", "transcribe")},
        no_timestamps_token_id=number["<|notimestamps|>"],
        prev_sot_token_id=number["<|startofprev|>"],
        max_initial_timestamp_index=50,
        max_length=40,
        **more,
    )
    model.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=16, chunk_length=2).save_pretrained(folder)
    return folder

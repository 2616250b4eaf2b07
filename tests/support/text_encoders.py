"""text_encoders.py: text encoders of several families with random weights, and a tokenizer made up for them."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
FAMILIES = {
    "bert": {**SIZES, "max_position_embeddings": 40},
    "roberta": {**SIZES, "max_position_embeddings": 40, "pad_token_id": 1, "type_vocab_size": 1},
    "xlm-roberta": {**SIZES, "max_position_embeddings": 40, "pad_token_id": 1, "type_vocab_size": 1},
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": 40},
    "deberta-v2": {**SIZES, "max_position_embeddings": 40, "relative_attention": True, "pos_att_type": ["p2c"]},
    "electra": {**SIZES, "max_position_embeddings": 40, "embedding_size": 16},
}
"""What transformers calls a family, and the sizes of a small one."""


def write_text_encoder(folder: Path, kind: str = "bert") -> Path:
    """A folder as the hub would give it: config, weights, tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = byte_level_tokenizer()
    tokenizer.save_pretrained(folder)
    off = {"attention_probs_dropout_prob": 0.0, "hidden_dropout_prob": 0.0, "dropout": 0.0}
    config = AutoConfig.for_model(kind, vocab_size=len(tokenizer), **FAMILIES[kind], **off)
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)
    return folder


def byte_level_tokenizer() -> PreTrainedTokenizerFast:
    """RoBERTa's kind with a token for each byte, so that it reads every language."""
    marks = ["<s>", "<pad>", "</s>", "<unk>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*marks, *letters])}
    own = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    own.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    own.decoder = decoders.ByteLevel()
    own.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    names |= {"cls_token": "<s>", "sep_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=own, **names)

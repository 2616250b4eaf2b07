"""tokenization.py: text -> token ids and the characters of each, by a model's tokenizer or as bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from viper_e2e.encoders.weights import Found
from viper_e2e.errors import ViperError

_FIRST_BYTE = 3
"""First token of bytes; before it padding, beginning, end."""


_VOCABULARIES = (
    *("tokenizer.json", "vocab.json", "vocab.txt"),
    *("tokenizer.model", "sentencepiece.bpe.model", "spiece.model"),
)


_HINT = "its folder needs the tokenizer.json that transformers saves"


class Tokens(NamedTuple):
    """The tokens of a text, without the special ones."""

    ids: list[int]
    spans: list[tuple[int, int]]
    """First letter of each token, and the one after its last."""


@dataclass(frozen=True)
class Tokenizer:
    """Tokenizer of a text encoder."""

    tokens: Callable[[str], Tokens]
    before: tuple[int, ...]
    """Special tokens at the beginning of what a model gets."""
    after: tuple[int, ...]
    pad: int
    size: int
    """Ids are below it."""


def byte_tokenizer() -> Tokenizer:
    """UTF-8 as it is: of models that begin with random weights, in whatever language."""
    return Tokenizer(_bytes, before=(1,), after=(2,), pad=0, size=_FIRST_BYTE + 256)


def _bytes(text: str) -> Tokens:
    found = [
        (_FIRST_BYTE + byte, (i, i + 1))
        for i, letter in enumerate(text)
        for byte in letter.encode("utf-8", "replace")
    ]
    return Tokens([number for number, _ in found], [span for _, span in found])


def read_tokenizer(found: Found) -> PreTrainedTokenizerBase:
    """The tokenizer of transformers beside a model's weights, as data: code in its folder is never run.

    `ViperError` where there is none.
    """
    assert found.small is not None
    if not any((found.small / name).is_file() for name in _VOCABULARIES):
        # transformers would make one up that knows no word.
        raise ViperError(f"{found.name}: {found.small} has no tokenizer; {_HINT}")
    try:
        return AutoTokenizer.from_pretrained(found.small, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ViperError(
            f"{found.name}: {found.small}: its tokenizer cannot be read ({reason}); {_HINT}"
        ) from error


def tokenizer_of(found: Found) -> Tokenizer:
    """The tokenizer beside a model's weights; `ViperError` where none says which letters a token stands for."""
    own = read_tokenizer(found)
    if not own.is_fast:
        raise ViperError(
            f"{found.name}: {found.small}: its tokenizer does not report the positions of tokens; {_HINT}"
        )
    example = own("a", return_special_tokens_mask=True, verbose=False)
    is_special = [bool(mark) for mark in example["special_tokens_mask"]]
    first = is_special.index(False)
    last = len(is_special) - is_special[::-1].index(False)

    def tokens(text: str) -> Tokens:
        made = own(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return Tokens(list(made["input_ids"]), [(int(a), int(b)) for a, b in made["offset_mapping"]])

    ids = example["input_ids"]
    pad = 0 if own.pad_token_id is None else own.pad_token_id
    return Tokenizer(tokens, tuple(ids[:first]), tuple(ids[last:]), pad, len(own))

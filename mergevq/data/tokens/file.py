"""Token files with tensors; `array_file` says what is in one, and reads and writes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from mergevq.data.tokens.array_file import TokenArrayFile, load_token_arrays, save_token_arrays
from mergevq.models.store import fingerprint
from mergevq.models.tokenizer.tokenizer import Tokenizer
from mergevq.tokens import Tokens


@dataclass(frozen=True, slots=True)
class TokenFile:
    """What a token file holds."""

    tokens: Tokens
    """On the CPU."""
    names: list[str]
    """What the pictures were called, one for each row."""
    stride: int
    """Pixels a side for each latent position."""
    tokenizer: str
    """The fingerprint of the tokenizer."""

    def check_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Makes sure that a tokenizer can decode this.

        Raises:
            CheckpointError: the tokens were made by another tokenizer.
            DataError: a code is outside its vocabulary.
        """
        self.arrays().check_maker(fingerprint(tokenizer), tokenizer.config.quantizer.bits)

    def arrays(self) -> TokenArrayFile:
        """The same with NumPy arrays."""
        return TokenArrayFile(self.tokens.arrays(), self.names, self.stride, self.tokenizer)


def joined(parts: Sequence[Tokens]) -> Tokens:
    """The tokens of several batches with one K and one grid as one batch."""
    return Tokens(
        torch.cat([part.indices for part in parts]),
        torch.cat([part.source for part in parts]),
        torch.cat([part.sizes for part in parts]),
        parts[0].grid,
    )


def save_tokens(path: Path, file: TokenFile) -> None:
    """Writes a token file, whole or not at all.

    Raises:
        OutputError: it cannot be written; an older file is unchanged.
    """
    save_token_arrays(path, file.arrays())


def load_tokens(path: Path) -> TokenFile:
    """Reads a token file.

    Raises:
        UsageError: there is no such file.
        DataError: it is truncated, no token file, or its arrays contradict one another.
    """
    file = load_token_arrays(path)
    return TokenFile(file.tokens.tensors(), file.names, file.stride, file.tokenizer)

"""A tokenizer of graphs: images to tokens and back, with NumPy arrays.

Legend: B batch, S pixels a side, L positions, K kept tokens, N blocks.
"""

from __future__ import annotations

import numpy as np

from mergevq.config import TokenizerConfig
from mergevq.errors import UsageError
from mergevq.export.runtime.graphs import Graphs
from mergevq.export.runtime.inputs import (
    checked_images,
    checked_indices,
    checked_source,
    checked_starts,
)
from mergevq.export.tokenizer.source_map import most_likely_source, source_with_starts
from mergevq.inputs import check_same_grid, checked_grid, checked_integer
from mergevq.models.tokenizer.merge import merge_schedule
from mergevq.tokens import TokenArrays


class ArrayTokenizer:
    """What `Tokenizer` is for tensors, at the one resolution that the graphs were made for.

    Args:
        graphs: of a tokenizer, or of a generator, which have no encoder.

    Attributes:
        config: of the tokenizer.
    """

    def __init__(self, graphs: Graphs):
        self.graphs = graphs
        self.config: TokenizerConfig = graphs.manifest.tokenizer

    @property
    def fingerprint(self) -> str:
        """By which token files know the tokenizer."""
        return self.graphs.manifest.fingerprint

    @property
    def provider(self) -> str:
        """Where the graphs run."""
        return self.graphs.provider

    @property
    def keeps(self) -> list[int]:
        """The kept counts that there is an encoder for; empty where the encoder takes any, or there is none."""
        return self.graphs.manifest.keeps

    def encode(self, images: np.ndarray, keep: int | None = None) -> TokenArrays:
        """Images to tokens.

        Args:
            images: (B, 3, S, S) in [-1, 1], of any floating-point type.
            keep: K; by default the preset's.

        Raises:
            UsageError: images of another type or shape, or a K that there is no encoder for.
        """
        images = checked_images(images, self.config)
        keep = self.config.merge.keep if keep is None else checked_integer("keep", keep)
        self._check_keep(keep)
        if self.keeps:
            found = self.graphs.run("encoder", {"image": images}, keep=keep)
        else:
            found = self.graphs.run("encoder", {"image": images, "left": self._left(keep)})
        return TokenArrays(found["indices"], found["source"], found["sizes"], self._grid)

    def decode(self, tokens: TokenArrays | np.ndarray, grid: tuple[int, int] | None = None) -> np.ndarray:
        """Tokens to images.

        Args:
            tokens: with their true source; or (B, K) indices alone, and the source is recovered from them.
            grid: (h, w) of the indices; the graphs know one.

        Returns:
            (B, 3, S, S) float32 in [-1, 1].

        Raises:
            UsageError: a type, a shape, a grid or a value that these graphs do not take.
        """
        if isinstance(tokens, TokenArrays):
            check_same_grid(grid, tokens.grid)
            indices = checked_indices(tokens.indices, self.config)
            self._check_grid(tokens.grid)
            source = checked_source(tokens.source, indices, self.config)
        else:
            indices = checked_indices(tokens, self.config)
            source = self.recover_source(indices, grid)
        return self.graphs.run("decoder", {"indices": indices, "source": source})["image"]

    def recover_source(
        self,
        indices: np.ndarray,
        grid: tuple[int, int] | None = None,
        starts: np.ndarray | None = None,
    ) -> np.ndarray:
        """The source that the recovery model reads off indices alone, or off indices and where they begin.

        Args:
            indices: (B, K) integers, in canonical order.
            grid: (h, w); the graphs know one.
            starts: (B, K), ascending from 0: the first position of each token, where it is known.

        Returns:
            (B, L) int64 in [0, K).

        Raises:
            UsageError: a type, a shape, a grid or a value that these graphs do not take.
        """
        indices = checked_indices(indices, self.config)
        self._check_grid(self._grid if grid is None else grid)
        if starts is not None:
            starts = checked_starts(starts, indices, self.config)
        logits = self.graphs.run("recovery", {"indices": indices})["logits"]
        return most_likely_source(logits) if starts is None else source_with_starts(logits, starts)

    @property
    def _grid(self) -> tuple[int, int]:
        return self.config.grid, self.config.grid

    def _check_grid(self, grid: tuple[int, int]) -> None:
        if checked_grid(grid) != self._grid:
            raise UsageError(
                f"the tokens are on a grid of {' x '.join(map(str, grid))}; these graphs were made for "
                f"{self.config.grid} x {self.config.grid}"
            )

    def _check_keep(self, keep: int) -> None:
        manifest = self.graphs.manifest
        if not any(graph.role == "encoder" for graph in manifest.graphs):
            raise UsageError("the folder holds a generator, which has no encoder; export its tokenizer")
        if manifest.keeps and keep not in manifest.keeps:
            known = ", ".join(map(str, manifest.keeps))
            raise UsageError(
                f"there is no encoder for {keep} kept tokens; there is one for {known}: choose one, or export again"
            )

    def _left(self, keep: int) -> np.ndarray:
        """(N,) int64, how many tokens each block leaves; raises UsageError where K cannot be reached."""
        config = self.config
        plan = merge_schedule(config.length, keep, config.encoder.depth, config.merge.schedule)
        return config.length - np.cumsum(plan, dtype=np.int64)

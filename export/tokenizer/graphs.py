"""The tokenizer as graphs: modules that call the model's own code with flat tensors.

Legend: B batch, H W pixels, L positions, K kept tokens, N blocks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from mergevq.export.specs import decoder_spec, encoder_spec, recovery_spec
from mergevq.export.tracing import Plan
from mergevq.models.tokenizer.tokenizer import Tokenizer
from mergevq.tokens import Tokens


class EncoderGraph(nn.Module):
    """Images to indices, source and sizes, for one K."""

    def __init__(self, tokenizer: Tokenizer, keep: int):
        super().__init__()
        self.tokenizer = tokenizer
        self.keep = keep

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(B, 3, H, W) to (B, K), (B, L) and (B, K)."""
        tokens = self.tokenizer.encode(image, self.keep)
        return tokens.indices, tokens.source, tokens.sizes


class AnyKeepEncoderGraph(nn.Module):
    """Images to indices, source and sizes, for any merge plan."""

    def __init__(self, tokenizer: Tokenizer):
        super().__init__()
        self.tokenizer = tokenizer

    def forward(self, image: torch.Tensor, left: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(B, 3, H, W), and (N,) how many tokens each block leaves, to (B, K), (B, L) and (B, K).

        What a block leaves is asked for, and not what it merges: the sizes of the graph are then halves of numbers
        that are its inputs. As halves of differences they would come out of the exporter as quotients of negative
        numbers, which ONNX rounds the other way.
        """
        encoder = self.tokenizer.encoder
        plan, before = [], self.tokenizer.config.length
        for after in left.tolist():
            torch._check(after >= 1)
            torch._check(after <= before)
            # A block that merges nothing goes through the motions too: its clusters are single tokens.
            torch._check(after != before)
            plan.append(before - after)
            before = after
        encoding = encoder.attend(*encoder.embed(image), plan)
        return self.tokenizer.quantizer(encoding.tokens).indices, encoding.source, encoding.sizes


class DecoderGraph(nn.Module):
    """Indices and source to images."""

    def __init__(self, tokenizer: Tokenizer):
        super().__init__()
        self.tokenizer = tokenizer

    def forward(self, indices: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        """(B, K) and (B, L) to (B, 3, H, W)."""
        grid = self.tokenizer.config.grid
        sizes = torch.ones_like(indices)  # which no pixel depends on
        return self.tokenizer.decode(Tokens(indices, source, sizes, (grid, grid)))


class RecoveryGraph(nn.Module):
    """Indices to the logits of source recovery; `source_map` makes the source of them."""

    def __init__(self, tokenizer: Tokenizer):
        super().__init__()
        self.tokenizer = tokenizer

    def forward(self, indices: torch.Tensor) -> torch.Tensor:
        """(B, K) to (B, L, K)."""
        grid = self.tokenizer.config.grid
        return self.tokenizer.recovery(self.tokenizer.quantizer.codes(indices), (grid, grid))


def encoder_plans(tokenizer: Tokenizer, keeps: Sequence[int], dynamic_keep: bool) -> list[Plan]:
    """One encoder for each K, or one for all."""
    if dynamic_keep:
        return [Plan(encoder_spec(tokenizer.config, None), AnyKeepEncoderGraph(tokenizer))]
    return [Plan(encoder_spec(tokenizer.config, keep), EncoderGraph(tokenizer, keep)) for keep in keeps]


def decoder_plans(tokenizer: Tokenizer) -> list[Plan]:
    """The decoder and source recovery."""
    return [
        Plan(decoder_spec(tokenizer.config), DecoderGraph(tokenizer)),
        Plan(recovery_spec(tokenizer.config), RecoveryGraph(tokenizer)),
    ]

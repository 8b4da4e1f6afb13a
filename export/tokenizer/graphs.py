"""The tokenizer as graphs: modules that call the model's own code with flat tensors.

Legend: B batch, H W pixels, L positions, K kept tokens, N blocks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from mergevq.export.manifest import GraphSpec, TensorSpec
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
        blocks = tokenizer.config.encoder.depth
        left = TensorSpec(name="left", dtype="int64", shape=(blocks,))
        spec = GraphSpec(
            file="encoder.onnx",
            role="encoder",
            inputs=(_image(tokenizer), left),
            outputs=_tokens(tokenizer, "keep"),
        )
        return [Plan(spec, AnyKeepEncoderGraph(tokenizer))]
    return [
        Plan(
            GraphSpec(
                file=f"encoder_k{keep}.onnx",
                role="encoder",
                inputs=(_image(tokenizer),),
                outputs=_tokens(tokenizer, keep),
                keep=keep,
            ),
            EncoderGraph(tokenizer, keep),
        )
        for keep in keeps
    ]


def decoder_plans(tokenizer: Tokenizer) -> list[Plan]:
    """The decoder and source recovery."""
    length = tokenizer.config.length
    indices, source, _ = _tokens(tokenizer, "keep")
    logits = TensorSpec(name="logits", dtype="float32", shape=("batch", length, "keep"))
    decoder = GraphSpec(
        file="decoder.onnx", role="decoder", inputs=(indices, source), outputs=(_image(tokenizer),)
    )
    recovery = GraphSpec(file="recovery.onnx", role="recovery", inputs=(indices,), outputs=(logits,))
    return [Plan(decoder, DecoderGraph(tokenizer)), Plan(recovery, RecoveryGraph(tokenizer))]


def _image(tokenizer: Tokenizer) -> TensorSpec:
    size = tokenizer.config.image_size
    return TensorSpec(name="image", dtype="float32", shape=("batch", 3, size, size))


def _tokens(tokenizer: Tokenizer, keep: int | str) -> tuple[TensorSpec, TensorSpec, TensorSpec]:
    return (
        TensorSpec(name="indices", dtype="int64", shape=("batch", keep)),
        TensorSpec(name="source", dtype="int64", shape=("batch", tokenizer.config.length)),
        TensorSpec(name="sizes", dtype="int64", shape=("batch", keep)),
    )

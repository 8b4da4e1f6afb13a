"""What graphs take and give: a function of the model's configuration, for those who make graphs and who read manifests.

Needs no PyTorch. Legend: L positions, K kept tokens, D width, E head width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mergevq.config import TokenizerConfig
from mergevq.generator_config import HEAD_WIDTH, GeneratorConfig

Role = Literal["encoder", "decoder", "recovery", "prefill", "step", "head"]
OF_A_GENERATOR: tuple[Role, ...] = ("prefill", "step", "head")


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorSpec:
    """An input or an output of a graph."""

    name: str
    dtype: str
    """float32, int64 or bool, whatever the precision inside."""
    shape: tuple[int | str, ...]
    """A number is fixed; a name is an axis of the manifest, or the sum of two, "past + tokens"."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphSpec:
    """A graph and how it is called."""

    file: str
    role: Role
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    keep: int | None = None
    """K of an encoder that was made for one kept count; None for every other graph."""
    part: int | None = None
    """Number of the sub-code that a head scores."""

    @property
    def data(self) -> str:
        """The file that its weights stand in where they are large; graphs with the same weights share it."""
        return "generator.data" if self.role in OF_A_GENERATOR else f"{self.role}.data"


def encoder_spec(config: TokenizerConfig, keep: int | None) -> GraphSpec:
    """An encoder of one K; None is one for any, which is told how many tokens each block leaves."""
    left = TensorSpec(name="left", dtype="int64", shape=(config.encoder.depth,))
    return GraphSpec(
        file="encoder.onnx" if keep is None else f"encoder_k{keep}.onnx",
        role="encoder",
        inputs=(_image(config), left) if keep is None else (_image(config),),
        outputs=_tokens(config, "keep" if keep is None else keep),
        keep=keep,
    )


def decoder_spec(config: TokenizerConfig) -> GraphSpec:
    """The decoder of any number of tokens."""
    indices, source, _ = _tokens(config, "keep")
    return GraphSpec(file="decoder.onnx", role="decoder", inputs=(indices, source), outputs=(_image(config),))


def recovery_spec(config: TokenizerConfig) -> GraphSpec:
    """Source recovery."""
    logits = TensorSpec(name="logits", dtype="float32", shape=("batch", config.length, "keep"))
    indices = _tokens(config, "keep")[0]
    return GraphSpec(file="recovery.onnx", role="recovery", inputs=(indices,), outputs=(logits,))


def prefill_spec(config: GeneratorConfig) -> GraphSpec:
    """What stands before a generator's tokens."""
    lead = 2 if config.kind == "merge_ar" else 1
    context = TensorSpec(name="context", dtype="float32", shape=("batch", config.width))
    inputs = [TensorSpec(name=name, dtype="int64", shape=("batch",)) for name in ("label", "keep")]
    return GraphSpec(
        file="prefill.onnx",
        role="prefill",
        inputs=tuple(inputs if config.kind == "merge_ar" else inputs[:1]),
        outputs=(context, *_layers(config, "present", lead)),
    )


def step_spec(config: GeneratorConfig) -> GraphSpec:
    """A generator's step."""
    tokens = [
        TensorSpec(name="code", dtype="int64", shape=("batch", "tokens")),
        TensorSpec(name="position", dtype="int64", shape=("batch", "tokens")),
        TensorSpec(name="mask", dtype="bool", shape=("batch", "tokens", "past + tokens")),
    ]
    if config.kind == "rand_ar":
        tokens.append(TensorSpec(name="question", dtype="bool", shape=("batch", "tokens")))
    context = TensorSpec(name="context", dtype="float32", shape=("batch", "tokens", config.width))
    return GraphSpec(
        file="step.onnx",
        role="step",
        inputs=(*tokens, *_layers(config, "past", "past")),
        outputs=(context, *_layers(config, "present", "tokens")),
    )


def head_spec(config: GeneratorConfig, part: int) -> GraphSpec:
    """The head of a sub-code."""
    context = TensorSpec(name="context", dtype="float32", shape=("batch", config.width))
    known = TensorSpec(name="known", dtype="int64", shape=("batch", part))
    logits = TensorSpec(name="logits", dtype="float32", shape=("batch", 2 ** config.split[part]))
    return GraphSpec(
        file=f"head_{part}.onnx",
        role="head",
        inputs=(context, known) if part else (context,),
        outputs=(logits,),
        part=part,
    )


def all_specs(
    tokenizer: TokenizerConfig, generator: GeneratorConfig | None, keeps: list[int]
) -> list[GraphSpec]:
    """Every graph that a folder may hold.

    Args:
        tokenizer: its configuration.
        generator: likewise; None where there is none.
        keeps: kept counts of encoders.
    """
    encoders = [encoder_spec(tokenizer, keep) for keep in (None, *keeps)]
    found = [*encoders, decoder_spec(tokenizer), recovery_spec(tokenizer)]
    if generator is not None:
        heads = [head_spec(generator, part) for part in range(len(generator.split))]
        found += [prefill_spec(generator), step_spec(generator), *heads]
    return found


def _image(config: TokenizerConfig) -> TensorSpec:
    return TensorSpec(name="image", dtype="float32", shape=("batch", 3, config.image_size, config.image_size))


def _tokens(config: TokenizerConfig, keep: int | str) -> tuple[TensorSpec, TensorSpec, TensorSpec]:
    return (
        TensorSpec(name="indices", dtype="int64", shape=("batch", keep)),
        TensorSpec(name="source", dtype="int64", shape=("batch", config.length)),
        TensorSpec(name="sizes", dtype="int64", shape=("batch", keep)),
    )


def _layers(config: GeneratorConfig, name: str, tokens: int | str) -> list[TensorSpec]:
    shape = ("batch", config.heads, tokens, HEAD_WIDTH)
    return [
        TensorSpec(name=f"{name}.{layer}.{what}", dtype="float32", shape=shape)
        for layer in range(config.depth)
        for what in ("key", "value")
    ]

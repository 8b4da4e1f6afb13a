"""Every implementation of every operator beside its reference, in the shapes that models have.

On a GPU these timings decide which implementation is worth being the default there. "inference" is a call without
a gradient; "training" a call and its backward pass, for what is differentiated. The tokenizer's operators
have the shapes of a preset's first merging block and of its codes, the generators' those of one step of generation.

Legend: B images, T tokens with the class token, M heads, E head width, D width, K kept, L positions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from mergevq.backends import Device, bipartite_match, devices, operators
from mergevq.backends.registry import REFERENCE
from mergevq.bench.subjects.cases import FULL, PRESETS, counted, describe, finished
from mergevq.config import TokenizerConfig
from mergevq.generator_config import HEAD_WIDTH, GeneratorConfig, generator_config
from mergevq.models.tokenizer.merge import merge_schedule
from mergevq.presets import preset as preset_config

SIZE = "L" if FULL else "nano"
BATCHES = [1, 32] if FULL else [1]
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16} if FULL else {"float32": torch.float32}
TEMPERATURE = 0.01
TRAINED = {"sized_attention": 3, "merge": 1, "recover": 1, "lfq_entropies": 1}
"""How many of an operator's first arguments get a gradient in training."""

pytestmark = pytest.mark.usefixtures("threads")


def tokenizer_arguments(config: TokenizerConfig, batch: int, noise: Callable[..., torch.Tensor]) -> dict:
    """Arguments by operator, in the shapes of the first block that merges."""
    width, heads, keep = config.encoder.width, config.encoder.heads, config.merge.keep
    tokens = config.length + 1
    schedule = merge_schedule(config.length, keep, config.encoder.depth, config.merge.schedule)
    merges = next(number for number in schedule if number)
    query, key, value = (noise(batch, heads, tokens, width // heads) for _ in range(3))
    size = 1 + noise(batch, tokens).abs().float()
    metric = noise(batch, tokens, width // heads)
    assign = bipartite_match(metric, merges, 1)
    z = noise(batch, keep, config.quantizer.bits).float()
    source = torch.arange(config.length, device=z.device).expand(batch, -1) % keep
    return {
        "sized_attention": (query, key, value, size.log()),
        "bipartite_match": (metric, merges, 1),
        "merge": (noise(batch, tokens, width), size, assign, tokens - merges),
        "recover": (z, source),
        "lfq_quantize": (z,),
        "lfq_entropies": (z / 10, TEMPERATURE),
    }


def generator_arguments(config: GeneratorConfig, batch: int, noise: Callable[..., torch.Tensor]) -> dict:
    """The same of one token with guidance, half-way through merge_ar: rows differ in how many slots are valid."""
    rows, slots = 2 * batch, config.counts[0] + config.window
    query = noise(rows, config.heads, 1, HEAD_WIDTH)
    buffer = noise(2, rows, config.heads, slots + 32, HEAD_WIDTH)[..., :slots, :]
    used = torch.linspace(slots / 2, slots, rows, device=query.device).long()
    valid = (torch.arange(slots, device=query.device) < used.unsqueeze(1)).unsqueeze(1)
    angles = noise(1, 1, HEAD_WIDTH // 2).float()
    return {
        "decode_attention": (query, buffer[0], buffer[1], valid),
        "rms_norm": (noise(rows, 1, config.width), noise(config.width), 1e-5),
        "rope": (query, angles.cos(), angles.sin()),
        "swiglu": (noise(rows, 1, config.hidden), noise(rows, 1, config.hidden)),
    }


def arguments(name: str, preset: str, batch: int, dtype: torch.dtype, device: str) -> tuple[Any, ...]:
    """Arguments of an operator, the same every time; its example where nothing else is known."""
    random = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random).to(device, dtype)

    config = preset_config(preset)
    known = tokenizer_arguments(config, batch, noise)
    known |= generator_arguments(generator_config(SIZE, "merge_ar", config), batch, noise)
    return known.get(name) or operators()[name].example(torch.device(device))


def step(run: Callable[..., Any], inputs: tuple[Any, ...], wanted: int) -> Callable[[], Any]:
    """A call, and its backward pass into so many of the first arguments."""
    if not wanted:
        return torch.inference_mode()(lambda: run(*inputs))
    leaves = [value.detach().clone().requires_grad_() for value in inputs[:wanted]]

    def both() -> Any:
        outputs = run(*leaves, *inputs[wanted:])
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        total = sum(output.float().sum() for output in outputs if output.requires_grad)
        return torch.autograd.grad(total, leaves)

    return both


CASES = [
    (name, implementation, where, wanted)
    for name, operator in operators().items()
    for implementation, where in [
        (REFERENCE, "any device"),
        *((each.name, where) for where in devices() for each in operator.implementations(where)),
    ]
    for wanted in sorted({0, TRAINED.get(name, 0)})
]


@pytest.mark.benchmark(warmup=True, warmup_iterations=2)
@pytest.mark.parametrize(("operator", "implementation", "where", "wanted"), CASES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("preset", PRESETS)
def test_operator(
    benchmark: BenchmarkFixture,
    preset: str,
    batch: int,
    dtype: str,
    operator: str,
    implementation: str,
    where: str,
    wanted: int,
    device: Device,
) -> None:
    if where not in ("any device", device.name):
        pytest.skip(f"for {where}, and the timings are of {device.name}")
    describe(
        benchmark,
        group=f"operators, {'training' if wanted else 'inference'}, {dtype}, {counted(batch, 'image')}, 1 thread",
        row=f"{operator}: {implementation}",
        column=preset,
    )
    chosen = operators()[operator]
    inputs = arguments(operator, preset, batch, DTYPES[dtype], device.name)
    run = chosen.reference
    for each in chosen.implementations(device.name):
        if each.name == implementation:
            run = each.run
            with torch.set_grad_enabled(bool(wanted)):
                refused = each.when(*inputs)
            if refused is not None:
                pytest.skip(refused.reason)
    assert benchmark(finished(step(run, inputs, wanted), device)) is not None

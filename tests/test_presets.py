from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

import mergevq
from mergevq.errors import UsageError
from mergevq.models.tokenizer.tokenizer import Tokenizer
from mergevq.presets import preset, presets

# Millions of parameters: Table A1 where it has the model (R: without a classifier), else the released code's.
PARAMETERS = [
    ("G", 62.3, 82.8),
    ("G+R", 62.7, 83.4),
    ("R", 85.7, 83.4),
    ("G-d32", 38.22, 51.43),
    ("G+R-d32", 38.55, 51.95),
    ("G+R-d96", 140.91, 187.19),
]
# Billions of multiply-accumulates at 256 px: what Table A1 prints as FLOPs, and the bounds held here.
OPERATIONS = [
    ("G", 97.5, (85, 98), 169.2, (155, 173)),
    ("G+R", 46.4, (43, 48), 65.6, (62, 67)),
    ("R", 9.5, (7, 12), 65.6, (62, 67)),
]


def on_meta(name: str) -> Tokenizer:
    with torch.device("meta"):
        return Tokenizer(preset(name))


def millions(*modules: torch.nn.Module) -> float:
    return sum(parameter.numel() for module in modules for parameter in module.parameters()) / 1e6


@pytest.mark.parametrize("name", presets())
def test_every_preset_builds_under_its_own_name(name):
    tokenizer = on_meta(name)
    assert tokenizer.config.name == name
    assert all(parameter.requires_grad for parameter in tokenizer.parameters())


def test_the_public_list_is_the_papers_presets_then_the_small_ones():
    assert mergevq.presets() == [
        "G",
        "G+R",
        "R",
        "G-d32",
        "G+R-d32",
        "G-d96",
        "G+R-d96",
        "tiny-32",
        "small-64",
    ]


@pytest.mark.parametrize(("name", "encoder", "decoder"), PARAMETERS)
def test_parameters_are_within_one_percent(name, encoder, decoder):
    tokenizer = on_meta(name)
    assert millions(tokenizer.encoder, tokenizer.quantizer) == pytest.approx(encoder, rel=0.01)
    assert millions(tokenizer.decoder) == pytest.approx(decoder, rel=0.01)


@pytest.mark.parametrize(
    ("name", "heads"),
    [("G", 8), ("G+R", 8), ("R", 12), ("G-d32", 8), ("G+R-d32", 8), ("G-d96", 12), ("G+R-d96", 12)],
)
def test_heads_are_those_of_the_released_configurations(name, heads):
    config = preset(name)
    assert config.encoder.heads == heads
    assert config.decoder.heads == (8 if name == "R" else heads)


def test_source_recovery_has_the_papers_size():
    assert millions(on_meta("G").recovery) == pytest.approx(7.1, rel=0.03)


@pytest.mark.parametrize("name", ["tiny-32", "small-64"])
def test_small_presets_are_small(name):
    assert millions(on_meta(name)) < 10


def operations(run) -> float:
    """Billions of multiply-accumulates."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() / 2e9


@pytest.mark.parametrize(("name", "encoder", "encoder_bounds", "decoder", "decoder_bounds"), OPERATIONS)
def test_operations_are_near_the_table(name, encoder, encoder_bounds, decoder, decoder_bounds, capsys):
    config = preset(name)
    with FakeTensorMode():
        tokenizer = Tokenizer(config)
        images = torch.empty(1, 3, config.image_size, config.image_size)
        encoded = operations(lambda: tokenizer.encode(images))
        codes = torch.empty(1, config.length, config.quantizer.bits)
        decoded = operations(lambda: tokenizer.decoder(codes, (config.grid, config.grid)))
    with capsys.disabled():
        print(  # noqa: T201
            f"\n{name}: encoder {encoded:.1f} GMAC (Table A1: {encoder}), decoder {decoded:.1f} GMAC ({decoder})"
        )
    assert encoder_bounds[0] < encoded < encoder_bounds[1]
    assert decoder_bounds[0] < decoded < decoder_bounds[1]


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [("GR", "G+R"), ("g", "G"), ("g+r", "G+R"), ("tiny32", "tiny-32"), ("smal-64", "small-64")],
)
def test_an_unknown_preset_names_the_nearest(wrong, nearest):
    with pytest.raises(UsageError, match="unknown preset") as caught:
        mergevq.create(wrong)
    assert f"did you mean {nearest!r}?" in str(caught.value) and "known: G, G+R, R" in str(caught.value)

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergevq.config import (
    DecoderConfig,
    EncoderConfig,
    MergeConfig,
    QuantizerConfig,
    RecoveryConfig,
    TokenizerConfig,
    from_dict,
    override,
    to_dict,
)
from mergevq.errors import ConfigError
from mergevq.presets import preset, presets


@pytest.mark.parametrize("name", presets())
def test_presets_survive_json(name):
    config = preset(name)
    assert from_dict(TokenizerConfig, json.loads(json.dumps(to_dict(config)))) == config


changes = st.fixed_dictionaries(
    {},
    optional={
        "name": st.text(max_size=8),
        "merge": st.fixed_dictionaries({"keep": st.integers(1, 64)}),
        "merge.schedule": st.sampled_from(["square", "linear", "constant"]),
        "encoder.depth": st.integers(1, 99),
        "encoder.layer_scale": st.floats(0, 1) | st.integers(0, 1),
        "encoder.heads": st.sampled_from([1, 2, 4, 8]),
        "decoder.mlp_ratio": st.floats(0.1, 9),
        "quantizer.bits": st.integers(1, 31),
        "recovery.width": st.sampled_from([64, 128, 192]),
        "decoder.multipliers": st.lists(st.integers(1, 9), min_size=2, max_size=2),
    },
)


@given(changes)
def test_overrides_land_where_they_belong_and_survive_json(wanted):
    config = override(preset("tiny-32"), wanted)
    assert from_dict(TokenizerConfig, json.loads(json.dumps(to_dict(config)))) == config
    values = to_dict(config)
    for path, value in wanted.items():
        node = values
        for part in path.split("."):
            node = node[part]
        assert node == value or (isinstance(value, dict) and value.items() <= node.items())
    untouched = to_dict(preset("tiny-32"))
    for group in {"encoder", "merge", "quantizer", "recovery", "decoder"} - {
        path.split(".")[0] for path in wanted
    }:
        assert values[group] == untouched[group]


def test_missing_keys_take_their_defaults():
    assert from_dict(TokenizerConfig, {}) == TokenizerConfig()
    assert from_dict(TokenizerConfig, {"quantizer": {"bits": 9}}).encoder == EncoderConfig()


def test_lists_become_tuples_and_numbers_become_floats():
    config = from_dict(EncoderConfig, {"multipliers": [1, 3], "mlp_ratio": 2, "layer_scale": "1e-4"})
    assert config.multipliers == (1, 3)
    assert isinstance(config.mlp_ratio, float) and config.layer_scale == 1e-4


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"imagesize": 32}, "unknown key 'imagesize'; did you mean 'image_size'"),
        ({"encoder": {"dept": 3}}, "unknown key 'encoder.dept'; did you mean 'encoder.depth'"),
        ({"merge": {"schedule": "sqare"}}, "unknown value of merge.schedule 'sqare'; did you mean 'square'"),
        ({"image_size": "32"}, "image_size must be int, not '32'"),
        ({"image_size": True}, "image_size must be int, not True"),
        ({"image_size": 32.0}, r"image_size must be int, not 32\.0"),
        ({"name": 3}, "name must be str, not 3"),
        ({"encoder": 3}, "encoder must be a group of keys, not 3"),
        ({"encoder": {"multipliers": 4}}, r"encoder\.multipliers must be a list, not 4"),
        ({"encoder": {"multipliers": [1, "2"]}}, r"encoder\.multipliers must be int, not '2'"),
        ({"encoder": {"mlp_ratio": "four"}}, r"encoder\.mlp_ratio must be float, not 'four'"),
        ({"encoder": {"mlp_ratio": True}}, r"encoder\.mlp_ratio must be float, not True"),
        ({"merge": {"schedule": ["square"]}}, "unknown value of merge.schedule"),
    ],
)
def test_what_does_not_fit_is_named(values, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(TokenizerConfig, values)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("encoder.dpth", "did you mean 'encoder.depth'"),
        ("encodr.depth", "unknown key 'encodr.depth'; did you mean 'encoder'"),
        ("image_size.depth", "unknown key 'image_size.depth'"),
        ("encoder.depth.more", "unknown key 'encoder.depth.more'"),
    ],
)
def test_an_override_of_an_unknown_key_names_the_nearest(path, message):
    with pytest.raises(ConfigError, match=message):
        override(preset("tiny-32"), {path: 3})


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: EncoderConfig(depth=0), r"encoder\.depth is 0; it must be a whole number from 1 to 1024"),
        (
            lambda: EncoderConfig(width=500, heads=8),
            r"encoder\.width 500 is not divisible by encoder\.heads 8",
        ),
        (lambda: EncoderConfig(width=6, heads=1), "multiple of 4"),
        (lambda: EncoderConfig(blocks=0), r"encoder\.blocks must be positive"),
        (lambda: DecoderConfig(blocks=-1), r"decoder\.blocks is -1"),
        (lambda: DecoderConfig(width=9, heads=2), r"decoder\.width 9"),
        (lambda: MergeConfig(keep=-1), r"merge\.keep is -1"),
        (lambda: MergeConfig(schedule="cubic"), "unknown value of merge.schedule 'cubic'"),  # type: ignore[arg-type]
        (lambda: QuantizerConfig(bits=32), r"quantizer\.bits is 32; .* from 1 to 31"),
        (lambda: QuantizerConfig(bits=0), r"quantizer\.bits is 0"),
        (lambda: RecoveryConfig(heads=7), r"recovery\.width 512 is not divisible by recovery\.heads 7"),
        (lambda: RecoveryConfig(mlp_ratio=1e-4), r"recovery\.mlp_ratio 0\.0001 leaves nothing"),
        (lambda: TokenizerConfig(image_size=250), "image_size 250 is not a multiple of the stride 8"),
        (lambda: TokenizerConfig(image_size=-8), "image_size is -8; it must be a whole number from 1"),
        (
            lambda: TokenizerConfig(merge=MergeConfig(keep=1025)),
            r"merge\.keep 1025 exceeds the 1024 positions",
        ),
        (lambda: TokenizerConfig(encoder=EncoderConfig(patch=2)), "folds 16 px a side .* unfolds 8"),
    ],
)
def test_what_cannot_be_built_is_refused(build, message):
    with pytest.raises(ConfigError, match=message):
        build()


def test_a_vit_needs_no_residual_blocks():
    assert EncoderConfig(patch=16, multipliers=(), blocks=0).stride == 16


@pytest.mark.parametrize(
    ("name", "stride", "grid", "keep"),
    [
        ("G", 8, 32, 256),
        ("G+R", 16, 16, 144),
        ("R", 16, 16, 36),
        ("tiny-32", 4, 8, 32),
        ("small-64", 4, 16, 128),
    ],
)
def test_geometry_of_the_presets(name, stride, grid, keep):
    config = preset(name)
    assert (config.stride, config.grid, config.length, config.merge.keep) == (stride, grid, grid**2, keep)


def test_configurations_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TokenizerConfig().image_size = 3  # type: ignore[misc]


def test_a_refused_override_leaves_the_original():
    config = preset("tiny-32")
    with pytest.raises(ConfigError):
        override(config, {"encoder.depth": 2, "merge.keep": 65})
    assert config == preset("tiny-32")


def test_a_key_without_a_default_is_asked_for():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Record:
        rows: int
        name: str = ""

    assert from_dict(Record, {"rows": 1}) == Record(rows=1)
    with pytest.raises(ConfigError, match=r"^shard\.rows is missing$"):
        from_dict(Record, {"name": "x"}, "shard.")

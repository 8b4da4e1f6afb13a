"""Fine-tuning of source recovery: which codes are replaced, what learns, what stays to the bit."""

from __future__ import annotations

import pytest
import torch

import mergevq
from mergevq.config import override
from mergevq.data.tokens.shards import TokenShards
from mergevq.errors import CheckpointError, ConfigError, UsageError
from mergevq.generation.pipeline import ImageGenerator
from mergevq.generator_config import generator_config
from mergevq.models.generators.autoregressive import Generator
from mergevq.models.store import fingerprint
from mergevq.training.recovery.config import CorruptionConfig, RecoveryRun
from mergevq.training.recovery.corruption import FLIPPED, Corruption
from mergevq.training.recovery.module import by_count
from mergevq.training.recovery.run import compare, tokens_of, train_recovery


@pytest.fixture
def batch(token_home):
    return TokenShards(token_home / "tokens").batch(torch.arange(36).numpy())


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def make_generator(tokenizer, kind="rand_ar"):
    torch.manual_seed(1)
    config = generator_config("nano", kind, tokenizer.config, counts=(24, 40), classes=2, width=64, depth=1)
    return ImageGenerator(Generator(config), tokenizer).eval()


def test_no_code_or_many_are_replaced(batch):
    assert torch.equal(Corruption(CorruptionConfig(share=0.0), 8, None)(batch, rng()).indices, batch.indices)
    many = type(batch)(*(values.repeat(200, *[1] * (values.dim() - 1)) for values in batch))
    seen = Corruption(CorruptionConfig(share=1.0), 8, None)(many, rng()).indices
    changed = seen != many.indices
    replaced = 0.5 * (1 - (1 - FLIPPED) ** 8)  # half on average; eight bits may all stay
    assert float(changed.float().mean()) == pytest.approx(replaced, abs=0.02)
    per_row = changed.float().mean(1)
    assert per_row.min() < 0.1 and per_row.max() > 0.8  # each image draws its own share
    assert seen.min() >= 0 and seen.max() < 256
    assert all(torch.equal(one, other) for one, other in zip(many[2:], batch_rest(many), strict=True))


def batch_rest(batch):
    return Corruption(CorruptionConfig(), 8, None)(batch, rng())[2:]


def test_corruption_is_decided_by_its_seed(batch):
    corruption = Corruption(CorruptionConfig(), 8, None)
    assert torch.equal(corruption(batch, rng()).indices, corruption(batch, rng()).indices)
    assert not torch.equal(corruption(batch, rng()).indices, corruption(batch, rng(1)).indices)


def test_generator_says_what_replaces(batch, token_home, monkeypatch):
    generator = make_generator(mergevq.load(token_home / "tok")).model
    monkeypatch.setattr(Generator, "predict", lambda self, batch, rng: torch.full_like(batch.indices, 77))
    seen = Corruption(CorruptionConfig(share=1.0), 8, generator)(batch, rng()).indices
    changed = seen != batch.indices
    assert changed.any() and bool((seen[changed] == 77).all())


def test_rows_are_parted_by_their_count(batch):
    parts = by_count(batch)
    assert [part.indices.shape[1] for part in parts] == [24, 40]
    assert sum(len(part.labels) for part in parts) == len(batch.labels)
    for part in parts:
        assert part.source.max() < part.indices.shape[1]


def test_recovery_improves_and_the_rest_stays_to_the_bit(recovery_run, token_home, cpu, tmp_path):
    config = override(
        recovery_run, {"train.steps": 60, "optimizer.rate": 0.3, "optimizer.ema": 0.9, "train.batch_size": 8}
    )
    out = train_recovery(config, tmp_path / "run", cpu)
    before, after = mergevq.load(token_home / "tok"), mergevq.load(out)
    assert fingerprint(before) == fingerprint(after)
    for name, value in after.state_dict().items():
        same = torch.equal(value, before.state_dict()[name])
        assert same != name.startswith("recovery."), name
    accuracies = compare(config, out, cpu)
    for first, last in accuracies.values():
        assert last > first + 0.1, accuracies


def test_generator_takes_part(recovery_run, token_home, cpu, tmp_path):
    mergevq.save(make_generator(mergevq.load(token_home / "tok")), tmp_path / "gen")
    config = override(recovery_run, {"corruption.generator": str(tmp_path / "gen"), "train.steps": 2})
    out = train_recovery(config, tmp_path / "run", cpu)
    assert compare(config, out, cpu).keys() == {"source_accuracy", "source_accuracy_corrupted"}
    with pytest.raises(ConfigError, match=r"other settings \(generator\)"):
        train_recovery(override(config, {"corruption.generator": None}), out, cpu)


def test_wrong_generators_are_refused(recovery_run, token_home, cpu, tmp_path):
    mergevq.save(make_generator(mergevq.load(token_home / "tok"), "raster"), tmp_path / "raster")
    torch.manual_seed(5)
    other = mergevq.create("tiny-32", **{"quantizer.bits": 8})
    mergevq.save(make_generator(other), tmp_path / "other")
    for name, error, said in (
        ("raster", UsageError, "is a raster generator; source recovery serves rand_ar only"),
        ("other", CheckpointError, "another tokenizer"),
    ):
        with pytest.raises(error, match=said):
            train_recovery(
                override(recovery_run, {"corruption.generator": str(tmp_path / name)}), tmp_path / "run", cpu
            )
    assert not (tmp_path / "run").exists()


def test_pictures_become_tokens_once(token_home, tmp_path):
    tokenizer = mergevq.load(token_home / "tok")
    assert tokens_of(str(token_home / "tokens"), tokenizer, tmp_path) == token_home / "tokens"
    made = tokens_of(str(token_home / "images"), tokenizer, tmp_path)
    assert made == tmp_path / "tokens" and TokenShards(made).meta.counts == (32,)
    assert tokens_of(str(token_home / "images"), tokenizer, tmp_path) == made


def test_several_processes_do_not_all_make_tokens(token_home, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="make them first: mergevq tokens"):
        tokens_of(str(token_home / "images"), mergevq.load(token_home / "tok"), tmp_path)


def test_defaults_are_the_paper():
    run = RecoveryRun()
    assert (run.optimizer.betas, run.optimizer.rate) == ((0.9, 0.95), 1e-4)
    assert (run.optimizer.weight_decay, run.optimizer.schedule) == (0.01, "step")
    assert (run.train.epochs, run.train.batch_size, run.corruption.share) == (5.0, 256, 0.3)
    with pytest.raises(ConfigError, match=r"corruption\.share is 2"):
        CorruptionConfig(share=2.0)

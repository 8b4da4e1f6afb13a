"""The training step: what receives which gradient, what stops a run, what a run leaves behind."""

from __future__ import annotations

import csv
import json

import pytest
import torch
import yaml

import mergevq
from mergevq.config import from_dict, override
from mergevq.data.images.dataset import Batch
from mergevq.errors import DataError, NonFiniteError, OutputError, UsageError
from mergevq.models.tokenizer.tokenizer import Tokenizer
from mergevq.training.engine.checkpoint import LAST
from mergevq.training.tokenizer.config import TokenizerRun
from mergevq.training.tokenizer.module import TokenizerTraining
from mergevq.training.tokenizer.run import total_steps, train_tokenizer


class Optimizers:
    """Stands in for Lightning: plain optimisers and a plain backward pass."""

    def __init__(self, module):
        self.made = module.configure_optimizers()
        module.optimizers = lambda: self.made
        module.manual_backward = lambda loss: loss.backward()


@pytest.fixture
def module(whole_run):
    torch.manual_seed(0)
    made = TokenizerTraining(whole_run, Tokenizer(whole_run.model), steps=6, global_batch=8)
    Optimizers(made)
    made.train()
    return made


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return Batch(images, torch.zeros(4, dtype=torch.int64), list("abcd"), images[..., :24, :24], [])


def gradients(part):
    return [weight.grad for weight in part.parameters() if weight.grad is not None]


def snapshot(part):
    return {name: value.clone() for name, value in part.state_dict().items()}


def test_generator_leaves_no_gradient_in_the_discriminator(module, batch):
    module.steps_done = 1  # adversarial training has begun
    module._keep = 32
    module._generator_pass(batch)
    assert gradients(module.critic.discriminator) == []
    assert len(gradients(module.tokenizer)) > 0


def test_discriminator_leaves_no_gradient_in_the_tokenizer(module, batch):
    module.steps_done = 1
    module._keep = 32
    module._generator_pass(batch)
    before = [gradient.clone() for gradient in gradients(module.tokenizer)]
    module._critic_pass(batch)
    assert len(gradients(module.critic.discriminator)) > 0
    for one, other in zip(before, gradients(module.tokenizer), strict=True):
        assert torch.equal(one, other)


def test_accumulated_discriminator_gradient_is_the_sum_of_its_own(module, batch):
    """Two passes through `training_step` leave what two critic passes alone would leave."""
    module.steps_done = 1
    module._keep = 32
    module.critic.discriminator.eval()  # batch statistics would depend on the order of the passes
    module._generator_pass(batch)
    module._critic_pass(batch)
    one = [gradient.clone() for gradient in gradients(module.critic.discriminator)]
    module._generator_pass(batch)
    ema = [module.critic.lecam.ema_real.clone(), module.critic.lecam.ema_fake.clone()]
    both = [gradient.clone() for gradient in gradients(module.critic.discriminator)]
    for first, second in zip(one, both, strict=True):
        assert torch.equal(first, second)  # the second generator pass added nothing
    assert ema == [module.critic.lecam.ema_real, module.critic.lecam.ema_fake]


def test_all_parts_are_trained(module, batch):
    before = snapshot(module.tokenizer)
    critic, head = snapshot(module.critic.discriminator), snapshot(module.alignment.head)
    for _ in range(6):
        module.training_step(batch, 0)
    assert module.steps_done == 3
    unmoved = [
        name for name, value in module.tokenizer.state_dict().items() if torch.equal(value, before[name])
    ]
    assert unmoved == []
    assert any(
        not torch.equal(value, critic[name])
        for name, value in module.critic.discriminator.state_dict().items()
    )
    assert any(
        not torch.equal(value, head[name]) for name, value in module.alignment.head.state_dict().items()
    )


def test_average_follows_the_weights(module, batch):
    start = snapshot(module.ema)
    for _ in range(2):
        module.training_step(batch, 0)
    decay = 1 / 10  # the first step's
    for name, value in module.ema.named_parameters():
        expected = start[name] + (1 - decay) * (module.tokenizer.get_parameter(name) - start[name])
        torch.testing.assert_close(value, expected)


def test_one_kept_count_a_step(module, batch):
    drawn = []
    module.keeps.draw = lambda: drawn.append(32) or 32
    for _ in range(4):
        module.training_step(batch, 0)
    assert len(drawn) == 2  # two passes a step


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_non_finite_stops_before_the_weights(module, batch, where, monkeypatch):
    before = snapshot(module.tokenizer)
    if where == "loss":
        objective = module.objective
        monkeypatch.setattr(
            objective, "total", lambda terms, progress: terms["reconstruction"] * float("nan")
        )
    else:
        module.tokenizer.decoder.out.weight.register_hook(lambda gradient: gradient * float("inf"))
    module.training_step(batch, 0)  # the first of two passes: both are looked at before the step
    with pytest.raises(NonFiniteError, match=r"not finite at step 0 .*The batch was: a, b, c, d"):
        module.training_step(batch, 0)
    for name, value in module.tokenizer.state_dict().items():
        assert torch.equal(value, before[name])


def test_checkpoint_holds_no_foreign_network(whole_run, cpu, tmp_path):
    out = train_tokenizer(whole_run, tmp_path / "run", cpu)
    state = torch.load(out / LAST, weights_only=True)["state_dict"]
    assert {name.split(".")[0] for name in state} == {"tokenizer", "ema", "critic", "alignment"}
    exported = mergevq.load(out).state_dict()
    assert {name.split(".")[0] for name in exported} == {"encoder", "quantizer", "recovery", "decoder"}
    for name, value in exported.items():
        assert torch.equal(value, state[f"ema.{name}"])
        assert torch.equal(value, mergevq.load(out / LAST).state_dict()[name])


def test_run_folder_describes_itself(small_run, cpu, tmp_path):
    small_run = override(small_run, {"train.validate_every": 3})
    out = train_tokenizer(small_run, tmp_path / "run", cpu)
    assert from_dict(TokenizerRun, yaml.safe_load((out / "run.yaml").read_text())) == small_run
    assert json.loads((out / "environment.json").read_text())["precision"] in ("32", "bf16")
    with (out / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sorted({int(row["step"]) for row in rows}) == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in rows if row["val_psnr"]] == ["3", "6"]
    assert sorted(path.name for path in (out / "pictures").iterdir()) == [
        "step-0000003.png",
        "step-0000006.png",
    ]


def test_training_lowers_the_loss(small_run, cpu, tmp_path):
    faster = {"train.steps": 40, "train.log_every": 10, "optimizer.rate": 0.3, "data.path": "builtin:digits"}
    longer = override(small_run, faster)
    out = train_tokenizer(longer, tmp_path / "run", cpu)
    with (out / "log.csv").open() as file:
        losses = [float(row["reconstruction"]) for row in csv.DictReader(file) if row["reconstruction"]]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("precision", ["bf16", "32"])
def test_precision_is_what_was_asked(small_run, cpu, tmp_path, precision, monkeypatch):
    seen = []
    forward = Tokenizer.forward

    def spy(self, images, keep):
        seen.append(torch.is_autocast_enabled("cpu"))
        return forward(self, images, keep)

    monkeypatch.setattr(Tokenizer, "forward", spy)
    train_tokenizer(
        override(small_run, {"train.precision": precision, "train.steps": 1}), tmp_path / "run", cpu
    )
    assert seen == [precision == "bf16"]


def test_compiled_training_runs(whole_run, cpu, tmp_path, monkeypatch):
    """With the adaptive weight, which needs the graph twice."""
    monkeypatch.setattr(Tokenizer, "compile", lambda self: torch.nn.Module.compile(self, backend="aot_eager"))
    quick = override(whole_run, {"train.compile": True, "train.steps": 2, "keep.kind": "fixed"})
    out = train_tokenizer(quick, tmp_path / "run", cpu)
    torch._dynamo.reset()
    assert not any("_orig_mod" in name for name in mergevq.load(out).state_dict())


def test_full_disk_leaves_the_last_checkpoint(small_run, cpu, tmp_path, monkeypatch):
    out = train_tokenizer(override(small_run, {"train.steps": 2}), tmp_path / "run", cpu)
    last, weights = (out / LAST).read_bytes(), (out / "model.safetensors").read_bytes()

    def full(checkpoint, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    (out / "run.yaml").unlink()
    monkeypatch.setattr("mergevq.training.tokenizer.run._MAY_CHANGE", {"train.steps"})
    with pytest.raises(OutputError, match="No space left on device"):
        train_tokenizer(override(small_run, {"train.steps": 4}), out, cpu)
    assert (out / LAST).read_bytes() == last
    assert (out / "model.safetensors").read_bytes() == weights
    assert not [path for path in out.rglob(".*") if path.is_file()]


def test_perceptual_loss_asks_for_its_weights(small_run, cpu, tmp_path, monkeypatch):
    monkeypatch.setattr("mergevq.training.tokenizer.objective.find_lpips_weights", lambda network: None)
    with pytest.raises(
        UsageError, match=r"never downloaded: give their file with --loss\.perceptual_weights"
    ):
        train_tokenizer(override(small_run, {"loss.perceptual": 0.7}), tmp_path / "run", cpu)


def test_too_many_broken_pictures_stop_a_run(small_run, cpu, tmp_path, image_folder):
    for path in sorted(image_folder.rglob("*.*"))[::2]:
        path.write_bytes(path.read_bytes()[:200])
    broken = {"data.path": str(image_folder), "data.max_failures": 2, "train.steps": 30}
    with pytest.raises(DataError, match=r"could not be read and data\.max_failures is 2"):
        train_tokenizer(override(small_run, broken), tmp_path / "run", cpu)


def test_validation_without_a_readable_picture_gives_a_sentence_and_no_number(
    small_run, cpu, tmp_path, image_folder, caplog
):
    for number, path in enumerate(sorted(image_folder.rglob("*.*"))):
        split = image_folder.parent / "split" / ("val" if number % 4 == 0 else "train") / path.parent.name
        split.mkdir(parents=True, exist_ok=True)
        path.rename(split / path.name)
    for path in (image_folder.parent / "split" / "val").rglob("*.*"):
        path.write_bytes(b"no picture")
    changes = {"data.path": str(image_folder.parent / "split"), "train.steps": 2, "train.validate_every": 1}
    with caplog.at_level("INFO", "mergevq"):
        out = train_tokenizer(override(small_run, changes), tmp_path / "run", cpu)
    assert "not one validation picture can be read; nothing is measured at step 1" in caplog.text
    assert "psnr" not in caplog.text and "val_" not in (out / "log.csv").read_text()


def test_epochs_become_steps(small_run):
    run = override(small_run, {"train.steps": None, "train.epochs": 2.0, "data.path": "builtin:digits"})
    assert total_steps(run, images_per_step=100) == 29  # 2 x 1438 training digits


def test_blocks_start_from_a_larger_network(small_run, cpu, tmp_path):
    from safetensors.torch import save_file
    from timm.models.vision_transformer import VisionTransformer

    teacher = VisionTransformer(img_size=32, patch_size=8, embed_dim=128, depth=4, num_heads=2, num_classes=0)
    save_file(teacher.state_dict(), tmp_path / "teacher.safetensors")
    start = {
        "train.blocks_from": str(tmp_path / "teacher.safetensors"),
        "optimizer.rate": 1e-12,
        "train.steps": 1,
    }
    out = train_tokenizer(override(small_run, start), tmp_path / "run", cpu)
    chosen = mergevq.load(out).encoder.blocks[0].mlp.up.weight  # (128, 32) of (512, 128)
    torch.testing.assert_close(chosen, teacher.blocks[0].mlp.fc1.weight[::4, ::4], atol=1e-6, rtol=0)


def test_tensorboard_is_an_option(small_run, cpu, tmp_path):
    out = train_tokenizer(override(small_run, {"train.tensorboard": True}), tmp_path / "run", cpu)
    assert list((out / "tensorboard").glob("events.out.tfevents.*"))


def test_teacher_is_not_fetched_unasked(small_run, cpu, tmp_path):
    asked = {"alignment.kind": "distill", "loss.alignment": 1.0, "alignment.view": 224}
    with pytest.raises(UsageError, match=r"needs weights: --alignment\.weights FILE"):
        train_tokenizer(override(small_run, asked), tmp_path / "run", cpu)

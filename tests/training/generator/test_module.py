"""Stage 2: gradients, averages, what stops a run, what a run leaves behind."""

from __future__ import annotations

import csv
import shutil

import pytest
import torch
import yaml
from PIL import Image

import mergevq
from mergevq.config import from_dict
from mergevq.data.tokens.shards import TokenShards
from mergevq.data.tokens.splits import all_rows
from mergevq.errors import CheckpointError, ConfigError, DataError, NonFiniteError, UsageError
from mergevq.generator_config import generator_config
from mergevq.models.generators.autoregressive import Generator
from mergevq.presets import preset
from mergevq.training.engine.checkpoint import LAST
from mergevq.training.generator.config import GeneratorLossConfig, GeneratorRun
from mergevq.training.generator.module import GeneratorTraining, decay_groups, pass_seeds
from mergevq.training.generator.recipes import generator_recipe
from mergevq.training.generator.run import LAYOUTS, layouts, train_generator

KINDS = ["raster", "merge_ar", "rand_ar"]
CALM = {"model.dropout": 0.0, "model.class_dropout": 0.0}


def make(config):
    """A module with plain optimisers and a plain backward pass in Lightning's place."""
    torch.manual_seed(0)
    tokenizer = mergevq.load(config.data.tokenizer)
    made = GeneratorTraining(config, Generator(config.model), tokenizer, steps=6, global_batch=8)
    optimizer = made.configure_optimizers()
    made.optimizers = lambda: optimizer
    made.manual_backward = lambda loss: loss.backward()
    made.model.train()
    return made


@pytest.fixture
def batch(token_home):
    """Eight records of both classes and both kept counts."""
    return TokenShards(token_home / "tokens").batch(torch.arange(14, 22).numpy())


def parts(batch, size):
    return [type(batch)(*(values[i : i + size] for values in batch)) for i in range(0, len(batch[0]), size)]


def snapshot(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("kind", ["raster", "merge_ar"])
def test_accumulated_gradient_is_that_of_the_larger_batch(generator_run, batch, kind):
    gradients = []
    for passes in (1, 2):
        module = make(generator_run(kind, **CALM, **{"train.accumulate": passes}))
        module.average = lambda: None
        for optimizer in module.active_optimizers():
            optimizer.step = optimizer.zero_grad = lambda **_: None
        for part in parts(batch, 8 // passes):
            module.training_step(part, 0)
        assert module.steps_done == 1
        gradients.append([weight.grad for weight in module.model.parameters()])
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_moves_and_the_average_follows(generator_run, batch, kind):
    module = make(generator_run(kind, **{"train.accumulate": 1, "optimizer.warmup": 0}))
    start = snapshot(module.ema)
    module.training_step(batch, 0)
    first = snapshot(module.model)
    for name, average in module.ema.named_parameters():  # the first step's decay is 1 / 10
        torch.testing.assert_close(average.data, start[name] + 0.9 * (first[name] - start[name]))
    module.training_step(batch, 0)  # the outputs begin at zero, so that the first step moves them alone
    module.training_step(batch, 0)
    still = [name for name, weight in module.model.named_parameters() if torch.equal(weight, start[name])]
    assert still == []


def test_matrices_decay_and_gains_do_not(generator_run):
    model = Generator(generator_run("rand_ar").model)
    decayed, others = decay_groups(model)
    names = {id(weight): name for name, weight in model.named_parameters()}
    assert all(weight.dim() >= 2 for weight in decayed["params"])
    spared = {names[id(weight)] for weight in others["params"]}
    assert "question" in spared and "transformer.blocks.0.norm1.weight" in spared
    assert len(decayed["params"]) + len(others["params"]) == len(names)
    made = make(generator_run("rand_ar")).configure_optimizers().param_groups
    assert [group["weight_decay"] for group in made] == [0.05, 0.0]


def test_passes_and_ranks_draw_differently():
    drawn = [seed for number in range(50) for rank in range(4) for seed in pass_seeds(3, number, rank)]
    assert len(set(drawn)) == len(drawn)
    assert pass_seeds(3, 7, 1) == pass_seeds(3, 7, 1) != pass_seeds(4, 7, 1)
    torch.Generator().manual_seed(max(drawn))


def test_what_is_drawn_depends_on_the_pass_alone(generator_run, batch):
    module = make(generator_run("rand_ar", **{"model.dropout": 0.5}))

    def loss():
        module.run_pass(batch)
        return float(module.progress["loss"])

    module.model.head.outputs[0].weight.data.normal_()  # zero outputs would not see what is dropped
    first = loss()
    torch.manual_seed(99)
    assert loss() == first
    module._passes = 1
    assert loss() != first


def test_label_smoothing_reaches_the_loss(generator_run, batch):
    module = make(generator_run("raster", **CALM, **{"loss.label_smoothing": 0.5}))
    module.model.head.outputs[0].weight.data.normal_()
    module.run_pass(batch)
    smoothed, plain = (module.model.loss(batch, None, share)["loss"].item() for share in (0.5, 0.0))
    assert float(module.progress["loss"]) == pytest.approx(smoothed)
    assert smoothed != pytest.approx(plain, rel=1e-3)
    with pytest.raises(ConfigError, match="label_smoothing is 1"):
        GeneratorLossConfig(label_smoothing=1.0)


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_non_finite_stops_before_the_weights(generator_run, batch, where):
    module = make(generator_run("merge_ar", **{"train.accumulate": 1}))
    before = snapshot(module.model)
    if where == "loss":
        nothing = torch.tensor(float("nan"), requires_grad=True)
        module._loss = lambda *_: {"loss": nothing * 1, "accuracy": torch.tensor(0.0)}
    else:
        module.model.head.outputs[0].weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(NonFiniteError, match=r"not finite at step 0 \(loss .*those of the step before$"):
        module.training_step(batch, 0)
    for name, value in module.model.state_dict().items():
        assert torch.equal(value, before[name])


def test_rand_ar_remembers_where_tokens_begin(token_home):
    shards = TokenShards(token_home / "tokens")
    sets, classes = layouts(all_rows(shards), seed=0)
    whole = shards.batch(torch.arange(len(shards)).numpy())
    begins = torch.zeros(len(shards), 64, dtype=torch.bool)
    for row, source in enumerate(whole.source.tolist()):
        for token in set(source):
            begins[row, source.index(token)] = True
    assert begins.sum(1).tolist() == whole.keep.tolist()
    expected = {(label, *row) for label, row in zip(whole.labels.tolist(), begins.tolist(), strict=True)}
    assert {(label, *row) for label, row in zip(classes.tolist(), sets.tolist(), strict=True)} == expected
    again = layouts(all_rows(shards), seed=0)[0]
    assert torch.equal(again, sets) and not torch.equal(layouts(all_rows(shards), seed=1)[0], sets)


def test_no_class_has_more_layouts_than_it_may(token_home, monkeypatch):
    assert LAYOUTS == 64
    monkeypatch.setattr("mergevq.training.generator.run.LAYOUTS", 5)
    monkeypatch.setattr("mergevq.training.generator.run._CHUNK", 8)
    _, classes = layouts(all_rows(TokenShards(token_home / "tokens")), seed=0)
    assert classes.bincount().tolist() == [5, 5]


@pytest.mark.parametrize("kind", KINDS)
def test_run_folder_is_a_generator(generator_run, cpu, tmp_path, kind):
    config = generator_run(kind, **{"train.validate_every": 3})
    out = train_generator(config, tmp_path / "run", cpu)
    assert from_dict(GeneratorRun, yaml.safe_load((out / "run.yaml").read_text())) == config
    with (out / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows if row["val_loss"]] == ["3", "6"]
    assert {"loss", "accuracy", "gradient_norm", "images_per_second", "val_accuracy"} < rows[0].keys()
    for step in (3, 6):
        with Image.open(out / "pictures" / f"step-{step:07d}.png") as picture:
            assert picture.height > 2 * 160  # a row for each of the two classes
    state = torch.load(out / LAST, weights_only=True)["state_dict"]
    assert {name.split(".")[0] for name in state} == {"model", "ema"}
    generator = mergevq.load(out)
    for name, value in generator.model.state_dict().items():
        assert torch.equal(value, state[f"ema.{name}"])
    assert generator.generate([1], seed=3).shape == (1, 3, 32, 32)


def test_training_lowers_the_loss(generator_run, cpu, tmp_path):
    longer = {"train.steps": 60, "train.log_every": 30, "optimizer.ema": 0.9, "train.samples": 0, **CALM}
    out = train_generator(generator_run("merge_ar", **longer), tmp_path / "run", cpu)
    with (out / "log.csv").open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file) if row["loss"]]
    assert losses[-1] < 0.75 * 5.545  # two sub-codes of four bits, uniformly
    assert not (out / "pictures").exists()


@pytest.mark.parametrize("precision", ["bf16", "32"])
def test_precision_is_what_was_asked(generator_run, cpu, tmp_path, precision, monkeypatch):
    seen = []
    loss = Generator.loss

    def spy(self, *arguments):
        if self.training:
            seen.append(torch.is_autocast_enabled("cpu"))
        return loss(self, *arguments)

    monkeypatch.setattr(Generator, "loss", spy)
    quick = {"train.precision": precision, "train.steps": 1, "train.samples": 0}
    train_generator(generator_run("rand_ar", **quick), tmp_path / "run", cpu)
    assert seen == [precision == "bf16"] * 2


def test_compiled_training_runs(generator_run, cpu, tmp_path, monkeypatch):
    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function: compiled(function, backend="eager"))
    quick = {"train.compile": True, "train.steps": 1, "train.samples": 0}
    out = train_generator(generator_run("rand_ar", **quick), tmp_path / "run", cpu)
    torch._dynamo.reset()
    assert mergevq.load(out).kind == "rand_ar"


def test_tokens_of_another_tokenizer_are_refused(generator_run, cpu, tmp_path):
    other = mergevq.create("tiny-32", **{"quantizer.bits": 8})
    mergevq.save(other, tmp_path / "other")
    config = generator_run("merge_ar", **{"data.tokenizer": str(tmp_path / "other")})
    with pytest.raises(CheckpointError, match="tokens were made by another tokenizer"):
        train_generator(config, tmp_path / "run", cpu)
    assert not (tmp_path / "run").exists()


def test_missing_tokens_are_one_sentence(generator_run, cpu, tmp_path, token_home):
    spoilt = shutil.copytree(token_home / "tokens", tmp_path / "tokens")
    shutil.rmtree(spoilt / "shard-00001")
    with pytest.raises(DataError, match="1 of 3 shards are missing"):
        train_generator(generator_run("merge_ar", **{"data.path": str(spoilt)}), tmp_path / "run", cpu)
    with pytest.raises(UsageError, match="holds no tokens"):
        train_generator(generator_run("merge_ar", **{"data.path": "nowhere"}), tmp_path / "run", cpu)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model.classes": 3}, r"model\.classes is 3 and the tokens have 2"),
        ({"model.counts": [24]}, r"model\.counts is \(24,\) and the tokens have \(24, 40\)"),
        ({"model.grid": 9}, r"model\.grid is 9 and the tokens have 8"),
        ({"model.split": [9, 9]}, r"makes 18 bits and the tokens have 8"),
    ],
)
def test_generator_for_other_tokens_is_refused(generator_run, cpu, tmp_path, changes, said):
    with pytest.raises(ConfigError, match=said):
        train_generator(generator_run("merge_ar", **changes), tmp_path / "run", cpu)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", ["B", "L", "XL", "XXL"])
def test_paper_values_are_the_defaults(size, kind):
    run = generator_recipe(generator_config(size, kind, preset("G+R")))
    optimizer = run.optimizer
    assert optimizer.rate * 1024 / 256 == pytest.approx(4e-4)
    assert optimizer.betas == ((0.9, 0.95) if kind == "rand_ar" else (0.9, 0.99))
    assert (optimizer.weight_decay, optimizer.clip, optimizer.schedule) == (0.05, 1.0, "step")
    assert (optimizer.ema, run.train.epochs, run.train.steps) == (0.9999, 300.0, None)
    assert (run.model.dropout, run.model.class_dropout, run.loss.label_smoothing) == (0.1, 0.1, 0.0)


@pytest.mark.parametrize("size", ["nano", "tiny", "small"])
def test_small_sizes_learn_faster(size):
    run = generator_recipe(generator_config(size, "raster", preset("tiny-32")))
    assert (run.optimizer.rate, run.optimizer.schedule, run.optimizer.ema) == (2e-3, "cosine", 0.999)
    assert run.model.dropout <= 0.1 and run.train.steps


def test_validation_on_other_tokens(generator_run, cpu, tmp_path, token_home):
    config = generator_run("raster", **{"data.validation": str(token_home / "tokens"), "train.steps": 1})
    out = train_generator(config, tmp_path / "run", cpu)
    assert (out / "log.csv").read_text().count("\n") > 1

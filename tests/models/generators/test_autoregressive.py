"""The generator's parts against slow definitions: rotation, sub-codes, losses, orders."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mergevq.generator_config import GeneratorConfig, GeneratorKind
from mergevq.models.generators.autoregressive import Generator, first_positions
from mergevq.models.generators.subcodes import join_code, split_code
from mergevq.models.generators.transformer import grid_rotation
from mergevq.tokens import TokenBatch


def make(kind: GeneratorKind, **changes: object) -> Generator:
    torch.manual_seed(0)
    settings = {
        "name": "test", "kind": kind, "width": 64, "depth": 2, "split": (3, 2), "head_depth": 1,
        "classes": 4, "grid": 3, "counts": (2, 4), "window": 2, "dropout": 0.0,
    }  # fmt: skip
    return Generator(GeneratorConfig(**settings | changes))  # type: ignore[arg-type]  # a dict of many types


BATCH = TokenBatch(
    labels=torch.tensor([0, 3]),
    indices=torch.tensor([[7, 30, 0, 0], [1, 2, 3, 1]]),
    source=torch.tensor([[0, 0, 1, 0, 0, 1, 0, 0, 1], [0, 1, 2, 2, 3, 0, 1, 2, 3]]),
    keep=torch.tensor([2, 4]),
)


@given(st.lists(st.integers(1, 7), min_size=1, max_size=4), st.data())
def test_codes_split_and_join(split: list[int], data: st.DataObject) -> None:
    codes = torch.tensor(data.draw(st.lists(st.integers(0, 2 ** sum(split) - 1), min_size=1, max_size=5)))
    parts = split_code(codes, split)
    assert all(int(part.max()) < 2**bits for part, bits in zip(parts, split, strict=True))
    assert torch.equal(join_code(parts, split), codes)


def test_rotation_is_that_of_row_and_column() -> None:
    """Row 1, column 2 of a grid of 4 turns by 1, 0.1, ... and then by 2, 0.2, ... (8 pairs a half)."""
    rotation = grid_rotation(torch.tensor([[6, 16]]), 4, 16, "identity")
    frequencies = [10_000 ** (-pair / 4) for pair in range(4)]
    angles = [*frequencies, *(2 * frequency for frequency in frequencies)]
    expected = torch.tensor([math.cos(angle) for angle in angles])
    torch.testing.assert_close(rotation.cosine[0, 0], expected)
    assert rotation.cosine[0, 1].eq(1).all() and rotation.sine[0, 1].eq(0).all()
    zeroed = grid_rotation(torch.tensor([[6, 16]]), 4, 16, "zero")
    assert zeroed.cosine[0, 1].eq(0).all() and torch.equal(zeroed.cosine[0, 0], rotation.cosine[0, 0])


def test_attention_depends_on_the_distance_alone() -> None:
    """Moving query and key by the same rows and columns leaves their product alone."""
    from mergevq.backends import rope

    query, key = torch.randn(2, 1, 1, 1, 64, generator=torch.Generator().manual_seed(1))

    def product(first: int, second: int) -> torch.Tensor:
        turned = [
            rope(x, *grid_rotation(torch.tensor([[at]]), 8, 64, "identity"))
            for x, at in ((query, first), (key, second))
        ]
        return (turned[0] * turned[1]).sum()

    torch.testing.assert_close(product(9, 20), product(9 + 3 * 8 + 2, 20 + 3 * 8 + 2), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["raster", "merge_ar", "rand_ar"])
def test_a_new_generator_knows_nothing(kind: GeneratorKind) -> None:
    """Heads start at zero: the loss is that of the uniform distribution."""
    loss = make(kind).eval().loss(BATCH)["loss"]
    assert loss.item() == pytest.approx(5 * math.log(2), rel=1e-5)


@pytest.mark.parametrize("kind", ["raster", "merge_ar", "rand_ar"])
def test_no_prediction_sees_its_own_token_or_a_later_one(kind: GeneratorKind) -> None:
    model = make(kind).eval()
    sequence = model.sequence(BATCH)
    contexts = model.contexts(BATCH.labels, BATCH.keep, sequence)
    for token in range(sequence.indices.shape[1]):
        changed = sequence.indices.clone()
        changed[:, token] ^= 1
        again = model.contexts(BATCH.labels, BATCH.keep, sequence._replace(indices=changed))
        torch.testing.assert_close(again[:, : token + 1], contexts[:, : token + 1])
        if token + 1 < contexts.shape[1]:
            assert not torch.allclose(again[:, token + 1], contexts[:, token + 1], atol=1e-6)


def test_the_loss_is_the_mean_over_the_tokens_that_exist() -> None:
    model = make("rand_ar").eval()
    for output in model.head.outputs:
        torch.nn.init.normal_(output.weight, std=0.5)
    sequence = model.sequence(BATCH)
    scores = model(BATCH.labels, BATCH.keep, sequence)
    total, number = 0.0, 0
    for row, keep in enumerate(BATCH.keep.tolist()):
        for token in range(keep):
            for part, code in enumerate(split_code(sequence.indices[row, token], (3, 2))):
                total -= float(scores[part][row, token].log_softmax(dim=0)[code].detach())
            number += 1
    assert model.loss(BATCH)["loss"].item() == pytest.approx(total / number, rel=1e-5)


def test_first_positions() -> None:
    assert first_positions(BATCH.source, 4).tolist() == [[0, 2, 0, 0], [0, 1, 2, 4]]


def test_orders_are_permutations_of_what_a_row_has() -> None:
    model = make("rand_ar")
    rng = torch.Generator().manual_seed(3)
    orders = {tuple(model.sequence(BATCH, rng).positions[1].tolist()) for _ in range(30)}
    assert len(orders) > 5 and all(sorted(order) == [0, 1, 2, 4] for order in orders)
    sequence = model.sequence(BATCH, rng)
    assert sequence.valid.tolist() == [[True, True, False, False], [True] * 4]
    assert sorted(sequence.indices[0, :2].tolist()) == [7, 30]


def test_raster_and_merge_ar_speak_every_position() -> None:
    sequence = make("merge_ar").sequence(BATCH)
    assert sequence.indices[0].tolist() == [7, 7, 30, 7, 7, 30, 7, 7, 30]


def test_classes_are_withheld_in_training_alone() -> None:
    model = make("raster", class_dropout=0.99)
    assert set(model._drop_classes(torch.zeros(500, dtype=torch.int64)).tolist()) == {0, 4}
    assert model.eval()._drop_classes(torch.zeros(500, dtype=torch.int64)).unique().tolist() == [0]


def test_predictions_follow_the_distribution() -> None:
    """Heads of zero make every code equally likely."""
    model = make("rand_ar").eval()
    with torch.no_grad():
        sampled = torch.stack(
            [model.predict(BATCH, torch.Generator().manual_seed(seed)) for seed in range(400)]
        )
    assert sampled.shape == (400, 2, 4)
    share = torch.bincount(sampled[:, 1].flatten(), minlength=32) / (400 * 4)
    assert (share - 1 / 32).abs().max() < 0.03


def test_remembered_layouts_travel_with_the_weights() -> None:
    model, other = make("rand_ar"), make("rand_ar")
    sets = torch.eye(9, dtype=torch.bool)[:5]
    model.remember_layouts(sets, torch.arange(5))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.layout_positions, sets) and other.layout_labels.tolist() == [0, 1, 2, 3, 4]

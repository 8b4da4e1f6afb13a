"""Step by step with a cache equals all at once under the mask: the three kinds."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mergevq.backends.cpu import few_rows
from mergevq.generation import sequential
from mergevq.generation.cache import WindowedSlots
from mergevq.generation.parallel import generate_at, parallel_schedule
from mergevq.generation.request import Request
from mergevq.generation.sampling import Sampling
from mergevq.generation.sequential import _Steps, generate_raster
from mergevq.generation.settings import Questions
from mergevq.generator_config import GeneratorConfig, GeneratorKind
from mergevq.models.generators.autoregressive import Generator, Sequence
from mergevq.models.generators.layouts import first_occurrences
from mergevq.models.generators.subcodes import split_code

GREEDY = Sampling(temperature=0)


def make(kind: GeneratorKind, window: int = 3, split: tuple[int, ...] = (2, 1), grid: int = 4) -> Generator:
    """A generator small enough for hypothesis, whose logits are far from flat."""
    torch.manual_seed(0)
    config = GeneratorConfig(
        name="test", kind=kind, width=64, depth=2, split=split, head_depth=1, classes=5, grid=grid,
        counts=(4, 9, grid**2), window=window,
    )  # fmt: skip
    model = Generator(config).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def raster_order(indices: torch.Tensor) -> Sequence:
    positions = torch.arange(indices.shape[1]).expand_as(indices)
    return Sequence(indices, positions, torch.ones_like(indices, dtype=torch.bool))


@settings(max_examples=25, deadline=None)
@given(
    st.data(), st.sampled_from(["raster", "merge_ar"]), st.integers(1, 20), st.integers(1, 4), st.booleans()
)
def test_the_compressed_cache_gives_the_logits_of_the_mask(
    data: st.DataObject, kind: GeneratorKind, window: int, batch: int, static: bool
) -> None:
    """Rows repeat themselves differently, so each keeps another number of slots."""
    model = make(kind, window)
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 10**6)))
    distinct = torch.randint(1, 9, (batch, 1), generator=generator)
    indices = torch.randint(10**6, (batch, 16), generator=generator) % distinct
    labels = torch.randint(6, (batch,), generator=generator)
    keep = torch.randint(4, 17, (batch,), generator=generator)
    expected = model.contexts(labels, keep, raster_order(indices))
    steps = _Steps(model, batch, 1, static)  # told of one distinct token, so that the cache must grow
    found = [steps.begin(model.prefix(labels, keep))]
    first = first_occurrences(indices)
    for number in range(15):
        found.append(steps.advance(number, model.codes(indices[:, number]), ~first[:, number]))
    torch.testing.assert_close(torch.stack(found, dim=1), expected, rtol=1e-4, atol=1e-4)
    if kind == "merge_ar" and not static:
        kept = first[:, :15].sum(dim=1)
        assert steps.cache.visible <= 2 + int(kept.max()) + window
    assert steps.cache.visible <= steps.cache.capacity <= 2 + 15


def test_slots_that_no_token_has_taken_do_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of one and of many codes, in memory that was full of NaN."""
    model = make("merge_ar", window=2)
    nan = float("nan")
    monkeypatch.setattr(torch, "empty", lambda shape, **kind: torch.full(shape, nan, **kind))
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda like, *shape: like.new_full(shape, nan))
    indices = torch.stack([torch.zeros(16, dtype=torch.int64), torch.arange(16) % 8])
    steps = _Steps(model, 2, 1, False)
    steps.begin(model.prefix(torch.tensor([0, 1]), torch.tensor([4, 9])))
    first = first_occurrences(indices)
    for number in range(15):
        hidden = steps.advance(number, model.codes(indices[:, number]), ~first[:, number])
        assert hidden.isfinite().all()
        assert all(layer.buffer.isfinite().all() for layer in steps.cache.layers)


@pytest.mark.parametrize("kind", ["raster", "merge_ar"])
def test_static_shapes_are_few_and_change_nothing(
    kind: GeneratorKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step is one graph without a break, traced once for each multiple of the bucket."""
    monkeypatch.setattr(sequential, "_BUCKET", 6)
    model = make(kind, window=2)
    traced = []

    def backend(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> Callable[..., Any]:
        traced.append(graph)
        return graph.forward

    request = Request(
        labels=torch.tensor([0, 3]), keep=torch.tensor([9, 9]), seeds=[0, 1], sampling=GREEDY, guidance=2.0
    )
    expected, _ = generate_raster(model, request)
    torch.compiler.reset()
    model.transformer.compile(backend=backend, fullgraph=True, dynamic=False)
    found, _ = generate_raster(model, replace(request, static_shapes=True))
    assert torch.equal(found, expected)
    assert 2 <= len(traced) <= 4  # the prefix, and multiples of 6 up to 17 slots


@pytest.mark.parametrize("kind", ["raster", "merge_ar", "rand_ar"])
def test_weights_in_another_order_change_nothing_and_do_not_stay(
    kind: GeneratorKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the CPU passes of a few rows have weights of their own; what they hold is let go with the codes."""
    model = make(kind)
    labels = torch.tensor([0, 3, 1])
    request = Request(labels=labels, keep=torch.full((3,), 9), seeds=[0, 1, 2], sampling=GREEDY)
    positions = torch.arange(0, 9).expand(3, -1)
    reordered, made = few_rows.reordered, []

    def noted(module: torch.nn.Module, rows: int) -> torch.nn.Module:
        made.append(weakref.ref(twin := reordered(module, rows)))
        return twin

    def codes() -> torch.Tensor:
        if kind == "rand_ar":
            return generate_at(model, request, positions, 3)[0]
        return generate_raster(model, request)[0]

    monkeypatch.setattr(few_rows, "reordered", noted)
    found = codes()
    assert made and all(twin() is None for twin in made)
    monkeypatch.setattr(few_rows, "pays", lambda *_: False)
    assert torch.equal(found, codes())


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30), st.integers(1, 8))
def test_the_slots_hold_first_occurrences_and_the_window(codes: list[int], window: int) -> None:
    """Against a dictionary that forgets as the definition says."""
    slots = WindowedSlots(1, 2, window, torch.device("cpu"))
    held: dict[int, int] = {}
    for number, code in enumerate(codes):
        duplicate = torch.tensor([code in codes[:number]])
        held[int(slots.place(number, duplicate))] = number
        seen = {
            place
            for place in range(number + 1)
            if codes[place] not in codes[:place] or number - place < window
        }
        assert seen == set(held.values())
        assert sorted(held) == list(range(2, int(slots.used)))


@pytest.mark.parametrize("kind", ["raster", "merge_ar"])
@pytest.mark.parametrize("guidance", [1.0, 2.5])
@pytest.mark.parametrize("split", [(3,), (2, 1), (1, 1, 1)])
def test_greedy_generation_is_the_arg_max_of_teacher_forcing(
    kind: GeneratorKind, guidance: float, split: tuple[int, ...]
) -> None:
    model = make(kind, split=split)
    labels, keep = torch.tensor([0, 3]), torch.tensor([4, 9])
    request = Request(labels=labels, keep=keep, seeds=[0, 1], sampling=GREEDY, guidance=guidance)
    indices, _ = generate_raster(model, request)
    given = model(labels, keep, raster_order(indices))
    free = model(torch.full_like(labels, 5), keep, raster_order(indices))
    for c, u, chosen in zip(given, free, split_code(indices, split), strict=True):
        assert_likeliest(u + guidance * (c - u), chosen)


def assert_likeliest(scores: torch.Tensor, chosen: torch.Tensor) -> None:
    """Nothing scores higher than what was chosen, but for rounding, which decides between equals."""
    regret = scores.amax(dim=-1) - scores.gather(-1, chosen.unsqueeze(-1)).squeeze(-1)
    assert regret.max() < 1e-4


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_one_token_a_pass_is_sequential(guidance: float) -> None:
    """Greedy decoding in K passes is the arg max of teacher forcing in the same order."""
    model = make("rand_ar")
    positions = torch.tensor([[0, 2, 3, 7, 9, 12], [0, 1, 5, 6, 14, 15]])
    labels, keep = torch.tensor([1, 4]), torch.tensor([6, 6])
    request = Request(
        labels=labels,
        keep=keep,
        seeds=[3, 4],
        sampling=GREEDY,
        guidance=guidance,
        guidance_schedule="constant",
    )
    indices, use = generate_at(model, request, positions, 6)
    assert use.passes == 6
    order = _order_of(request, 6, 2)
    ordered = Sequence(
        indices.gather(1, order), positions.gather(1, order), torch.ones(2, 6, dtype=torch.bool)
    )
    given = model(labels, keep, ordered)
    free = model(torch.full_like(labels, 5), keep, ordered)
    for c, u, chosen in zip(given, free, split_code(ordered.indices, (2, 1)), strict=True):
        assert_likeliest(u + guidance * (c - u), chosen)


@pytest.mark.parametrize("steps", [1, 2, 4, 6])
@pytest.mark.parametrize("questions", ["independent", "causal"])
def test_several_tokens_a_pass_see_all_earlier_ones_and_the_questions_they_may(
    questions: Questions, steps: int
) -> None:
    """Against one pass after another without a cache, under a mask of everything that has been and is asked."""
    model = make("rand_ar")
    positions = torch.tensor([[0, 2, 3, 7, 9, 12]])
    request = Request(
        labels=torch.tensor([2]), keep=torch.tensor([6]), seeds=[9], sampling=GREEDY, questions=questions
    )
    indices, _ = generate_at(model, request, positions, steps)
    order = _order_of(request, 6, 2)
    places, made = positions.gather(1, order), torch.zeros(1, 6, dtype=torch.int64)
    done = 0
    for count in parallel_schedule(6, steps):
        hidden = _asked(model, request, places[:, : done + count], made[:, :done], questions)
        made[:, done : done + count] = model.head.sample(
            hidden, model.codes, lambda logits, part: logits.argmax(dim=-1)
        )
        done += count
    assert torch.equal(made, indices.gather(1, order))


def _asked(
    model: Generator, request: Request, places: torch.Tensor, made: torch.Tensor, questions: Questions
) -> torch.Tensor:
    """(n, D), the outputs of the n questions that have no token yet, from the whole sequence anew."""
    done, asked = made.shape[1], places.shape[1] - made.shape[1]
    x = [model.prefix(request.labels, request.keep)]
    for token in range(done):
        x += [model.questions(places[:, token : token + 1]), model.codes(made[:, token : token + 1])]
    x.append(model.questions(places[:, done:]))
    at = torch.cat([torch.tensor([[16]]), places[:, :done].repeat_interleave(2, 1), places[:, done:]], dim=1)
    known = 1 + 2 * done
    mask = torch.zeros(1, known + asked, known + asked, dtype=torch.bool)
    for query in range(known + asked):
        for key in range(query + 1):
            both_are_asked = query >= known and key >= known
            mask[0, query, key] = query == key or not both_are_asked or questions == "causal"
    return model.transformer(torch.cat(x, dim=1), model.rotation(at), mask)[0, known:]


def test_questions_that_see_each_other_answer_otherwise_unless_each_has_its_own_pass() -> None:
    model = make("rand_ar")
    positions = torch.arange(9).expand(4, -1)
    request = Request(labels=torch.arange(4), keep=torch.full((4,), 9), seeds=[0, 1, 2, 3], sampling=GREEDY)
    causal = replace(request, questions="causal")
    found = {
        steps: [generate_at(model, each, positions, steps)[0] for each in (request, causal)]
        for steps in (2, 9)
    }
    assert torch.equal(*found[9]) and not torch.equal(*found[2])


@given(st.integers(1, 300), st.data())
def test_the_parallel_schedule_decodes_everything(tokens: int, data: st.DataObject) -> None:
    steps = data.draw(st.integers(1, tokens))
    schedule = parallel_schedule(tokens, steps)
    assert len(schedule) == steps and sum(schedule) == tokens and min(schedule) >= 1


def test_the_parallel_schedule_is_that_of_rand_ar() -> None:
    schedule = parallel_schedule(256, 88)
    assert schedule[:12] == [1] * 12 and 4 <= schedule[-1] <= 5
    assert parallel_schedule(256, 8) == [1, 19, 24, 31, 39, 45, 48, 49]
    assert parallel_schedule(6, 1) == [6] and parallel_schedule(6, 2) == [1, 5]
    assert parallel_schedule(6, 6) == [1] * 6


def _order_of(request: Request, keep: int, parts: int) -> torch.Tensor:
    from mergevq.generation.sampling import row_noise

    return row_noise(request.seeds, keep, parts + 1)[:, :, parts].argsort(dim=1, stable=True)

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from mergevq.errors import UsageError
from mergevq.losses.alignment import Alignment, Centring, alignment_loss, distillation_loss
from mergevq.models.teacher import EmaTeacher


def logits(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def softmax(row: list[float], temperature: float) -> list[float]:
    exponents = [math.exp(value / temperature) for value in row]
    return [value / sum(exponents) for value in exponents]


def test_cross_entropy_by_hand():
    student, teacher, centre = logits(0, 3, 4) * 0.2, logits(1, 3, 4) * 0.2, logits(2, 4) * 0.1
    expected = 0.0
    for mine, target in zip(student.double().tolist(), (teacher - centre).double().tolist(), strict=True):
        pairs = zip(softmax(target, 0.04), softmax(mine, 0.1), strict=True)
        expected -= sum(p * math.log(q) for p, q in pairs) / 3
    assert alignment_loss(student, teacher, centre=centre).item() == pytest.approx(expected, rel=1e-5)


def test_distillation_by_hand_and_zero_at_agreement():
    student, teacher = logits(0, 3, 4), logits(1, 3, 4)
    expected = 0.0
    for mine, target in zip(student.double().tolist(), teacher.double().tolist(), strict=True):
        pairs = zip(softmax(target, 4.0), softmax(mine, 4.0), strict=True)
        expected += 16 * sum(p * math.log(p / q) for p, q in pairs) / 3
    assert distillation_loss(student, teacher).item() == pytest.approx(expected, rel=1e-4)
    assert distillation_loss(teacher + 3.0, teacher).item() == pytest.approx(0.0, abs=1e-5)


def test_distillation_has_the_gradient_of_the_cross_entropy():
    teacher = logits(1, 3, 4)
    first, second = logits(0, 3, 4).requires_grad_(), logits(0, 3, 4).requires_grad_()
    distillation_loss(first, teacher).backward()
    (16 * alignment_loss(second, teacher, 4.0, 4.0)).backward()
    torch.testing.assert_close(first.grad, second.grad)


@pytest.mark.parametrize("kind", ["distill", "self"])
def test_gradient_reaches_the_student_only(kind):
    student, teacher = logits(0, 3, 4).requires_grad_(), logits(1, 3, 4).requires_grad_()
    alignment = Alignment(kind, 4)
    alignment(student, teacher).backward()
    alignment.update(teacher)
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None


def test_the_centre_follows_the_batch_mean():
    centring, expected = Centring(4, momentum=0.8), torch.zeros(4, dtype=torch.float64)
    for seed in range(10):
        batch = logits(seed, 6, 4) + 2
        centring.update(batch)
        expected = 0.8 * expected + 0.2 * batch.double().mean(dim=0)
    torch.testing.assert_close(centring.centre.double(), expected)
    assert list(centring.state_dict()) == ["centre"]


def test_only_the_self_teacher_has_state():
    assert list(Alignment("self", 4).state_dict()) == ["centring.centre"]
    assert not Alignment("distill", 4).state_dict()


def prototypes_in_use(centred: bool) -> int:
    """How many of 8 prototypes a self-taught toy still uses on 64 points; it starts biased to one."""
    torch.manual_seed(0)
    student = nn.Linear(8, 8)
    with torch.no_grad():
        student.weight.mul_(0.5)
        student.bias[0] += 1.0
    teacher, alignment = EmaTeacher(student, decay=0.9), Alignment("self", 8)
    optimiser = torch.optim.SGD(student.parameters(), lr=0.02)
    points = torch.randn(64, 8)
    for _ in range(150):
        seen = teacher(points + 0.1 * torch.randn_like(points))
        optimiser.zero_grad()
        alignment(student(points + 0.1 * torch.randn_like(points)), seen).backward()
        optimiser.step()
        teacher.update(student)
        if centred:
            alignment.update(seen)
    return (teacher(points) - alignment.centring.centre).argmax(dim=-1).unique().numel()


def test_centring_prevents_collapse():
    assert prototypes_in_use(centred=False) == 1
    assert prototypes_in_use(centred=True) >= 5


def test_bad_input():
    with pytest.raises(UsageError, match="teacher's width"):
        alignment_loss(torch.zeros(2, 4), torch.zeros(2, 5))
    with pytest.raises(UsageError, match="positive"):
        alignment_loss(torch.zeros(2, 4), torch.zeros(2, 4), teacher_temperature=0.0)
    with pytest.raises(UsageError, match="did you mean 'distill'"):
        Alignment("distil", 4)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="momentum is 1"):
        Centring(4, momentum=1.0)

"""Global alignment: the student's and the teacher's view of an image in, one scalar out.

Two kinds, by the teacher:
- "distill": a frozen timm network, whose raw feature is softened at temperature 4 (as in the released
  code). The target is fixed, so it cannot collapse and nothing is centred.
- "self": an EMA copy of the encoder with a head of prototypes, as in DINO. A sharp teacher (temperature
  0.04) alone would collapse onto one prototype, a centred one alone onto the uniform distribution; the
  two together do neither.

Gradient flows to the student only.
"""

from __future__ import annotations

import typing
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from mergevq.errors import UsageError, unknown_name
from mergevq.losses.ranks import mean_over_ranks

AlignmentKind = Literal["distill", "self"]


def alignment_loss(
    student_logits: torch.Tensor,
    teacher_logits: torch.Tensor,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.04,
    centre: torch.Tensor | None = None,
) -> torch.Tensor:
    """Cross-entropy from the teacher's softened distribution to the student's, averaged over the batch.

    Args:
        student_logits: (B, P).
        teacher_logits: (B, P).
        student_temperature: divides the student's logits; positive.
        teacher_temperature: divides the teacher's logits; positive, smaller is sharper.
        centre: (P,), subtracted from the teacher's logits.

    Returns:
        A float32 scalar, nats.

    Raises:
        UsageError: the shapes differ, or a temperature is not positive.

    Source: MergeVQ (arXiv:2504.00999), Eq. 10; DINO (arXiv:2104.14294), Eq. 2.
    """
    _check(student_logits, teacher_logits, student_temperature, teacher_temperature)
    targets = teacher_logits.detach().float()
    if centre is not None:
        targets = targets - centre
    targets = F.softmax(targets / teacher_temperature, dim=-1)
    log_student = F.log_softmax(student_logits.float() / student_temperature, dim=-1)
    return -(targets * log_student).sum(dim=-1).mean()


def distillation_loss(
    student_features: torch.Tensor, teacher_features: torch.Tensor, temperature: float = 4.0
) -> torch.Tensor:
    """Kullback-Leibler divergence of softened features times the squared temperature, over the batch.

    Args:
        student_features: (B, F), projected to the teacher's width.
        teacher_features: (B, F), any real numbers: the feature dimensions act as the categories.
        temperature: divides both; positive.

    Returns:
        A float32 scalar, nats times temperature^2, zero where the distributions agree.

    Raises:
        UsageError: the shapes differ, or the temperature is not positive.

    Source: MergeVQ (arXiv:2504.00999), Eq. 10; Hinton et al. (arXiv:1503.02531), Sec. 2.
    Differs: Eq. 10's cross-entropy less the teacher's entropy, a constant for the student.
    """
    _check(student_features, teacher_features, temperature, temperature)
    log_teacher = F.log_softmax(teacher_features.detach().float() / temperature, dim=-1)
    log_student = F.log_softmax(student_features.float() / temperature, dim=-1)
    divergence = F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
    return temperature**2 * divergence


class Centring(nn.Module):
    """The running mean of the teacher's logits, which is subtracted before they are sharpened.

    Source: DINO (arXiv:2104.14294), Eq. 4.
    """

    centre: torch.Tensor

    def __init__(self, dim: int, momentum: float = 0.9) -> None:
        """Start the centre at zero.

        Args:
            dim: P, the number of prototypes.
            momentum: share of the old centre kept by an update, in [0, 1).

        Raises:
            UsageError: the momentum is outside [0, 1).
        """
        super().__init__()
        if not 0.0 <= momentum < 1.0:
            raise UsageError(f"the centre's momentum is {momentum}; it must be in [0, 1)")
        self.momentum = momentum
        self.register_buffer("centre", torch.zeros(dim, dtype=torch.float32))

    @torch.no_grad()
    def update(self, teacher_logits: torch.Tensor) -> None:
        """Move the centre towards the mean of the global batch.

        Args:
            teacher_logits: (B, P).
        """
        mean = mean_over_ranks(teacher_logits.detach().float().mean(dim=0))  # (P,)
        self.centre.lerp_(mean, 1.0 - self.momentum)


class Alignment(nn.Module):
    """The alignment loss of either kind behind one call, with the state that it needs."""

    def __init__(self, kind: AlignmentKind, dim: int) -> None:
        """Choose the kind.

        Args:
            kind: "distill" or "self".
            dim: the teacher's feature width ("distill") or the number of prototypes ("self").

        Raises:
            UsageError: the kind is unknown.
        """
        super().__init__()
        known = typing.get_args(AlignmentKind)
        if kind not in known:
            raise UsageError(unknown_name("alignment", kind, known))
        self.centring = Centring(dim) if kind == "self" else None

    def forward(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """The loss under the present centre.

        Args:
            student: (B, dim), the output of the student's head.
            teacher: (B, dim).

        Returns:
            A scalar.
        """
        if self.centring is None:
            return distillation_loss(student, teacher)
        return alignment_loss(student, teacher, centre=self.centring.centre)

    def update(self, teacher: torch.Tensor) -> None:
        """Once a step, after the loss: let the centre follow the teacher ("self"; nothing in "distill").

        Args:
            teacher: (B, dim).
        """
        if self.centring is not None:
            self.centring.update(teacher)


def _check(student: torch.Tensor, teacher: torch.Tensor, *temperatures: float) -> None:
    if student.shape != teacher.shape or student.dim() != 2:
        raise UsageError(
            f"alignment compares {tuple(student.shape)} of the student with {tuple(teacher.shape)} of the "
            "teacher; both must be (B, P), so give the student's head the teacher's width"
        )
    if min(temperatures) <= 0.0:
        raise UsageError(f"the temperatures are {temperatures}; they must be positive")

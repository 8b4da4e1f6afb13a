"""Global alignment during training: the student's head and either teacher behind one loss.

Legend: B batch, V pixels a side of the student's view, D width of the class token, P categories.
"""

from __future__ import annotations

import torch
from torch import nn

from mergevq.config import TokenizerConfig
from mergevq.errors import UsageError
from mergevq.losses.alignment import Alignment
from mergevq.models.frozen import Frozen
from mergevq.models.teacher import AlignmentHead, EmaTeacher, PrototypeHead, load_timm_teacher
from mergevq.models.tokenizer.encoder import Encoder
from mergevq.models.tokenizer.merge import scaled_keep
from mergevq.training.tokenizer.config import AlignmentConfig


class ClassToken(nn.Module):
    """Views to logits: the encoder's class token through the head, at the preset's share of tokens."""

    def __init__(self, encoder: Encoder, head: nn.Module, model: TokenizerConfig):
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.model = model

    def forward(self, views: torch.Tensor) -> torch.Tensor:
        """(B, 3, V, V) to (B, P)."""
        keep = scaled_keep(
            self.model.merge.keep, self.model.length, (views.shape[-1] // self.model.stride) ** 2
        )
        return self.head(self.encoder(views, keep).cls)


class GlobalAlignment(nn.Module):
    """The alignment loss with its head and teacher.

    A frozen timm teacher sees the reconstruction's crop, the student the stronger view; it is in no
    checkpoint. The self-teacher is an average of the encoder, so it is in the training checkpoint, but
    not in the exported tokenizer.

    Source: MergeVQ (arXiv:2504.00999), Eq. 10.
    """

    def __init__(self, config: AlignmentConfig, model: TokenizerConfig, encoder: Encoder):
        super().__init__()
        self.model = model
        width = model.encoder.width
        self.teacher: EmaTeacher | Frozen
        if config.kind == "distill":
            if config.weights is None and not config.download:
                raise UsageError(
                    f"the teacher {config.teacher} needs weights: --alignment.weights FILE, --alignment.download "
                    "true to fetch them from timm's hub, --alignment.kind self for a teacher without any, or "
                    "--alignment.kind none with --loss.alignment 0"
                )
            teacher = load_timm_teacher(
                config.teacher, weights=config.weights, pretrained=config.weights is None
            )
            self.head: nn.Module = AlignmentHead(width, teacher.num_features, config.head_layers)
            self.loss = Alignment("distill", teacher.num_features)
            self.teacher = Frozen(teacher)
        else:
            self.head = PrototypeHead(width, config.prototypes, config.head_layers)
            self.loss = Alignment("self", config.prototypes)
            self.teacher = EmaTeacher(self._student(encoder), config.decay)

    def forward(
        self, encoder: Encoder, views: torch.Tensor, images: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss, and the teacher's logits for `update`.

        Args:
            encoder: the student.
            views: (B, 3, V, V) in [-1, 1], the student's view.
            images: (B, 3, H, W) in [-1, 1], the teacher's.
        """
        targets = self.teacher(images)
        return self.loss(self._student(encoder)(views), targets), targets

    def update(self, encoder: Encoder, targets: torch.Tensor) -> None:
        """Moves the self-teacher and its centre, after an optimiser step; a frozen teacher stays."""
        self.loss.update(targets)
        if isinstance(self.teacher, EmaTeacher):
            self.teacher.update(self._student(encoder))

    def _student(self, encoder: Encoder) -> ClassToken:
        # Made for the moment: as a submodule it would put the encoder into the state dict twice.
        return ClassToken(encoder, self.head, self.model)

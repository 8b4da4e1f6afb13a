"""How good the averaged tokenizer is while it is trained, and a picture of it."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from mergevq.data.images.transforms import to_float, to_uint8
from mergevq.metrics.image import psnr
from mergevq.training.engine.monitor import CsvLog, Validation
from mergevq.training.tokenizer.module import TokenizerTraining
from mergevq.visual import reconstruction_figure, save_picture

logger = logging.getLogger(__name__)

_PICTURED = 4


class TokenizerValidation(Validation):
    """Measures the averaged tokenizer at the preset's K, and paints a picture of it."""

    def __init__(self, folder: Path, log: CsvLog, loader: DataLoader[Any], every: int):
        super().__init__(folder, log, every)
        self.loader = loader

    @torch.inference_mode()
    def measure(self, module: TokenizerTraining) -> dict[str, float]:
        """Decibels from the true and from the recovered source, and the share of it that is right.

        Nothing where not one picture can be read: no number is better than one that looks measured.
        """
        keep = module.config.model.merge.keep
        sums = torch.zeros(3, dtype=torch.float64)
        count = 0
        for batch in self.loader:
            module.failures.update(batch.failures)
            images = batch.images.to(module.device)
            if not len(images):
                continue
            tokens = module.ema.encode(to_float(images), keep)
            painted = to_uint8(module.ema.decode(tokens))
            source = module.ema.recover_source(tokens.indices)
            recovered = to_uint8(module.ema.decode(replace(tokens, source=source)))
            accuracy = (source == tokens.source).float().mean()
            if count == 0:
                self._picture(module, keep, images, painted, recovered, tokens)
            row = torch.stack([psnr(painted, images).mean(), psnr(recovered, images).mean(), accuracy])
            sums += row.cpu().double() * len(images)
            count += len(images)
        if not count:
            logger.warning(
                "not one validation picture can be read; nothing is measured at step %d", module.steps_done
            )
            return {}
        names = ("psnr", "psnr_recovered", "source_accuracy")
        return dict(zip(names, (sums / count).tolist(), strict=True))

    def _picture(
        self, module: TokenizerTraining, keep: int, images: Any, painted: Any, recovered: Any, tokens: Any
    ) -> None:
        shown = slice(0, _PICTURED)
        figure = reconstruction_figure(
            images[shown].cpu(),
            {keep: painted[shown].cpu()},
            {keep: tokens[shown].to("cpu")},
            recovered={keep: recovered[shown].cpu()},
            title=f"step {module.steps_done}",
        )
        save_picture(figure, self.picture_path(module))

"""How likely held-out tokens are to the averaged generator while it is trained, and a picture of its samples."""

from __future__ import annotations

from pathlib import Path

import torch

from mergevq.data.images.transforms import to_uint8
from mergevq.data.tokens.splits import TokenRows
from mergevq.generation.pipeline import ImageGenerator
from mergevq.models.tokenizer.tokenizer import Tokenizer
from mergevq.training.engine.monitor import CsvLog, Validation
from mergevq.training.generator.config import GeneratorPaceConfig
from mergevq.training.generator.module import GeneratorTraining
from mergevq.visual import grid, save_picture


class GeneratorValidation(Validation):
    """Measures the loss on held-out tokens, and paints the same samples every time, a row a class."""

    def __init__(self, folder: Path, log: CsvLog, rows: TokenRows, pace: GeneratorPaceConfig):
        super().__init__(folder, log, pace.validate_every)
        self.rows = rows
        self.pace = pace

    @torch.no_grad()
    def measure(self, module: GeneratorTraining) -> dict[str, float]:
        """Loss in nats a token, and the share of tokens that are the likeliest; without label smoothing."""
        self._picture(module)
        model = module.ema
        sums = torch.zeros(2, dtype=torch.float64)
        tokens = 0
        for batch in self.rows.spaced(self.pace.validate_images, self.pace.batch_size):
            count = int(batch.keep.sum()) if model.config.kind == "rand_ar" else batch.source.numel()
            terms = model.loss(batch.to(module.device))
            sums += torch.stack([terms["loss"], terms["accuracy"]]).cpu().double() * count
            tokens += count
        return dict(zip(("loss", "accuracy"), (sums / tokens).tolist(), strict=True))

    def _picture(self, module: GeneratorTraining) -> None:
        columns = self.pace.samples
        if not columns:
            return
        names = self.rows.meta.class_names[: self.pace.sample_classes]
        tokenizer = module.tokenizer.network
        assert isinstance(tokenizer, Tokenizer)
        images = ImageGenerator(module.ema, tokenizer.to(module.device)).generate(
            torch.arange(len(names)).repeat_interleave(columns),
            seed=0,
            guidance=self.pace.sample_guidance,
        )
        rows = to_uint8(images).cpu().unflatten(0, (len(names), columns))
        figure = grid([[*row] for row in rows], labels=names, title=f"step {module.steps_done}")
        save_picture(figure, self.picture_path(module))

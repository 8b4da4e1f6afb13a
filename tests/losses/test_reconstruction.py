from __future__ import annotations

import pytest
import torch

from mergevq.errors import UsageError
from mergevq.losses.reconstruction import reconstruction_loss


@pytest.mark.parametrize(("kind", "power"), [("l2", 2), ("l1", 1)])
def test_equals_the_mean_over_everything(kind, power):
    images, reconstruction = torch.randn(2, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = ((reconstruction.double() - images.double()).abs() ** power).mean()
    torch.testing.assert_close(reconstruction_loss(reconstruction, images, kind).double(), expected)


def test_is_float32_for_bfloat16_input():
    images = torch.zeros(1, 3, 4, 4, dtype=torch.bfloat16)
    assert reconstruction_loss(images + 1, images).dtype == torch.float32


def test_refuses_shapes_that_would_broadcast():
    with pytest.raises(UsageError, match="same shape"):
        reconstruction_loss(torch.zeros(2, 3, 8, 8), torch.zeros(1, 3, 8, 8))


def test_names_the_nearest_kind():
    with pytest.raises(UsageError, match="did you mean 'l2'"):
        reconstruction_loss(torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2), "L2")  # type: ignore[arg-type]

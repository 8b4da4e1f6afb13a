from __future__ import annotations

import copy

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from mergevq.errors import CheckpointError, UsageError
from mergevq.models.frozen import Frozen
from mergevq.models.teacher import AlignmentHead, EmaTeacher, PrototypeHead, TimmTeacher, load_timm_teacher


def vit(**arguments) -> nn.Module:
    """A random ViT of 64 dimensions, patch 16, at 160 px."""
    torch.manual_seed(0)
    return timm.create_model("test_vit", num_classes=0, **arguments)


def some_views(size: int) -> torch.Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_feature_is_the_networks_own_after_its_normalisation():
    network, views = vit(), some_views(160)
    mean = torch.tensor(network.pretrained_cfg["mean"]).view(1, 3, 1, 1)
    std = torch.tensor(network.pretrained_cfg["std"]).view(1, 3, 1, 1)
    expected = copy.deepcopy(network).eval()((views / 2 + 0.5 - mean) / std)
    features = TimmTeacher(network)(views)
    assert features.shape == (2, network.num_features) == (2, 64)
    torch.testing.assert_close(features, expected)


@pytest.mark.parametrize(("size", "seen"), [(64, 64), (70, 64), (73, 80), (5, 16)])
def test_views_become_a_multiple_of_the_patch_where_the_network_takes_any(size, seen):
    network = vit(dynamic_img_size=True)
    sizes = []
    network.patch_embed.register_forward_pre_hook(
        lambda module, inputs: sizes.append(tuple(inputs[0].shape[2:]))
    )
    assert TimmTeacher(network)(some_views(size)).shape == (2, 64)
    assert sizes == [(seen, seen)]


def test_views_take_the_one_size_of_a_fixed_network():
    assert TimmTeacher(vit(dynamic_img_size=False))(some_views(64)).shape == (2, 64)


def test_a_chosen_size_and_one_that_does_not_fit():
    network = vit(dynamic_img_size=True)
    sizes = []
    network.patch_embed.register_forward_pre_hook(lambda module, inputs: sizes.append(inputs[0].shape[-1]))
    TimmTeacher(network, size=96)(some_views(32))
    assert sizes == [96]
    with pytest.raises(UsageError, match="nearest size is 96"):
        TimmTeacher(network, size=100)


def test_networks_without_patches_see_the_views_as_they_are():
    torch.manual_seed(0)
    teacher = TimmTeacher(timm.create_model("test_resnet", num_classes=0))
    assert teacher(some_views(50)).shape == (2, teacher.num_features)


def test_teacher_is_frozen_and_in_no_state_dict():
    owner = nn.Linear(2, 2)
    owner.teacher = Frozen(TimmTeacher(vit()))
    owner.train()
    features = owner.teacher(some_views(160).requires_grad_())
    assert not features.requires_grad
    assert not owner.teacher.network.network.training
    assert set(owner.state_dict()) == {"weight", "bias"}
    assert not any(parameter.requires_grad for parameter in owner.teacher.network.parameters())


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_loads_a_local_file(suffix, tmp_path):
    network, path = vit(), tmp_path / f"vit{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(network.state_dict(), path)
    teacher = load_timm_teacher("test_vit", weights=path)
    torch.testing.assert_close(teacher(some_views(160)), TimmTeacher(network)(some_views(160)))


def test_loads_a_network_that_is_no_vit(tmp_path):
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=0)
    torch.save(network.state_dict(), tmp_path / "net.pth")
    teacher = load_timm_teacher("test_resnet", weights=tmp_path / "net.pth")
    torch.testing.assert_close(teacher(some_views(64)), TimmTeacher(network)(some_views(64)))


def test_loading_without_weights_or_with_others_is_refused(tmp_path):
    with pytest.raises(UsageError, match="either a local file or pretrained=True"):
        load_timm_teacher("test_vit")
    torch.save({"blocks": torch.zeros(1)}, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match="does not fit"):
        load_timm_teacher("test_vit", weights=tmp_path / "odd.pth")


@settings(max_examples=15, deadline=None)
@given(decay=st.floats(0, 0.99), steps=st.integers(1, 8))
def test_ema_teacher_follows_the_plain_recursion(decay, steps):
    student = nn.Linear(3, 2)
    teacher, expected = EmaTeacher(student, decay), student.weight.detach().double().clone()
    for _ in range(steps):
        nn.init.normal_(student.weight)
        teacher.update(student)
        expected = decay * expected + (1 - decay) * student.weight.detach().double()
    torch.testing.assert_close(teacher.network.weight.double(), expected, rtol=1e-4, atol=1e-5)


def test_ema_teacher_is_a_frozen_copy_that_checkpoints_exactly():
    student = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout())
    teacher = EmaTeacher(student, decay=0.5)
    student(torch.randn(8, 4))
    with torch.no_grad():
        student[0].weight.add_(1.0)
    teacher.update(student)
    teacher.train()
    views = torch.randn(3, 4)
    assert not teacher.network.training and not teacher(views).requires_grad
    assert torch.equal(teacher.network[1].running_mean, student[1].running_mean)
    torch.testing.assert_close(teacher.network[0].weight, student[0].weight - 0.5)

    resumed = EmaTeacher(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout()))
    resumed.load_state_dict(teacher.state_dict())
    assert torch.equal(resumed(views), teacher(views))


@pytest.mark.parametrize(("width", "layers", "millions"), [(512, 2, 2.63), (512, 3, 6.82), (768, 3, 14.16)])
def test_alignment_heads_have_the_published_sizes(width, layers, millions):
    head = AlignmentHead(width, 768, layers)
    assert sum(p.numel() for p in head.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)
    assert head(torch.zeros(2, width)).shape == (2, 768)
    assert isinstance(head[-1], nn.Linear)


def test_prototype_logits_are_cosines():
    torch.manual_seed(0)
    head = PrototypeHead(8, 5, layers=2, bottleneck=4)
    features = torch.randn(3, 8)
    projected = head.project(features)
    expected = [
        [torch.cosine_similarity(row, proto, dim=0) for proto in head.prototypes] for row in projected
    ]
    torch.testing.assert_close(head(features), torch.stack([torch.stack(row) for row in expected]))


def test_impossible_arguments():
    with pytest.raises(UsageError, match="at least 1"):
        AlignmentHead(8, 8, 0)
    with pytest.raises(UsageError, match="decay is 1"):
        EmaTeacher(nn.Linear(1, 1), decay=1.0)

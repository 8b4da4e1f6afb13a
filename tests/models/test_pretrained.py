from __future__ import annotations

import pickle
import warnings
import zipfile

import pytest
import timm
import torch
from safetensors.torch import save_file

from mergevq.errors import CheckpointError, UsageError
from mergevq.models.pretrained import load_timm_model, read_weights


class Payload:
    """Unpickling this calls a function."""

    def __reduce__(self):
        return (print, ("the pickle ran",))


def test_reads_both_formats(tmp_path):
    weights = {"a": torch.arange(3.0), "b": torch.eye(2)}
    torch.save(weights, tmp_path / "w.pth")
    save_file(weights, tmp_path / "w.safetensors")
    for name in ("w.pth", "w.safetensors"):
        read = read_weights(tmp_path / name)
        assert set(read) == {"a", "b"} and torch.equal(read["b"], torch.eye(2))


@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_never_runs_a_pickle(write, tmp_path, capsys):
    write({"a": Payload()}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="cannot be read safely"):
        read_weights(tmp_path / "w.pth")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"not a checkpoint at all", b"PK\x03\x04"])
def test_damaged_files_are_named(suffix, content, tmp_path):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"w{suffix}"):
        read_weights(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
            "is a git-lfs pointer, .*`git lfs pull`",
        ),
        (b"\n<!DOCTYPE html><html></html>", "is a web page, not the file itself"),
        (b"<html>", "is a web page"),
        (b"\x1f\x8b\x08", "is compressed with gzip"),
        (b"", "is empty; copy or download it again"),
    ],
)
def test_what_was_taken_for_the_file_is_named(suffix, content, said, tmp_path):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=said):
        read_weights(path)


def test_no_way_to_run_the_file_is_ever_advised(tmp_path):
    module = torch.nn.Linear(2, 2)
    torch.save(module, tmp_path / "whole.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(module))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(module), tmp_path / "script.pth")
    for path in tmp_path.iterdir():
        with pytest.raises(CheckpointError, match="save the bare state dict") as caught:
            read_weights(path)
        assert "weights_only" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_home_folder_is_understood(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    save_file({"a": torch.eye(2)}, tmp_path / "w.safetensors")
    assert list(read_weights("~/w.safetensors")) == ["a"]


def test_nested_checkpoints_are_refused(tmp_path):
    torch.save({"state_dict": {"a": torch.zeros(1)}}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="flat dict of tensors"):
        read_weights(tmp_path / "w.pth")


def test_a_missing_file_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="there is no weights file"):
        read_weights(tmp_path / "w.pth")


def test_unknown_model_names_near_ones():
    with pytest.raises(UsageError, match="vit_base_patch14_dinov2"):
        load_timm_model("vit_base_patch14_dino2", pretrained=True)


def test_weights_come_from_exactly_one_place(tmp_path):
    with pytest.raises(UsageError, match="either a local file or pretrained=True"):
        load_timm_model("test_vit")
    with pytest.raises(UsageError, match="either a local file or pretrained=True"):
        load_timm_model("test_vit", weights=tmp_path / "w.pth", pretrained=True)


def test_an_unreachable_hub_is_one_sentence(monkeypatch):
    def offline(*arguments, **keywords):
        raise OSError("cannot find the requested files\nand a long story")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(UsageError) as caught:
        load_timm_model("test_vit", pretrained=True)
    assert str(caught.value) == (
        "the weights of test_vit could not be fetched (cannot find the requested files); "
        "check the network or pass a local file"
    )


def test_weights_of_another_model_are_refused(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="does not fit test_vit: there is no cls_token"):
        load_timm_model("test_vit", weights=tmp_path / "w.pth")
    state = timm.create_model("test_vit").state_dict()
    torch.save({**state, "cls_token": torch.zeros(2)}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="does not fit test_vit: tensors have other shapes"):
        load_timm_model("test_vit", weights=tmp_path / "w.pth")


def test_a_classifier_in_the_file_is_left_out(tmp_path):
    torch.manual_seed(0)
    state = timm.create_model("test_vit").state_dict()
    torch.save(state, tmp_path / "w.pth")
    loaded = load_timm_model("test_vit", weights=tmp_path / "w.pth").state_dict()
    assert set(state) - set(loaded) == {"head.weight", "head.bias"}
    assert all(torch.equal(value, state[name]) for name, value in loaded.items())


def test_what_would_fill_the_memory_is_refused(tmp_path):
    path = tmp_path / "w.pth"
    torch.save({"a": torch.zeros(100)}, path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w/data/9", bytes(10**7))
    with pytest.raises(CheckpointError, match=r"is compressed, which torch\.save does not do"):
        read_weights(path)


def test_names_that_are_none_are_refused(tmp_path):
    torch.save({3: torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="flat dict of tensors"):
        read_weights(tmp_path / "w.pth")

"""Exported tokenizers at work: what the model gives, and one sentence for whatever they cannot take."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import mergevq
from mergevq.errors import DeviceUnavailableError, UnusableExportError, UsageError
from mergevq.export import read_manifest
from mergevq.export.manifest import MANIFEST, VERIFICATION, digest_of, entry, to_json
from mergevq.export.placing import folder_to_be
from mergevq.export.runtime import sessions
from mergevq.export.runtime.folder import open_folder
from mergevq.export.runtime.providers import check_used
from mergevq.tokens import TokenArrays, Tokens


@pytest.fixture(scope="module")
def runtime(exported):
    return mergevq.load(exported, runtime="onnx", threads=1)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(-1, 1, (3, 3, 32, 32)).astype(np.float32)


def test_arrays_and_values_are_the_models(runtime, tiny_tokenizer, images):
    for keep in (None, 17, 32):
        found = runtime.encode(images, keep)
        with torch.no_grad():
            wanted = tiny_tokenizer.encode(torch.from_numpy(images), keep)
            painted = tiny_tokenizer.decode(wanted).numpy()
            recovered = tiny_tokenizer.decode(wanted.indices).numpy()
            starts = torch.from_numpy(np.sort(np.random.default_rng(1).permuted(
                np.tile(np.arange(1, 64), (3, 1)), axis=1)[:, : found.keep - 1], axis=1))  # fmt: skip
            starts = torch.cat([torch.zeros(3, 1, dtype=torch.int64), starts], dim=1)
            placed = tiny_tokenizer.recover_source(wanted.indices, starts=starts).numpy()
        for name in ("indices", "source", "sizes"):
            assert np.array_equal(getattr(found, name), getattr(wanted, name).numpy()), name
        assert (found.keep, len(found), found.grid) == (wanted.keep, 3, wanted.grid)
        assert np.abs(runtime.decode(found) - painted).max() < 1e-5
        assert np.abs(runtime.decode(found.indices) - recovered).max() < 1e-5
        assert np.array_equal(runtime.recover_source(found.indices, starts=starts.numpy()), placed)
    assert found[1:3].indices.shape == (2, 32)
    assert runtime.keeps == [17, 32] and runtime.provider == "cpu"


def test_an_export_that_is_replaced(copied, exported_any, images, monkeypatch):
    """While it is opened, and before its decoder is."""
    folder = copied()
    check_files = sessions.check_files

    def replaced(*arguments):
        monkeypatch.setattr(sessions, "check_files", check_files)
        with folder_to_be(folder) as new:
            shutil.copytree(exported_any, new, dirs_exist_ok=True)
        return check_files(*arguments)

    monkeypatch.setattr(sessions, "check_files", replaced)
    runtime = mergevq.load(folder, runtime="onnx", threads=1)
    assert runtime.keeps == [] and runtime.encode(images, 31).keep == 31
    tokens = runtime.encode(images, 32)
    runtime.decode(tokens)
    with folder_to_be(folder) as new:
        shutil.copytree(exported_any, new, dirs_exist_ok=True)
    runtime.recover_source(tokens.indices)  # of the same graphs
    later = mergevq.load(folder, runtime="onnx", threads=1)
    manifest = read_manifest(folder)
    (folder / MANIFEST).write_text(json.dumps(to_json(replace(manifest, package="2"))))
    with pytest.raises(UnusableExportError, match="was exported anew after it was opened; open it again"):
        later.encode(images)


def test_a_graph_that_is_not_the_described_one(copied, images):
    """The manifest was edited to fit, and hashed again."""
    folder = copied()
    graph = onnx.load(folder / "encoder_k32.onnx")
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "pictures"
    onnx.save(graph, folder / "encoder_k32.onnx")
    manifest = read_manifest(folder)
    files = {**manifest.files, "encoder_k32.onnx": entry(folder / "encoder_k32.onnx")}
    (folder / MANIFEST).write_text(json.dumps(to_json(replace(manifest, files=files))))
    with pytest.raises(UnusableExportError, match=r"encoder_k32\.onnx is not the graph that manifest\.json"):
        mergevq.load(folder, runtime="onnx", threads=1).encode(images)


def test_an_encoder_for_any_count(exported_any, tiny_tokenizer, images):
    runtime = mergevq.load(exported_any, runtime="onnx", threads=1)
    for keep in (None, 16, 31, 63, 64):
        with torch.no_grad():
            wanted = tiny_tokenizer.encode(torch.from_numpy(images), keep)
        assert np.array_equal(runtime.encode(images, keep).source, wanted.source.numpy())
    with pytest.raises(UsageError, match="nearest count that can be reached is 16"):
        runtime.encode(images, 3)


CODES, SOURCE = np.zeros((2, 4), dtype=np.int64), np.zeros((2, 64), dtype=np.int64)


class Arrays:
    """What the runtime takes."""

    def __call__(self, array):
        return array

    def tokens(self, indices, source):
        return TokenArrays(indices, source, np.ones_like(indices), (8, 8))


class Tensors:
    """The same for the model."""

    def __call__(self, array):
        return torch.from_numpy(array)

    def tokens(self, indices, source):
        indices = torch.from_numpy(indices)
        return Tokens(indices, torch.from_numpy(source), torch.ones_like(indices), (8, 8))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda it, of, images: it.encode(of(images[0])), r"images are \(3, 32, 32\); \(B, 3, H, W\)"),
        (lambda it, of, images: it.encode(of(images[:0])), "at least one image"),
        (lambda it, of, images: it.encode(of(images[:, :, :30])), "30 x 32 px; both sides must be multiples"),
        (lambda it, of, images: it.encode(of((images * 0).astype(np.uint8))), r"are uint8; .* / 127\.5 - 1"),
        (lambda it, of, images: it.encode(of((images * 9).astype(np.int32))), "images are int32"),
        (lambda it, of, images: it.encode(of(images > 0)), "images are bool"),
        (lambda it, of, images: it.encode(images.tolist()), "images are of type list; a .* is wanted"),
        (lambda it, of, images: it.encode(of(images * np.float32(127.5))), r"hold values .* lie in \[-1, 1\]"),
        (lambda it, of, images: it.encode(of(images * np.float32(np.nan))), "values from nan to nan"),
        (lambda it, of, images: it.encode(of(images), 17.5), r"keep is 17\.5; an integer is wanted"),
        (lambda it, of, images: it.encode(of(images), True), "keep is True; an integer is wanted"),
        (lambda it, of, _: it.decode(of(CODES + 256)), r"indices hold 256; they must lie in \[0, 256\)"),
        (lambda it, of, _: it.decode(of(CODES - 1)), "indices hold -1"),
        (lambda it, of, _: it.decode(of(CODES[0])), r"indices are \(4,\)"),
        (lambda it, of, _: it.decode(of(CODES[:0])), "at least one row"),
        (lambda it, of, _: it.decode(of(np.zeros((1, 65), dtype=int))), "1 <= K <= 64"),
        (lambda it, of, _: it.decode(of(CODES * 0.5)), "indices are float64; integers are wanted"),
        (lambda it, of, _: it.decode(of(CODES), 8), r"grid is 8; a pair \(h, w\)"),
        (lambda it, of, _: it.decode(of.tokens(CODES, SOURCE), (4, 4)), "the tokens are on one of 8 x 8"),
        (lambda it, of, _: it.decode(of.tokens(CODES, SOURCE + 4)), r"source hold 4; they must lie in \[0, 4\)"),
        (lambda it, of, _: it.decode(of.tokens(CODES, SOURCE - 2)), "source hold -2"),
        (lambda it, of, _: it.decode(of.tokens(CODES, SOURCE * 1.0)), "source are float64"),
        (lambda it, of, _: it.recover_source(of(CODES), starts=of(CODES)), "starts do not ascend from 0"),
        (lambda it, of, _: it.recover_source(of(CODES), starts=of(CODES[:1])), r"starts is \(1, 4\)"),
        (lambda it, of, _: it.recover_source(of(CODES), starts=of(CODES * 0.5)), "starts are float64"),
    ],
)  # fmt: skip
def test_what_model_and_graphs_cannot_take_is_one_sentence(runtime, tiny_tokenizer, images, call, said):
    sentences = []
    for it, of in ((runtime, Arrays()), (tiny_tokenizer, Tensors())):
        with pytest.raises(UsageError, match=said) as caught:
            call(it, of, images)
        assert caught.value.exit_code == 2 and "\n" not in str(caught.value)
        sentences.append(str(caught.value).replace("PyTorch tensor", "NumPy array"))
    assert sentences[0] == sentences[1]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda it, images: it.encode(images[:, :, :28]),
            r"\(3, 3, 28, 32\); these graphs take \(B, 3, 32, 32",
        ),
        (lambda it, images: it.encode(images, 20), "no encoder for 20 kept tokens; there is one for 17, 32"),
        (lambda it, _: it.decode(CODES, (4, 4)), "on a grid of 4 x 4; these graphs were made for 8 x 8"),
    ],
)
def test_what_the_model_alone_can_do(runtime, images, call, said):
    with pytest.raises(UsageError, match=said):
        call(runtime, images)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_pixels_of_any_floating_point_type_are_taken(runtime, images, dtype):
    wanted = runtime.encode(images.astype(dtype).astype(np.float32))
    assert np.array_equal(runtime.encode(images.astype(dtype)).indices, wanted.indices)


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"provider": "cuad"}, UsageError, "unknown provider 'cuad'; did you mean 'cuda'"),
        ({"provider": "cann"}, DeviceUnavailableError, "provider cann is not in .* available: .*cpu"),
        ({"threads": 0}, UsageError, "threads is 0"),
    ],
)
def test_providers_and_threads_are_refused(exported, settings, error, said):
    with pytest.raises(error, match=said) as caught:
        mergevq.load(exported, runtime="onnx", **settings)
    assert caught.value.exit_code == 2


def test_a_provider_that_cannot_start_is_never_replaced(exported, monkeypatch, images):
    """ONNX Runtime that has CUDA, and no driver: it warns, and computes on the CPU."""
    known = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: known)
    opened = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda path, options, providers: opened(path, options, providers=providers[-1:]),
    )
    runtime = open_folder(exported, "cuda", threads=1)
    with pytest.raises(DeviceUnavailableError, match=r"cuda could not be started for encoder_k32\.onnx"):
        runtime.encode(images)
    check_used("cuda", known, "any")


def test_without_onnxruntime_the_error_says_what_to_install(exported, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(DeviceUnavailableError, match="pip install onnxruntime"):
        mergevq.load(exported, runtime="onnx")


def test_run_times_are_named(exported, tmp_path):
    with pytest.raises(UsageError, match="unknown run time 'onxx'; did you mean 'onnx'"):
        mergevq.load(exported, runtime="onxx")
    with pytest.raises(UsageError, match="load it with runtime='onnx' or 'tensorrt'"):
        mergevq.load(exported)
    with pytest.raises(UsageError, match="settings of ONNX Runtime"):
        mergevq.load(exported, provider="cpu")
    with pytest.raises(UsageError, match="unknown provider ''"):
        mergevq.load(exported, runtime="onnx", provider="")
    for threads in (0, 2**40):
        with pytest.raises(UsageError, match=f"threads is {threads}; 1 to 1024 are wanted"):
            mergevq.load(exported, runtime="onnx", threads=threads)
    with pytest.raises(UsageError, match=r"threads is 2\.5; an integer is wanted"):
        mergevq.load(exported, runtime="onnx", threads=2.5)
    with pytest.raises(UnusableExportError, match="is not an exported model"):
        mergevq.load(tmp_path, runtime="onnx")


def truncated(folder):
    path = folder / "decoder.data"
    path.write_bytes(path.read_bytes()[:-100])


def swapped(folder):
    (folder / "encoder_k32.onnx").write_bytes((folder / "encoder_k17.onnx").read_bytes())


def tampered(folder):
    path = folder / MANIFEST
    path.write_text(path.read_text().replace('"keep": 17', '"keep": 18', 1))


def cut_off(folder):
    path = folder / MANIFEST
    path.write_text(path.read_text()[:-40])


def missing(folder):
    (folder / "recovery.onnx").unlink()


def unreadable_verdict(folder):
    (folder / VERIFICATION).write_text("{")


def empty_verdict(folder):
    (folder / VERIFICATION).write_text(json.dumps({"passed": True, "manifest": digest_of(folder)}))


def nested(folder):
    (folder / MANIFEST).write_text("[" * 200_000)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (truncated, r"decoder\.data has \d+ bytes and should have"),
        (swapped, r"encoder_k32\.onnx"),
        (tampered, r"manifest\.json was changed"),
        (cut_off, r"manifest\.json cannot be read"),
        (missing, r"recovery\.onnx is missing"),
        (nested, r"manifest\.json cannot be read: it is nested too deeply; export again"),
        (unreadable_verdict, r"verify\.json cannot be read.*`mergevq export verify` writes it anew"),
        (
            empty_verdict,
            r"verify\.json is no report of a verification: .*; `mergevq export ver",
        ),
    ],
)
def test_a_damaged_folder_is_refused_when_it_is_loaded(copied, damage, said):
    folder = copied()
    damage(folder)
    with pytest.raises(UnusableExportError, match=said) as caught:
        mergevq.load(folder, runtime="onnx")
    assert caught.value.exit_code == 2


def record(folder, file):
    """Makes the manifest say that a file should be as it is."""
    manifest = read_manifest(folder)
    files = {**manifest.files, file: entry(folder / file)}
    (folder / MANIFEST).write_text(json.dumps(to_json(replace(manifest, files=files))))


def test_graphs_that_onnxruntime_refuses_are_one_sentence(copied, images, caplog):
    folder = copied()
    (folder / "encoder_k32.onnx").write_bytes(b"no graph at all")
    record(folder, "encoder_k32.onnx")
    model = onnx.load(str(folder / "recovery.onnx"), load_external_data=False)
    model.graph.input[0].name = "codes"
    for node in model.graph.node:
        node.input[:] = ["codes" if name == "indices" else name for name in node.input]
    onnx.save(model, str(folder / "recovery.onnx"))
    record(folder, "recovery.onnx")
    runtime = mergevq.load(folder, runtime="onnx", threads=1)
    assert "was not verified" in caplog.text  # the verdict is about another manifest
    with pytest.raises(UnusableExportError, match=r"encoder_k32\.onnx cannot be opened on cpu: "):
        runtime.encode(images)
    with pytest.raises(
        UnusableExportError, match=r"recovery\.onnx is not the graph that manifest\.json describes"
    ):
        runtime.decode(CODES)

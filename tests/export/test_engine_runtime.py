"""runtime="tensorrt" on a stand-in for TensorRT and CUDA: the tokens and pictures of runtime="onnx", and bad input.

The stand-in (tensorrt_standin.py) computes with ONNX Runtime: this is about shapes, addresses, copies and errors on
the host, and says nothing about TensorRT.
"""

from __future__ import annotations

import gc
import json
import shutil
import sys
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest

import mergevq
from mergevq.cli import main
from mergevq.errors import DeviceUnavailableError, ExportError, UnusableExportError, UsageError
from mergevq.export import Ranges, build_engines, read_manifest
from mergevq.export.engines.sidecar import read_sidecar
from mergevq.export.manifest import MANIFEST, entry, to_json

RANGES = Ranges(batch=(1, 2, 4))


@pytest.fixture
def install(beside, monkeypatch):
    """Puts a card and a flavour in the place of those that may be installed."""
    standin = beside("tensorrt_standin")

    def call(card=None, flavor="tensorrt", version="11.4.0.106"):
        card = card or standin.Card()
        module = standin.tensorrt_module(card, rtx=flavor == "tensorrt-rtx", version=version)
        bindings = ModuleType("cuda.bindings")
        bindings.runtime = standin.cuda_module(card)
        names = {
            "tensorrt": None,
            "tensorrt_rtx": None,
            "cuda": ModuleType("cuda"),
            "cuda.bindings": bindings,
        }
        names |= {"cuda.bindings.runtime": bindings.runtime, flavor.replace("-", "_"): module}
        for name, each in names.items():
            monkeypatch.setitem(sys.modules, name, each)
        return card

    return call


@pytest.fixture
def card(install):
    return install()


@pytest.fixture
def folder(card, copied):
    """An export that may be damaged, with engines of all of its graphs."""
    copy = copied()
    build_engines(copy, ranges=RANGES)
    return copy


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(-1, 1, (3, 3, 32, 32)).astype(np.float32)


def same(first, second):
    return all(
        np.array_equal(getattr(first, name), getattr(second, name)) for name in ("indices", "source", "sizes")
    )


@pytest.mark.parametrize("flavor", ["tensorrt", "tensorrt-rtx"])
def test_a_tokenizer_gives_what_onnx_runtime_gives(install, exported, images, tmp_path, flavor):
    install(flavor=flavor)
    build_engines(exported, ranges=RANGES, out=tmp_path)
    found = mergevq.load(exported, runtime="tensorrt", engines=tmp_path)
    wanted = mergevq.load(exported, runtime="onnx", threads=1)
    assert (found.provider, found.keeps, found.fingerprint) == (flavor, [17, 32], wanted.fingerprint)
    for keep in (None, 17):
        tokens = found.encode(images, keep)
        assert same(tokens, wanted.encode(images, keep))
        assert np.array_equal(found.decode(tokens), wanted.decode(tokens))
        assert np.array_equal(found.decode(tokens.indices), wanted.decode(tokens.indices))


@pytest.mark.parametrize("tf32", [False, True])
def test_settings_reach_the_builder(install, exported, tmp_path, tf32):
    for flavor, targets, wanted in [
        ("tensorrt", None, []),
        ("tensorrt-rtx", None, ["SM80", "SM86", "SM120"]),
        ("tensorrt-rtx", ["12.0", "7.5"], ["SM75", "SM120"]),
    ]:
        install(flavor=flavor)
        report = build_engines(exported, graphs=["recovery"], targets=targets, tf32=tf32, out=tmp_path)
        plan = json.loads((tmp_path / report.engines[0].file).read_bytes())
        assert plan["settings"] == {"tf32": tf32, "targets": wanted} and report.built


def test_a_dynamic_encoder_is_told_its_plan_on_the_host(card, exported_any, images, tmp_path):
    build_engines(exported_any, ranges=RANGES, out=tmp_path)
    found = mergevq.load(exported_any, runtime="tensorrt", engines=tmp_path)
    wanted = mergevq.load(exported_any, runtime="onnx", threads=1)
    for keep in (16, 31, 64, 32):
        assert same(found.encode(images, keep), wanted.encode(images, keep))
    build_engines(exported_any, ranges=Ranges(batch=(1, 2, 4), keep=(20, 32, 40)), out=tmp_path)
    found = mergevq.load(exported_any, runtime="tensorrt", engines=tmp_path)
    assert same(found.encode(images, 40), wanted.encode(images, 40))
    with pytest.raises(UsageError, match=r"encoder\.onnx: left is \[32, 16\], and the engine was built for"):
        found.encode(images, 16)


def test_a_generator_gives_what_onnx_runtime_gives(card, exported_generator, tmp_path):
    _, folder = exported_generator
    build_engines(folder, ranges=RANGES, out=tmp_path)
    found = mergevq.load(folder, runtime="tensorrt", engines=tmp_path)
    wanted = mergevq.load(folder, runtime="onnx", threads=1)
    for settings in ({"temperature": 0.0}, {"seed": 3, "guidance": 2.0}):
        assert np.array_equal(
            found.generate([0, 3, 1, 1], **settings), wanted.generate([0, 3, 1, 1], **settings)
        )
    if found.kind == "rand_ar":
        for steps in (1, 2, 5):
            assert np.array_equal(found.generate([2] * 4, steps=steps), wanted.generate([2] * 4, steps=steps))
    with pytest.raises(
        UsageError, match=r"prefill\.onnx: label has the shape \[10\], .* built for \[1\] to \[8\]"
    ):
        found.generate([0] * 5, guidance=2.0, keep=20)


def test_a_cache_that_is_too_small_is_said(card, exported_generator, tmp_path):
    _, folder = exported_generator
    build_engines(folder, ranges=Ranges(batch=(1, 1, 1), cache=36), out=tmp_path)
    found = mergevq.load(folder, runtime="tensorrt", engines=tmp_path)
    if found.kind == "merge_ar":
        found.generate([0], temperature=0.0, keep=20)  # duplicates leave
        return
    with pytest.raises(UsageError, match=r"step\.onnx: .* wider ranges"):
        found.generate([0])


def test_memory_is_kept_grows_and_is_given_back(card, folder, images):
    runtime = mergevq.load(folder, runtime="tensorrt")
    assert not card.allocations
    runtime.encode(images[:2], 17)
    assert card.allocations == 4  # one for each input and output
    runtime.encode(images[:2], 17)
    runtime.encode(images[:1], 17)
    assert card.allocations == 4 == len(card.live)
    first = runtime.encode(images, 17)
    assert card.allocations == 8 and len(card.live) == 4
    assert same(runtime.encode(images[1:2], 17), first[1:2])
    del runtime
    gc.collect()
    assert not card.live


def test_only_what_is_asked_for_is_built_and_run(card, copied, images):
    folder = copied()
    build_engines(folder, graphs=["decoder"], ranges=RANGES)
    runtime = mergevq.load(folder, runtime="tensorrt")
    codes = np.zeros((2, 4), dtype=np.int64)
    tokens = mergevq.tokens.TokenArrays(codes, np.zeros((2, 64), dtype=np.int64), codes, (8, 8))
    assert runtime.decode(tokens).shape == (2, 3, 32, 32)
    with pytest.raises(UnusableExportError, match=r"no engine of encoder_k32\.onnx .* --graphs encoder"):
        runtime.encode(images)


def test_graphs_need_not_be_there(folder, images):
    """What is copied to where engines run: the manifest, engines, and what else is no graph."""
    for path in folder.glob("*.onnx*"):
        path.unlink()
    with pytest.raises(UnusableExportError, match="is missing"):
        mergevq.load(folder, runtime="onnx")
    assert mergevq.load(folder, runtime="tensorrt").provider == "tensorrt"


def test_cards_have_engines_side_by_side(install, beside, copied):
    folder, standin = copied(), beside("tensorrt_standin")
    for capability in ((8, 6), (9, 0)):
        install(standin.Card(capability=capability, name=f"NVIDIA {capability} (x)"))
        report = build_engines(folder, graphs=["decoder"], ranges=RANGES)
        assert report.engines[0].file == f"decoder.tensorrt-sm{capability[0]}{capability[1]}.engine"
        assert report.built and report.engines[0].driver == 13
        assert mergevq.load(folder, runtime="tensorrt").provider == "tensorrt"
    assert len(list((folder / "engines").glob("*.engine"))) == 2
    timings = folder / "engines" / "timings-nvidia-9-0-x-11.4.0.106.cache"
    assert timings.read_bytes() == b"t"
    build_engines(folder, graphs=["recovery"], ranges=RANGES)
    assert timings.read_bytes() == b"tt"  # read, and written again
    with pytest.raises(UsageError, match=r"whose compute capability is 9\.0; leave out targets"):
        build_engines(folder, targets=["8.6"])


def other_version(folder, install, card):
    install(card, version="11.5.0.1")


def other_card(folder, install, card):
    card.capability = (8, 9)


def other_flavor(folder, install, card):
    install(card, flavor="tensorrt-rtx", version="1.7.1.116")


def other_graph(folder, install, card):
    (folder / "decoder.onnx").write_bytes((folder / "recovery.onnx").read_bytes())
    manifest = read_manifest(folder)
    files = {**manifest.files, "decoder.onnx": entry(folder / "decoder.onnx")}
    (folder / MANIFEST).write_text(json.dumps(to_json(replace(manifest, files=files))))


DECODER = "engines/decoder.tensorrt-sm86.engine"


def truncated(folder, install, card):
    (folder / DECODER).write_bytes((folder / DECODER).read_bytes()[:-9])


def swapped(folder, install, card):
    content = bytearray((folder / DECODER).read_bytes())
    content[5] ^= 1
    (folder / DECODER).write_bytes(content)


def missing(folder, install, card):
    (folder / DECODER).unlink()


def cut_off(folder, install, card):
    path = folder / f"{DECODER}.json"
    path.write_text(path.read_text()[:-50])


def edited(folder, install, card):
    path = folder / f"{DECODER}.json"
    path.write_text(path.read_text().replace('"8.6"', '"8.9"'))


def of_another_kind(folder, install, card):
    (folder / "engines" / "notes.engine.json").write_text("[1]")


def nothing_built(folder, install, card):
    shutil.rmtree(folder / "engines")


def tampered(folder, install, card):
    path = folder / MANIFEST
    path.write_text(path.read_text().replace('"keep": 17', '"keep": 18', 1))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            other_version,
            r"built by tensorrt 11\.4\.0\.106, and 11\.5\.0\.1 is installed.*build it again with",
        ),
        (other_card, r"for cards of compute capability 8\.6, and this one has 8\.9; build it again"),
        (other_flavor, r"has engines of tensorrt alone, and tensorrt-rtx is installed"),
        (other_graph, r"decoder\.tensorrt-sm86\.engine was built from another decoder\.onnx"),
        (truncated, r"decoder\.tensorrt-sm86\.engine has \d+ bytes and should have \d+"),
        (swapped, r"decoder\.tensorrt-sm86\.engine is not the engine that was built"),
        (missing, r"decoder\.tensorrt-sm86\.engine is missing"),
        (cut_off, r"decoder\.tensorrt-sm86\.engine\.json does not describe an engine"),
        (edited, r"\.json does not describe an engine \(it was changed\)"),
        (of_another_kind, r"notes\.engine\.json does not describe an engine"),
        (nothing_built, r"has no engines; build them with `mergevq export engine"),
        (tampered, r"manifest\.json was changed"),
    ],
)
def test_what_cannot_be_used_is_said_when_it_is_loaded(folder, install, card, damage, said):
    mergevq.load(folder, runtime="tensorrt")
    damage(folder, install, card)
    with pytest.raises(UnusableExportError, match=said) as caught:
        mergevq.load(folder, runtime="tensorrt")
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value)


def test_a_card_that_rtx_does_not_know(install, beside, copied):
    card, folder = install(flavor="tensorrt-rtx"), copied()
    build_engines(folder, graphs=["decoder"])
    card.capability = (9, 0)
    with pytest.raises(UnusableExportError, match=r"this one has 9\.0; .* builds for 7\.5, .* alone: use"):
        mergevq.load(folder, runtime="tensorrt")


def test_what_the_library_cannot_open_is_said(folder, images):
    """An engine that is the one that was built, and yet no good."""
    path = folder / "engines" / "encoder_k32.tensorrt-sm86.engine"
    path.write_bytes(b"junk")
    sidecar = read_sidecar(path.with_name(f"{path.name}.json"))
    replace(sidecar, engine=entry(path)).write(path.with_name(f"{path.name}.json"))
    runtime = mergevq.load(folder, runtime="tensorrt")
    with pytest.raises(
        UnusableExportError, match=r"cannot be opened by TensorRT 11\.4\.0\.106: the magic tag"
    ):
        runtime.encode(images)


def test_rtx_says_why_an_engine_is_not_valid(install, beside, copied, images, monkeypatch):
    install(flavor="tensorrt-rtx")
    folder = copied()
    build_engines(folder, graphs=["encoder"])
    monkeypatch.setattr(beside("tensorrt_standin").RtxRuntime, "diagnostics", 3)
    with pytest.raises(UnusableExportError, match=r"is not valid here .*: version mismatch, unsupported cc"):
        mergevq.load(folder, runtime="tensorrt").encode(images)


def test_tensors_of_another_graph(folder, images, monkeypatch, beside):
    engine = beside("tensorrt_standin").ICudaEngine
    monkeypatch.setattr(engine, "get_tensor_name", lambda self, number: f"tensor{number}")
    with pytest.raises(UnusableExportError, match="which are not those of encoder_k32"):
        mergevq.load(folder, runtime="tensorrt").encode(images)
    monkeypatch.undo()


def test_failures_while_running(folder, card, images, monkeypatch, beside):
    runtime = mergevq.load(folder, runtime="tensorrt")
    card.fails = "cudaMalloc"
    with pytest.raises(ExportError, match="cudaMalloc fails: out of memory"):
        runtime.encode(images)
    card.fails = ""
    assert len(runtime.encode(images)) == 3  # it goes on
    context = beside("tensorrt_standin").IExecutionContext
    for name, answer, said in [
        ("execute_async_v3", False, r"encoder_k32\.tensorrt-sm86\.engine fails: it gives no reason"),
        ("infer_shapes", ["image"], "does not know the shapes of image"),
        ("set_input_shape", False, "does not take image of"),
        ("get_tensor_shape", (-1, 32), "does not say the shape of indices"),
    ]:
        with monkeypatch.context() as patch:
            patch.setattr(context, name, lambda *_, found=answer: found)
            with pytest.raises(ExportError, match=said):
                runtime.encode(images)
    assert len(runtime.encode(images)) == 3


def test_batches_beyond_the_profile(folder, images):
    runtime = mergevq.load(folder, runtime="tensorrt")
    with pytest.raises(
        UsageError, match=r"image has the shape \[6, 3, 32, 32\], .* to \[4, 3, 32, 32\]; take less"
    ):
        runtime.encode(np.concatenate([images, images]))


@pytest.mark.parametrize(
    ("absent", "said"),
    [
        ({"cuda.bindings": None}, "engines need cuda-bindings"),
        ({"tensorrt": None}, r"engines need tensorrt or tensorrt-rtx.*pip install mergevq\[tensorrt\]"),
        ("no card", "CUDA sees none"),
        ("no driver", "engines need an NVIDIA card and its driver: cudaGetDeviceCount fails"),
    ],
)
def test_what_is_not_there_is_said(folder, card, monkeypatch, absent, said):
    if absent == "no card":
        card.count = 0
    elif absent == "no driver":
        card.fails = "cudaGetDeviceCount"
    else:
        for name, value in absent.items():
            monkeypatch.setitem(sys.modules, name, value)
    for attempt in (lambda: mergevq.load(folder, runtime="tensorrt"), lambda: build_engines(folder)):
        with pytest.raises(DeviceUnavailableError, match=said) as caught:
            attempt()
        assert caught.value.exit_code == 2 and "\n" not in str(caught.value)


def test_settings_of_other_run_times(folder):
    with pytest.raises(UsageError, match="settings of ONNX Runtime"):
        mergevq.load(folder, runtime="tensorrt", provider="cuda")
    with pytest.raises(UsageError, match="engines are for TensorRT"):
        mergevq.load(folder, runtime="onnx", engines=folder)


def test_commands(folder, exported_generator, image_folder, tmp_path, capsys):
    for runtime in ("onnx", "tensorrt"):
        chosen = ["--checkpoint", str(folder), "--runtime", runtime]
        file = str(tmp_path / f"{runtime}.npz")
        encode = ["encode", *chosen, str(image_folder), "--batch-size", "4", "--out", file]
        assert main(encode) == 0, capsys.readouterr().err
        assert main(["decode", *chosen, file, "--batch-size", "4", "--out", str(tmp_path / runtime)]) == 0
    for path in (tmp_path / "onnx").rglob("*.png"):
        assert path.read_bytes() == (tmp_path / "tensorrt" / path.relative_to(tmp_path / "onnx")).read_bytes()
    build_engines(exported_generator[1], ranges=RANGES, out=tmp_path / "engines")
    chosen = [
        "--checkpoint",
        str(exported_generator[1]),
        "--runtime",
        "tensorrt",
        "--out",
        str(tmp_path / "gen"),
    ]
    generate = [
        "generate",
        *chosen,
        "--classes",
        "1",
        "--number",
        "2",
        "--engines",
        str(tmp_path / "engines"),
    ]
    assert main(generate) == 0, capsys.readouterr().err
    assert len(list((tmp_path / "gen").rglob("*.png"))) == 2
    capsys.readouterr()
    for wrong, said in [
        (["--runtime", "tensorrt", "--device", "cuda"], "CUDA_VISIBLE_DEVICES"),
        (["--runtime", "tensorrt", "--provider", "cpu"], "--provider is for ONNX Runtime"),
        (["--runtime", "onnx", "--engines", "x"], "--engines is for TensorRT"),
    ]:
        out = str(tmp_path / "no.npz")
        assert main(["encode", "--checkpoint", str(folder), str(image_folder), "--out", out, *wrong]) == 2
        assert said in capsys.readouterr().err


SCRIPT = """
import importlib.util, sys
from types import ModuleType

class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "timm", "lightning", "onnx"):
            raise RuntimeError(f"{name} was imported")

sys.meta_path.insert(0, Refused())
spec = importlib.util.spec_from_file_location("standin", sys.argv[1])
standin = sys.modules["standin"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(standin)
card = standin.Card()
sys.modules["tensorrt"] = standin.tensorrt_module(card)
sys.modules["cuda"], sys.modules["cuda.bindings"] = ModuleType("cuda"), ModuleType("cuda.bindings")
sys.modules["cuda.bindings"].runtime = standin.cuda_module(card)

import numpy as np
import mergevq

tok = mergevq.load(sys.argv[2], runtime="tensorrt")
tokens = tok.encode(np.zeros((2, 3, 32, 32), dtype=np.float32), keep=17)
print(tok.decode(tokens).shape, "torch" in sys.modules)
"""


def test_engines_run_without_torch(folder, run_python, beside):
    standin = beside("tensorrt_standin").__file__
    result = run_python("-c", SCRIPT, standin, str(folder))
    assert result.stdout.strip() == "(2, 3, 32, 32) False", result.stderr

"""runtime="tensorrt" on a stand-in for TensorRT and CUDA: the tokens and pictures of runtime="onnx".

The stand-in (tensorrt_standin.py) computes with ONNX Runtime: this is about shapes, addresses, copies and errors on
the host, and says nothing about TensorRT.
"""

from __future__ import annotations

import gc
import json
from pathlib import Path

import numpy as np
import pytest

import mergevq
from mergevq.cli import main
from mergevq.errors import UnusableExportError, UsageError
from mergevq.export import Ranges, build_engines

RANGES = Ranges(batch=(1, 2, 4))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(-1, 1, (3, 3, 32, 32)).astype(np.float32)


def same(first, second):
    return all(
        np.array_equal(getattr(first, name), getattr(second, name)) for name in ("indices", "source", "sizes")
    )


@pytest.mark.parametrize("flavor", ["tensorrt", "tensorrt-rtx"])
def test_a_tokenizer_gives_what_onnx_runtime_gives(install_tensorrt, exported, images, tmp_path, flavor):
    install_tensorrt(flavor=flavor)
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
def test_settings_reach_the_builder(install_tensorrt, exported, tmp_path, tf32):
    for flavor, targets, wanted in [
        ("tensorrt", None, []),
        ("tensorrt-rtx", None, ["SM80", "SM86", "SM120"]),
        ("tensorrt-rtx", ["12.0", "7.5"], ["SM75", "SM120"]),
    ]:
        install_tensorrt(flavor=flavor)
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


def test_memory_is_kept_grows_and_is_given_back(card, with_engines, images):
    runtime = mergevq.load(with_engines, runtime="tensorrt")
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


def test_graphs_need_not_be_there(with_engines, images):
    """What is copied to where engines run: the manifest, engines, and what else is no graph."""
    for path in with_engines.glob("*.onnx*"):
        path.unlink()
    with pytest.raises(UnusableExportError, match="is missing"):
        mergevq.load(with_engines, runtime="onnx")
    assert mergevq.load(with_engines, runtime="tensorrt").provider == "tensorrt"


def test_cards_have_engines_side_by_side(install_tensorrt, beside, copied):
    folder, standin = copied(), beside("cuda_standin")
    for capability in ((8, 6), (9, 0)):
        install_tensorrt(standin.Card(capability=capability, name=f"NVIDIA {capability} (x)"))
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


def test_commands(with_engines, exported_generator, image_folder, tmp_path, capsys):
    for runtime in ("onnx", "tensorrt"):
        chosen = ["--checkpoint", str(with_engines), "--runtime", runtime]
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
        assert (
            main(["encode", "--checkpoint", str(with_engines), str(image_folder), "--out", out, *wrong]) == 2
        )
        assert said in capsys.readouterr().err


SCRIPT = """
import importlib.util, sys
from types import ModuleType

class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "timm", "lightning", "onnx"):
            raise RuntimeError(f"{name} was imported")

sys.meta_path.insert(0, Refused())

def load(name):
    spec = importlib.util.spec_from_file_location(name, f"{sys.argv[1]}/{name}.py")
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]

card = load("cuda_standin").Card()
sys.modules["tensorrt"] = load("tensorrt_standin").tensorrt_module(card)
sys.modules["cuda"], sys.modules["cuda.bindings"] = ModuleType("cuda"), ModuleType("cuda.bindings")
sys.modules["cuda.bindings"].runtime = sys.modules["cuda_standin"].cuda_module(card)

import numpy as np
import mergevq

tok = mergevq.load(sys.argv[2], runtime="tensorrt")
tokens = tok.encode(np.zeros((2, 3, 32, 32), dtype=np.float32), keep=17)
print(tok.decode(tokens).shape, "torch" in sys.modules)
"""


def test_engines_run_without_torch(with_engines, run_python):
    result = run_python("-c", SCRIPT, str(Path(__file__).parents[1]), str(with_engines))
    assert result.stdout.strip() == "(2, 3, 32, 32) False", result.stderr

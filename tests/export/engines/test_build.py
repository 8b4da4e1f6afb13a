"""TensorRT-RTX builds every graph of a tokenizer and of every kind of generator, without a card; none is run here.

Some minutes, which `tox -e engines` takes, a part of `tox`; a plain pytest leaves them out.
"""

from __future__ import annotations

import importlib
import json
import os
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

import mergevq
from mergevq.cli import main
from mergevq.errors import CheckpointError, ExportError, OutputError, UnusableExportError, UsageError
from mergevq.export import Ranges, build_engines, exporter, read_manifest
from mergevq.export.checking.report import VerifyReport
from mergevq.export.checking.static_checks import static_checks
from mergevq.export.engines.building import BuildSettings, build_engine
from mergevq.export.engines.flavors import toolkit
from mergevq.export.engines.ranges import InputProfile, profiles
from mergevq.export.engines.sidecar import read_sidecars
from mergevq.export.manifest import MANIFEST, digest_of, entry, to_json
from mergevq.export.runtime.engine import Engine
from mergevq.models.tokenizer.merge import merge_schedule

if os.environ.get("MERGEVQ_ENGINES") != "full":
    pytest.skip("MERGEVQ_ENGINES is not full; `tox -e engines` builds engines", allow_module_level=True)
tensorrt_rtx = importlib.import_module("tensorrt_rtx")


@pytest.fixture(scope="module")
def kit():
    return toolkit("tensorrt-rtx")


@pytest.fixture
def build(tmp_path):
    """Builds engines of a folder beside it, for it is not to be changed."""

    def call(folder, **settings):
        return build_engines(folder, flavor="tensorrt-rtx", out=tmp_path / "engines", **settings)

    return call


def complete(report, folder):
    """There is an engine of every graph, and its file is the one that was written."""
    manifest = read_manifest(folder)
    assert [each.graph for each in report.engines] == [graph.file for graph in manifest.graphs]
    assert {each.file: each for each in read_sidecars(report.folder)} == {
        each.file: each for each in report.engines
    }
    for each in report.engines:
        assert each.engine == entry(report.folder / each.file) and each.engine.bytes > 100_000
    return True


def test_a_tokenizer(build, exported):
    report = build(exported)
    assert complete(report, exported) and len(report.built) == 4
    assert {each.targets for each in report.engines} == {("8.0", "8.6", "8.9", "12.0", "12.1")}


@pytest.mark.parametrize("name", ["exported_any", "exported_half"])
def test_dynamic_and_half(build, request, name):
    folder = request.getfixturevalue(name)
    assert complete(build(folder), folder)


def test_generators(build, exported_generator):
    _, folder = exported_generator
    report = build(folder)
    assert complete(report, folder) and len(report.engines) == 6


def test_nothing_is_built_twice(build, exported):
    first = build(exported, graphs=["recovery"])
    assert len(first.built) == 1
    path = first.folder / first.engines[0].file
    written = path.stat().st_mtime_ns
    again = build(exported, graphs=["recovery"])
    assert (again.built, again.engines) == ((), first.engines) and path.stat().st_mtime_ns == written
    for settings in (
        {"ranges": Ranges(batch=(1, 1, 2))},
        {"ranges": Ranges(batch=(1, 1, 2)), "targets": ["8.6"]},
        {"ranges": Ranges(batch=(1, 1, 2)), "targets": ["8.6"], "tf32": True},
    ):
        assert len(build(exported, graphs=["recovery"], **settings).built) == 1, settings
        assert build(exported, graphs=["recovery"], **settings).built == ()
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    assert len(build(exported, graphs=["recovery"], **settings).built) == 1
    assert path.stat().st_size == len(content)


def change(folder, file):
    """Makes the manifest describe a file as it is now."""
    manifest = read_manifest(folder)
    files = {**manifest.files, file: entry(folder / file)}
    (folder / MANIFEST).write_text(json.dumps(to_json(replace(manifest, files=files))))


def test_another_graph_or_version_is_built_anew(build, copied, monkeypatch):
    folder = copied()
    assert len(build(folder, graphs=["recovery"]).built) == 1
    model = onnx.load(str(folder / "recovery.onnx"), load_external_data=False)
    model.producer_name = "another"
    onnx.save(model, str(folder / "recovery.onnx"))
    with pytest.raises(CheckpointError, match=r"recovery\.onnx"):
        build(folder, graphs=["recovery"])
    change(folder, "recovery.onnx")
    assert len(build(folder, graphs=["recovery"]).built) == 1
    assert build(folder, graphs=["recovery"]).built == ()
    monkeypatch.setattr(tensorrt_rtx, "__version__", "1.8.0.1")
    toolkit.__globals__["_set_up"].cache_clear()
    try:
        assert len(build(folder, graphs=["recovery"]).built) == 1
    finally:
        toolkit.__globals__["_set_up"].cache_clear()


def damaged(kit, tmp_path, nodes, inputs):
    """A graph of given nodes, and the attempt to build it."""
    graph = onnx.helper.make_graph(
        nodes, "graph", inputs, [onnx.helper.make_tensor_value_info("out", onnx.TensorProto.INT64, None)]
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(model, str(tmp_path / "bad.onnx"))
    return build_engine(
        kit,
        tmp_path / "bad.onnx",
        [InputProfile(name="x", values=False, least=(1,), usual=(2,), most=(3,))],
        BuildSettings(targets=("8.6",), tf32=False, timings=None),
    )


def test_a_node_that_the_parser_refuses_is_named(kit, tmp_path):
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n"])
    node = onnx.helper.make_node("NonZero", ["x"], ["out"], name="where_is_it")
    with pytest.raises(ExportError, match=r"^bad\.onnx: .* operator NonZero at node where_is_it: ") as caught:
        damaged(kit, tmp_path, [node], [x])
    assert "\n" not in str(caught.value)


def test_what_the_builder_refuses_is_one_sentence(kit, exported, tmp_path):
    """Cards of Turing have no float32 products there."""
    with pytest.raises(ExportError, match=r"recovery\.onnx cannot be built by .*SM75") as caught:
        build_engines(exported, flavor="tensorrt-rtx", targets=["7.5"], graphs=["recovery"], out=tmp_path)
    assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_graph(kit, tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"no graph at all")
    with pytest.raises(ExportError, match=r"^bad\.onnx cannot be parsed by TensorRT-RTX"):
        build_engine(
            kit, tmp_path / "bad.onnx", [], BuildSettings(targets=("8.6",), tf32=False, timings=None)
        )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"targets": ["9.0"]},
            r"does not build for compute capability '9\.0'; it builds for 7\.5, 8\.0, 8\.6",
        ),
        ({"graphs": ["step"]}, "unknown graph 'step'.* known: encoder, decoder, recovery"),
        ({"flavor": "rtx"}, "unknown flavour 'rtx'; did you mean 'tensorrt-rtx'"),
        ({"ranges": Ranges(keep=(1, 2, 65))}, "keep goes up to 65, and the tokenizer has 64 positions"),
    ],
)
def test_impossible_wishes(exported, tmp_path, settings, said):
    with pytest.raises(UsageError, match=said):
        build_engines(exported, **{"flavor": "tensorrt-rtx", **settings}, out=tmp_path / "no")
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"batch": (4, 2, 8)}, "batch is 4,2,8"),
        ({"batch": (0, 1, 1)}, "batch is 0,1,1"),
        ({"keep": (1, 2)}, "keep is 1,2"),
        ({"cache": 5}, "cache is 5; a generation needs 34"),
    ],
)
def test_impossible_ranges(settings, said):
    with pytest.raises(UsageError, match=said):
        Ranges(**settings)


def test_where_engines_cannot_be_written(exported, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        build_engines(exported, flavor="tensorrt-rtx", graphs=["recovery"], out=tmp_path / "file" / "engines")


def test_profiles_hold_every_plan_of_a_dynamic_encoder(exported_any):
    manifest = read_manifest(exported_any)
    image, left = profiles(manifest, manifest.graph("encoder"), Ranges(batch=(2, 4, 6)))
    assert (image.least, image.usual, image.most) == ((2, 3, 32, 32), (4, 3, 32, 32), (6, 3, 32, 32))
    assert left.values and not image.values
    config = manifest.tokenizer
    for keep in range(16, 65):
        plan = merge_schedule(64, keep, config.encoder.depth, config.merge.schedule)
        values = 64 - np.cumsum(plan)
        assert (left.least <= values).all() and (values <= left.most).all()
    assert left.usual[-1] == 32
    narrow = profiles(manifest, manifest.graph("encoder"), Ranges(keep=(20, 20, 20)))[1]
    assert narrow.least == narrow.usual == narrow.most and narrow.most[-1] == 20
    with pytest.raises(UsageError, match="reaches 16 at the fewest"):
        profiles(manifest, manifest.graph("encoder"), Ranges(keep=(1, 2, 3)))


def test_profiles_of_a_generator(exported_generator):
    generator, folder = exported_generator
    manifest = read_manifest(folder)
    by_name = {
        each.name: each for each in profiles(manifest, manifest.graph("step"), Ranges(batch=(1, 2, 3)))
    }
    code, mask, past = by_name["code"], by_name["mask"], by_name["past.0.key"]
    assert code.most[0] == mask.most[0] == past.most[0] == 6  # guidance doubles the rows
    assert code.usual[0] == 4 and code.least[0] == 1
    for each in ("least", "usual", "most"):
        sizes = [getattr(tensor, each) for tensor in (code, mask, past)]
        assert sizes[1][2] == sizes[0][1] + sizes[2][2]
    assert code.most[1] == (64 if generator.kind == "rand_ar" else 1)
    assert profiles(manifest, manifest.graph("step"), Ranges(cache=50))[-1].most[2] == 50
    assert profiles(manifest, manifest.graph("decoder"), Ranges())[0].usual[1] == (
        32 if generator.kind == "rand_ar" else 64
    )


def test_an_engine_without_a_card_is_one_sentence(kit, build, exported):
    """No process dies: the library is asked first whether it can be opened."""
    if torch.accelerator.is_available():
        pytest.skip("there is a card")
    report = build(exported, graphs=["recovery"])
    (sidecar,) = report.engines
    content = (report.folder / sidecar.file).read_bytes()
    spec = read_manifest(exported).graph("recovery")
    for each in (content, content[: len(content) // 2], b"junk" * 100, b""):
        with pytest.raises(UnusableExportError, match=r"is not valid here for TensorRT-RTX") as caught:
            Engine(kit, None, spec, sidecar, each)
        assert "\n" not in str(caught.value)


def test_the_command(exported, tmp_path, capsys):
    chosen = ["export", "engine", str(exported), "--flavor", "tensorrt-rtx", "--graphs", "recovery,decoder"]
    chosen += ["--target", "12.0,8.6", "--batch", "1,2,4", "--keep", "32", "--out", str(tmp_path / "engines")]
    assert main(chosen) == 0
    said = capsys.readouterr()
    assert (
        "recovery.tensorrt-rtx.engine (" in said.out
        and "compute capability 8.6, 12.0, 2 of them new" in said.out
    )
    assert "recovery.onnx: building with TensorRT-RTX" in said.err
    assert main([*chosen, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [each["built"] for each in report["engines"]] == [False, False]
    assert main([*chosen, "--target", "9.0"]) == 2
    assert "does not build for compute capability '9.0'" in capsys.readouterr().err
    assert main([*chosen, "--batch", "4,2,1"]) == 2
    assert "'4,2,1' is not MIN,OPT,MAX" in capsys.readouterr().err


def test_inspection_and_verification_stay_whole(copied, capsys):
    folder = copied()
    assert main(["export", "engine", str(folder), "--flavor", "tensorrt-rtx", "--graphs", "recovery"]) == 0
    assert main(["export", "inspect", str(folder)]) == 0
    assert "recovery.tensorrt-rtx.engine (" in capsys.readouterr().out
    engine = folder / "engines" / "recovery.tensorrt-rtx.engine"
    engine.write_bytes(b"another")
    assert main(["export", "inspect", str(folder), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["engines"]
    assert "has 7 bytes and should have" in found["problem"]
    engine.with_name(f"{engine.name}.json").write_text("{")
    assert main(["export", "inspect", str(folder)]) == 0
    assert "recovery.tensorrt-rtx.engine cannot be used: " in capsys.readouterr().out
    assert all(check.passed for check in static_checks(folder, read_manifest(folder)))


def test_building_needs_no_torch(run_python, exported, tmp_path):
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['torch', 'onnx', 'onnxruntime'])); "
        "from mergevq.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    chosen = ["--flavor", "tensorrt-rtx", "--graphs", "recovery", "--out", str(tmp_path / "engines")]
    result = run_python("-c", code, "export", "engine", str(exported), *chosen)
    assert result.returncode == 0, result.stderr
    assert "1 engines by tensorrt-rtx" in result.stdout


@pytest.mark.slow
def test_every_graph_of_g_r(build, tmp_path, monkeypatch):
    """What the graphs compute is verified elsewhere; here the saved files alone, for a minute less."""

    def looked_at(folder, model):
        checks = tuple(static_checks(folder, read_manifest(folder)))
        return VerifyReport(manifest=digest_of(folder), provider="", versions={}, checks=checks, seconds=0.0)

    monkeypatch.setattr(exporter, "verify", looked_at)
    torch.manual_seed(0)
    exporter.export_onnx(mergevq.create("G+R"), tmp_path / "G+R", keep=[144])
    assert complete(build(tmp_path / "G+R"), tmp_path / "G+R")

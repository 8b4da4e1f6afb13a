"""From a checkpoint to a folder of verified graphs: all of it, or nothing.

Everything is written to a folder beside the target and verified there; only what passed gets the target's name.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import get_args

import mergevq
from mergevq.backends import reference_only
from mergevq.errors import OutputError, UsageError, unknown_name
from mergevq.export.checking.report import VerifyReport
from mergevq.export.checking.verification import check_packages, evaluating, loaded, tokenizer_of, verify
from mergevq.export.generator.graphs import generator_plans
from mergevq.export.generator.layout_file import write_layouts
from mergevq.export.manifest import MANIFEST, Axes, Manifest, Precision, entry, exported_names, to_json
from mergevq.export.placing import folder_to_be, only_exporter
from mergevq.export.rewrites.int8 import QUANTISED
from mergevq.export.rewrites.shared_weights import SharedWeights
from mergevq.export.tokenizer.graphs import decoder_plans, encoder_plans
from mergevq.export.tracing import OPSET, Plan, traced
from mergevq.export.writing import write_graph
from mergevq.generation.pipeline import ImageGenerator
from mergevq.models.store import fingerprint
from mergevq.models.tokenizer.merge import merge_schedule
from mergevq.models.tokenizer.tokenizer import Tokenizer
from mergevq.storage.files import expanded


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportReport:
    """What an export made, and what its verification found."""

    folder: Path
    manifest: Manifest
    verification: VerifyReport
    seconds: float
    """Of all of it, verification included."""


def export_onnx(
    model: str | Path | Tokenizer | ImageGenerator,
    out: str | Path,
    *,
    keep: Sequence[int] | None = None,
    dynamic_keep: bool = False,
    precision: Precision = "fp32",
    winograd: bool = False,
) -> ExportReport:
    """Writes a model's graphs to a folder, and verifies them.

    A tokenizer becomes encoders, a decoder and source recovery; a generator becomes prefill, step and heads, with the
    decoder and source recovery of its tokenizer.

    Args:
        model: a tokenizer or generator on the CPU, or where its checkpoint is.
        out: the folder; an earlier export there is replaced once this one has passed.
        keep: kept counts, one encoder each; by default the preset's.
        dynamic_keep: one encoder for any kept count instead, which is larger and may be slower.
        precision: of the computation inside; "fp16" is float16 autocast, "int8" a generator's matrix products in
            integers (weights rounded once, what they multiply in every pass).
        winograd: computes 3 x 3 convolutions of many channels with a quarter of the multiplications; for CPUs, not with
            fp16.

    Raises:
        ExportError: a graph cannot be made, or does not do what the model does; nothing is left behind.
        UsageError: a kept count cannot be reached, settings that do not go together, a package that is not
            installed, a model that is not a float32 one on the CPU, or another process that exports there.
        OutputError: the folder cannot be written, or holds something else.
    """
    started = time.perf_counter()
    out = expanded(out).resolve()
    if precision not in get_args(Precision):
        raise UsageError(unknown_name("precision", precision, get_args(Precision)))
    with only_exporter(out):
        _check_replaceable(out)
        check_packages()
        model = loaded(model)
        _check_together(model, precision, winograd)
        plans = _plans(model, keep, dynamic_keep)
        with evaluating(model), folder_to_be(out) as folder:
            manifest = _write(model, plans, precision, winograd, folder)
            report = verify(folder, model)
            report.raise_if_failed()
    return ExportReport(
        folder=out, manifest=manifest, verification=report, seconds=time.perf_counter() - started
    )


def _check_together(model: Tokenizer | ImageGenerator, precision: Precision, winograd: bool) -> None:
    """Raises UsageError where a precision is not for this kind of model, or not with Winograd's convolutions."""
    if precision == "int8" and isinstance(model, Tokenizer):
        raise UsageError("int8 is for generators; it would turn the merging decisions of a tokenizer over")
    if winograd and precision == "fp16":
        raise UsageError(
            "Winograd's convolutions are for float32 on CPUs; leave --winograd or --precision fp16 out"
        )


def _plans(model: Tokenizer | ImageGenerator, keep: Sequence[int] | None, dynamic_keep: bool) -> list[Plan]:
    if keep is not None and dynamic_keep:
        raise UsageError("kept counts are given, and an encoder for any is asked for; choose one of the two")
    if isinstance(model, ImageGenerator):
        if keep is not None or dynamic_keep:
            raise UsageError("a generator has no encoder; export its tokenizer to choose kept counts")
        return [*decoder_plans(model.tokenizer), *generator_plans(model.model)]
    config = model.config
    if keep is not None and (isinstance(keep, (str, int)) or not keep):
        raise UsageError(f"keep is {keep!r}; a list of at least one kept count is wanted")
    keeps = [config.merge.keep] if keep is None else sorted(set(keep))
    for each in keeps:  # says which count is the nearest where one cannot be reached
        merge_schedule(config.length, each, config.encoder.depth, config.merge.schedule)
    return [*encoder_plans(model, keeps, dynamic_keep), *decoder_plans(model)]


def _write(
    model: Tokenizer | ImageGenerator,
    plans: Sequence[Plan],
    precision: Precision,
    winograd: bool,
    folder: Path,
) -> Manifest:
    """Writes the graphs and their manifest."""
    tokenizer = tokenizer_of(model)
    manifest = Manifest(
        package=mergevq.__version__,
        precision=precision,
        winograd=winograd,
        opset=OPSET,
        tokenizer=tokenizer.config,
        generator=model.model.config if isinstance(model, ImageGenerator) else None,
        fingerprint=fingerprint(tokenizer),
        axes=_axes(tokenizer),
        graphs=tuple(plan.spec for plan in plans),
        versions={name: version(name) for name in ("torch", "onnx", "onnxscript")},
    )
    notes = {
        "mergevq": manifest.package,
        "precision": precision,
        "tokenizer": manifest.fingerprint,
    }
    weights = SharedWeights(folder)
    for plan in plans:
        with reference_only():
            graph = traced(plan, manifest.axes, precision)
        write_graph(
            graph,
            plan.spec,
            weights,
            {**notes, "role": plan.spec.role},
            winograd=winograd,
            int8=precision == "int8" and plan.spec.role in QUANTISED,
        )
    if isinstance(model, ImageGenerator) and model.kind == "rand_ar":
        positions, labels = model.model.layout_positions, model.model.layout_labels
        write_layouts(folder, positions.cpu().numpy(), labels.cpu().numpy())
    manifest = replace(manifest, files={path.name: entry(path) for path in sorted(folder.iterdir())})
    (folder / MANIFEST).write_text(json.dumps(to_json(manifest), indent=1) + "\n", encoding="utf-8")
    return manifest


def _axes(tokenizer: Tokenizer) -> Axes:
    """The ranges of the axes with names."""
    return {
        "batch": (1, None),
        "keep": (1, tokenizer.config.length),
        "tokens": (1, None),
        "past": (1, None),
    }


def _check_replaceable(out: Path) -> None:
    """Raises OutputError where something would be lost with a folder that is replaced."""
    if not out.exists():
        return
    if out == Path.cwd():
        raise OutputError(
            f"{out} is the folder that this runs in and cannot be replaced; give another folder"
        )
    others = (
        sorted({path.name for path in out.iterdir()} - exported_names(out)) if out.is_dir() else [out.name]
    )
    if others:
        raise OutputError(
            f"{out} exists and is not an exported model alone: {others[0]} would be lost; give another folder"
        )

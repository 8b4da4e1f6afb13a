"""What a folder of graphs says about itself: manifest.json, its reader, and the check of the files by their hashes.

Needs neither PyTorch nor onnx. The file holds the whole configuration of the model, every graph with its inputs and
outputs, the SHA-256 of every file, and, for readers without this package, how pictures and codes are laid out. Its
last key is the SHA-256 of all others, so that a file that was edited or cut off is found out. That is no signature:
whoever edits it can hash it again, so types, ranges and how all of it fits together are checked as well.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from mergevq.config import TokenizerConfig, from_dict, to_dict
from mergevq.errors import CheckpointError, MergeVQError
from mergevq.export import schema
from mergevq.export.placing import put_back
from mergevq.export.specs import GraphSpec, Role, TensorSpec, all_specs
from mergevq.generator_config import GeneratorConfig
from mergevq.storage.documents import DocumentError, read_json
from mergevq.storage.files import expanded, sha256

MANIFEST = "manifest.json"
VERIFICATION = "verify.json"
ENGINES = "engines"
"""The folder of engines within that of the graphs."""
FORMAT = "mergevq-onnx"
SCHEMA = 2

Precision = Literal["fp32", "fp16", "int8"]
Axes = Mapping[str, tuple[int, int | None]]

_CHECK = {
    "graph": schema.text(),
    "name": schema.text(),
    "passed": schema.flag,
    "worst": schema.text("(?s).*"),
}
_VERDICT = schema.record(
    {
        "passed": schema.flag,
        "manifest": schema.text(),
        "provider": schema.text(),
        "checks": schema.listed(
            schema.record({**_CHECK, "value": schema.anything, "limit": schema.anything})
        ),
        "versions": schema.table(r".{1,200}", schema.text()),
        "seconds": schema.real,
    },
    may_lack=("versions", "seconds"),
)
"""Of verify.json."""

_PLAIN_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}"
_MOST = 2**40


@dataclass(frozen=True, kw_only=True, slots=True)
class FileEntry:
    """A file of the folder."""

    sha256: str
    bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """A folder of graphs."""

    package: str
    """Version of mergevq that made it."""
    precision: Precision
    """Of the computation inside the graphs; what goes in and out is float32, int64 or bool."""
    winograd: bool = False
    """Whether convolutions of many channels are computed with fewer multiplications, as suits CPUs."""
    opset: int
    tokenizer: TokenizerConfig
    generator: GeneratorConfig | None = None
    """None where the folder holds a tokenizer alone."""
    fingerprint: str
    """Of the tokenizer whose codes these are, as in token files."""
    axes: Axes
    """The least and the greatest length of every axis with a name; None is no limit."""
    graphs: tuple[GraphSpec, ...]
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    """Every file but manifest.json and verify.json, by name."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of the packages that made the graphs."""

    @property
    def kind(self) -> str:
        """tokenizer or generator."""
        return "tokenizer" if self.generator is None else "generator"

    @property
    def arithmetic(self) -> str:
        """The precision, and what else is special about how the graphs compute."""
        return f"{self.precision} with Winograd's convolutions" if self.winograd else self.precision

    @property
    def keeps(self) -> list[int]:
        """The kept counts that there is an encoder for; empty where the encoder takes any, or there is none."""
        return sorted(graph.keep for graph in self.graphs if graph.keep is not None)

    def graph(self, role: Role, keep: int | None = None, part: int | None = None) -> GraphSpec:
        """The graph of a role, of a kept count for a fixed encoder, of a sub-code for a head.

        Raises:
            CheckpointError: the folder has none.
        """
        for graph in self.graphs:
            if (graph.role, graph.keep, graph.part) == (role, keep, part):
                return graph
        what = role + (f" of {keep} tokens" if keep else "") + ("" if part is None else f" {part}")
        raise CheckpointError(
            f"the folder has no graph of the {what}; it has {', '.join(graph.file for graph in self.graphs)}"
        )


def to_json(manifest: Manifest) -> dict[str, Any]:
    """The content of manifest.json, its own hash last."""
    values: dict[str, Any] = {"format": FORMAT, "schema": SCHEMA, "kind": manifest.kind}
    for item in dataclasses.fields(manifest):
        values[item.name] = _plain(getattr(manifest, item.name))
    values["image"] = _image_layout(manifest.tokenizer)
    values["codes"] = _code_layout(manifest)
    values["merging"] = _merging(manifest)
    return {**values, "sha256": _digest(values)}


def read_manifest(folder: str | Path) -> Manifest:
    """The manifest of a folder.

    Raises:
        CheckpointError: there is none, it was edited or cut off, or another version of the package wrote it.
    """
    path = expanded(folder) / MANIFEST
    if not path.parent.exists():
        put_back(path.parent)
    values = _read_json(path)
    if values.get("format") != FORMAT:
        raise CheckpointError(f"{path} does not describe graphs of a mergevq model")
    if values.get("schema") != SCHEMA:
        raise CheckpointError(
            f"{path} has schema {values.get('schema')!r} and this version of mergevq reads {SCHEMA}; export again"
        )
    stated = values.pop("sha256", None)
    if stated != _digest(values):
        raise CheckpointError(f"{path} was changed after it was written; export again")
    try:
        return _from_json(values)
    except (MergeVQError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} cannot be understood: {error}; export again") from error


def exported_names(folder: str | Path) -> set[str]:
    """The names in a folder that are of an export and its engines; none where its manifest is not one's.

    Folders that another version of the package wrote count.
    """
    try:
        values = _read_json(expanded(folder) / MANIFEST)
    except CheckpointError:
        return set()
    if values.get("format") != FORMAT or not isinstance(values.get("files"), dict):
        return set()
    return {MANIFEST, VERIFICATION, ENGINES, *values["files"]}


def digest_of(folder: str | Path) -> str:
    """The hash by which verify.json says which manifest it speaks of."""
    return str(_read_json(expanded(folder) / MANIFEST).get("sha256"))


def read_verification(folder: str | Path, digest: str | None = None) -> dict[str, Any] | None:
    """The content of verify.json; None where there is none, or it speaks of something else.

    Args:
        folder: that holds it.
        digest: of what it is to speak of; by default of the folder's manifest.

    Raises:
        CheckpointError: it cannot be read.
    """
    path = expanded(folder) / VERIFICATION
    if not path.is_file():
        return None
    remedy = "`mergevq export verify` writes it anew"
    found = _read_json(path, remedy)
    if found.get("manifest") != (digest or digest_of(folder)):
        return None
    try:
        _VERDICT(found, "")
    except ValueError as error:
        raise CheckpointError(f"{path} is no report of a verification: {error}; {remedy}") from error
    return found


def check_files(folder: str | Path, manifest: Manifest, names: Iterable[str] | None = None) -> None:
    """Makes sure that files are the ones that the manifest describes.

    Args:
        folder: of the manifest.
        manifest: what `read_manifest` gives.
        names: of files; by default all.

    Raises:
        CheckpointError: one is missing, truncated or another.
    """
    for name in manifest.files if names is None else names:
        path, entry = expanded(folder) / name, manifest.files[name]
        if not path.is_file():
            raise CheckpointError(f"{path} is missing; export again, or copy the whole folder")
        size = path.stat().st_size
        if size != entry.bytes:
            raise CheckpointError(f"{path} has {size} bytes and should have {entry.bytes}; copy it again")
        if sha256(path) != entry.sha256:
            raise CheckpointError(f"{path} is not the file that {MANIFEST} describes; copy it again")


def files_of(manifest: Manifest, graph: GraphSpec) -> list[str]:
    """The names of a graph's files: the graph, and the weights that it shares where they stand apart."""
    return [name for name in (graph.file, graph.data) if name in manifest.files]


def entry(path: Path) -> FileEntry:
    """How a file is recorded."""
    return FileEntry(sha256=sha256(path), bytes=path.stat().st_size)


def _image_layout(config: TokenizerConfig) -> dict[str, Any]:
    return {
        "size": config.image_size,
        "grid": [config.grid, config.grid],
        "layout": "NCHW",
        "channels": "RGB",
        "range": [-1.0, 1.0],
        "from_uint8": "value / 127.5 - 1",
        "orientation": "upright, as EXIF has it",
        "transparency": "over white",
        "sixteen_bits": "value / 257 to 8 bits, rounded",
        "resize": "bicubic, short side to size, middle cut out",
    }


def _code_layout(manifest: Manifest) -> dict[str, Any]:
    layout: dict[str, Any] = {
        "bits": manifest.tokenizer.quantizer.bits,
        "order": "bit i of an index, from the lowest, is dimension i; 1 is a positive value",
    }
    if manifest.generator is not None:
        layout["split"] = list(manifest.generator.split)
        layout["split_order"] = "bits of each sub-code, lowest bits first"
    return layout


def _merging(manifest: Manifest) -> dict[str, Any]:
    config = manifest.tokenizer
    return {
        "positions": config.length,
        "keep": config.merge.keep,
        "exported": manifest.keeps,
        "schedule": config.merge.schedule,
        "blocks": config.encoder.depth,
        "order": "tokens stand in raster order of the first position that each covers",
        "left": "an encoder for any kept count is told how many of the positions are left after each block",
    }


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {key: _plain(part) for key, part in to_dict(value).items()}
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return value


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _read_json(path: Path, remedy: str = "export again") -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"{path.parent} is not an exported model: it has no {path.name}")
    try:
        values = read_json(path)
    except DocumentError as error:
        raise CheckpointError(f"{path} cannot be read: {error}; {remedy}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} does not describe graphs of a mergevq model")
    return values


def _from_json(values: Mapping[str, Any]) -> Manifest:
    _KNOWN(values, "")
    generator = values["generator"]
    manifest = Manifest(
        package=values["package"],
        precision=values["precision"],
        winograd=values.get("winograd", False),  # folders older than the choice have none
        opset=values["opset"],
        tokenizer=from_dict(TokenizerConfig, values["tokenizer"]),
        generator=None if generator is None else from_dict(GeneratorConfig, generator),
        fingerprint=values["fingerprint"],
        axes={name: (least, most) for name, (least, most) in values["axes"].items()},
        graphs=tuple(_graph(each) for each in values["graphs"]),
        files={name: FileEntry(**each) for name, each in values["files"].items()},
        versions=values["versions"],
    )
    _check_consistent(manifest, values)
    return manifest


def _axis(value: Any, where: str) -> None:
    """The least and the greatest length."""
    schema.listed(schema.optional(schema.whole(0, _MOST)))(value, where)
    if len(value) != 2 or value[0] is None or (value[1] is not None and value[1] < value[0]):
        raise ValueError(f"{where} is {value}; the least length and the greatest, or null, are wanted there")


def _dimension(value: Any, where: str) -> None:
    """A length, or the name of an axis."""
    (schema.text(r"[a-z]+( \+ [a-z]+)?") if isinstance(value, str) else schema.whole(0, _MOST))(value, where)


_TENSOR = schema.record(
    {
        "name": schema.text(r"[a-z]+(\.\d+\.[a-z]+)?"),
        "dtype": schema.choice("float32", "int64", "bool"),
        "shape": schema.listed(_dimension),
    }
)
_GRAPH = schema.record(
    {
        "file": schema.text(_PLAIN_NAME),
        "role": schema.choice(*get_args(Role)),
        "inputs": schema.listed(_TENSOR),
        "outputs": schema.listed(_TENSOR),
        "keep": schema.optional(schema.whole(1, _MOST)),
        "part": schema.optional(schema.whole(0, 64)),
    }
)
_FILE = schema.record({"sha256": schema.text(r"[0-9a-f]{64}"), "bytes": schema.whole(0, 2**60)})
_FOR_OTHERS = dict.fromkeys(("format", "schema", "kind", "image", "codes", "merging"), schema.anything)
_KNOWN = schema.record(
    {
        **_FOR_OTHERS,
        "package": schema.text(),
        "precision": schema.choice(*get_args(Precision)),
        "winograd": schema.flag,
        "opset": schema.whole(1, 1000),
        "tokenizer": schema.table(r"\w+", schema.anything),
        "generator": schema.optional(schema.table(r"\w+", schema.anything)),
        "fingerprint": schema.text(r"[0-9a-f]{64}"),
        "axes": schema.table("[a-z]+", _axis),
        "graphs": schema.listed(_GRAPH),
        "files": schema.table(_PLAIN_NAME, _FILE),
        "versions": schema.table(_PLAIN_NAME, schema.text()),
    },
    may_lack=("winograd",),
)


def _check_consistent(manifest: Manifest, values: Mapping[str, Any]) -> None:
    """Makes sure that what is said of graphs and pictures is what the configuration makes of them."""
    keeps = [keep for keep in manifest.keeps if keep <= manifest.tokenizer.length]
    known = {spec.file: spec for spec in all_specs(manifest.tokenizer, manifest.generator, keeps)}
    for graph in manifest.graphs:
        if graph.file not in manifest.files:
            raise ValueError(f"the graph {graph.file!r} is not one of its files")
        if known.get(graph.file) != graph:
            raise ValueError(f"the graph {graph.file!r} does not fit the configuration")
    derived = to_json(manifest)
    for part in ("image", "codes", "merging"):
        for name, value in derived[part].items():
            stated = values[part].get(name, value) if isinstance(values[part], Mapping) else None
            if not isinstance(value, str) and stated != value:
                raise ValueError(f"{part}.{name} is not that of the configuration, {value}")


def _graph(values: Mapping[str, Any]) -> GraphSpec:
    def tensors(listed: Iterable[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(**{**each, "shape": tuple(each["shape"])}) for each in listed)

    return GraphSpec(**{**values, "inputs": tensors(values["inputs"]), "outputs": tensors(values["outputs"])})

"""What an engine is, in a JSON file beside it, and whether it can be used here: found out before it is opened.

An engine is machine code of one version of TensorRT for certain cards. The libraries themselves answer another one
with an error code at best.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mergevq.documents import read_json
from mergevq.errors import UnusableExportError
from mergevq.export import schema
from mergevq.export.engines.flavors import FLAVORS, Flavor, Toolkit
from mergevq.export.engines.ranges import InputProfile
from mergevq.export.manifest import FileEntry, GraphSpec, Manifest, entry, files_of

FORMAT = "mergevq-engine"
SCHEMA = 1
"""Of this description and of how engines are built; part of their keys."""
SUFFIX = ".engine"

_BUILD = "build it again with `mergevq export engine`"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sidecar:
    """An engine."""

    graph: str
    """File of the graph."""
    files: Mapping[str, str]
    """SHA-256 of the graph's files by name."""
    flavor: Flavor
    version: str
    targets: tuple[str, ...]
    """Compute capabilities that it runs on."""
    tf32: bool
    profiles: tuple[InputProfile, ...]
    driver: int | None = None
    """Major version of CUDA of the driver, for a flavour that builds on the card; else None."""
    file: str = ""
    """Of the engine."""
    engine: FileEntry | None = None
    """Size and hash of the engine."""
    seconds: float = 0.0
    """That building it took."""

    @property
    def key(self) -> str:
        """SHA-256 of all that decides what the engine is; one of the same key need not be built again."""
        values = {"schema": SCHEMA, **asdict(self)}
        for name in ("file", "engine", "seconds"):
            del values[name]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    def write(self, path: Path) -> None:
        """Writes the file."""
        values = {"format": FORMAT, "schema": SCHEMA, "key": self.key, **asdict(self)}
        path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def read_sidecar(path: Path) -> Sidecar:
    """A file that `write` wrote.

    Raises:
        UnusableExportError: it is another, cut off or changed.
    """
    try:
        values: Any = read_json(path)
        stated_form = [values.get(name) for name in ("format", "schema")] if isinstance(values, dict) else []
        if stated_form != [FORMAT, SCHEMA]:
            raise ValueError("another version of mergevq wrote it")
        _KNOWN(values, "")
        stated = [values.pop(name) for name in ("format", "schema", "key")]
        profiles = tuple(_profile(each) for each in values.pop("profiles"))
        engine, targets = FileEntry(**values.pop("engine")), tuple(values.pop("targets"))
        found = Sidecar(**values, targets=targets, profiles=profiles, engine=engine)
        if found.key != stated[2] or Path(found.file).name != found.file:
            raise ValueError("it was changed")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnusableExportError(f"{path} does not describe an engine ({error}); {_BUILD}") from error
    return found


def sidecar_path(engine: Path) -> Path:
    """Where the description of an engine is."""
    return engine.with_name(f"{engine.name}.json")


def read_sidecars(folder: Path) -> list[Sidecar]:
    """All of a folder of engines, by name; none where there is no folder.

    Raises:
        UnusableExportError: one cannot be read.
    """
    return [read_sidecar(path) for path in sorted(folder.glob(f"*{SUFFIX}.json"))] if folder.is_dir() else []


def graph_files(manifest: Manifest, graph: GraphSpec) -> dict[str, str]:
    """The SHA-256 of a graph's files by name."""
    return {name: manifest.files[name].sha256 for name in files_of(manifest, graph)}


def check_usable(sidecar: Sidecar, manifest: Manifest, toolkit: Toolkit, card: str) -> None:
    """Makes sure that an engine is of the graph, of the version and for the card that are there.

    Args:
        sidecar: of the engine.
        manifest: of the graphs.
        toolkit: the flavour that is to run it.
        card: compute capability of the card, "8.6" say.

    Raises:
        UnusableExportError: it is not.
    """
    what = f"the engine {sidecar.file}"
    check_of_graph(sidecar, manifest)
    if sidecar.version != toolkit.version:
        raise UnusableExportError(
            f"{what} was built by {sidecar.flavor} {sidecar.version}, and {toolkit.version} is installed, which "
            f"cannot run it; {_BUILD}"
        )
    if card not in sidecar.targets:
        raise UnusableExportError(
            f"{what} was built for cards of compute capability {', '.join(sidecar.targets)}, and this one has "
            f"{card}; {_other_card(toolkit, card)}"
        )


def check_engine_file(sidecar: Sidecar, folder: Path) -> None:
    """Makes sure that an engine is the one that was built.

    Raises:
        UnusableExportError: it is missing, truncated or another.
    """
    path = folder / sidecar.file
    if not path.is_file():
        raise UnusableExportError(f"{path} is missing; {_BUILD}")
    found = entry(path)
    if sidecar.engine is None or found.bytes != sidecar.engine.bytes:
        wanted = "none" if sidecar.engine is None else sidecar.engine.bytes
        raise UnusableExportError(f"{path} has {found.bytes} bytes and should have {wanted}; {_BUILD}")
    if found.sha256 != sidecar.engine.sha256:
        raise UnusableExportError(f"{path} is not the engine that was built; {_BUILD}")


def check_of_graph(sidecar: Sidecar, manifest: Manifest) -> None:
    """Makes sure that an engine was built from a graph that a manifest describes.

    Raises:
        UnusableExportError: it was not.
    """
    for graph in manifest.graphs:
        if graph.file == sidecar.graph and graph_files(manifest, graph) == sidecar.files:
            return
    raise UnusableExportError(f"the engine {sidecar.file} was built from another {sidecar.graph}; {_BUILD}")


_LENGTHS = schema.listed(schema.whole(0, 2**40))
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}"
_HASH = schema.text(r"[0-9a-f]{64}")
_PROFILE = {"name": schema.text(), "values": schema.flag} | dict.fromkeys(
    ("least", "usual", "most"), _LENGTHS
)
_KNOWN = schema.record(
    {
        "format": schema.anything,
        "schema": schema.anything,
        "key": schema.text(),
        "graph": schema.text(_NAME),
        "files": schema.table(_NAME, _HASH),
        "flavor": schema.choice(*FLAVORS),
        "version": schema.text(),
        "targets": schema.listed(schema.text(r"\d+\.\d+")),
        "tf32": schema.flag,
        "profiles": schema.listed(schema.record(_PROFILE)),
        "driver": schema.optional(schema.whole(0, 10**6)),
        "file": schema.text(_NAME),
        "engine": schema.record({"sha256": _HASH, "bytes": schema.whole(0, 2**60)}),
        "seconds": schema.real,
    }
)


def _profile(values: Mapping[str, Any]) -> InputProfile:
    lengths = {name: tuple(values[name]) for name in ("least", "usual", "most")}
    for least, usual, most in zip(*lengths.values(), strict=True):
        if not least <= usual <= most:
            raise ValueError(f"the profile of {values['name']} does not ascend")
    return InputProfile(name=values["name"], values=values["values"], **lengths)


def _other_card(toolkit: Toolkit, card: str) -> str:
    known = toolkit.targets
    if known and card not in known:
        return f"{toolkit.name} builds for {', '.join(known)} alone: use tensorrt or ONNX Runtime"
    return _BUILD

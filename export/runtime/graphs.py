"""What runs the graphs of a folder, whichever library does it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mergevq.export.manifest import Manifest, Role


class Graphs(Protocol):
    """Runs graphs by what they are for.

    Attributes:
        folder: of the export.
        manifest: what the folder says of itself.
        verification: the content of verify.json; None where there is none of this manifest.
        provider: where the graphs run, by name.
    """

    folder: Path
    manifest: Manifest
    verification: dict[str, Any] | None
    provider: str

    def run(
        self,
        role: Role,
        inputs: Mapping[str, np.ndarray],
        *,
        keep: int | None = None,
        part: int | None = None,
    ) -> dict[str, np.ndarray]:
        """The outputs of a graph by name.

        Args:
            role: of the graph.
            inputs: by name; what the graph does not take is left out.
            keep: of an encoder made for one kept count.
            part: of a head.

        Raises:
            ExportError: it fails on these inputs.
            UnusableExportError, DeviceUnavailableError: the graph cannot be opened, or not there.
        """

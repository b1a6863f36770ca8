from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes

class Figure:
    axes: list[Axes]
    def __init__(self, *, figsize: tuple[float, float], layout: str) -> None: ...
    def subplots(
        self, nrows: int, ncols: int, *, squeeze: bool, gridspec_kw: Mapping[str, object]
    ) -> object: ...
    def savefig(
        self, fname: Path, *, dpi: float, metadata: Mapping[str, str | None] | None
    ) -> None: ...

from collections.abc import Sequence

class BarContainer: ...

class Axes:
    def barh(
        self,
        y: Sequence[str],
        width: Sequence[float],
        *,
        xerr: Sequence[Sequence[float]],
        color: Sequence[str],
        ecolor: str,
        capsize: float,
    ) -> BarContainer: ...
    def bar_label(
        self,
        container: BarContainer,
        labels: Sequence[str],
        *,
        padding: float,
        fontsize: float,
        color: str,
    ) -> object: ...
    def hlines(
        self,
        y: Sequence[str],
        xmin: Sequence[float],
        xmax: Sequence[float],
        *,
        color: Sequence[str],
        linewidth: float,
    ) -> object: ...
    def margins(self, *, x: float) -> object: ...
    def plot(
        self,
        x: Sequence[float],
        y: Sequence[str],
        fmt: str,
        *,
        label: str,
        color: str,
        markersize: float,
    ) -> object: ...
    def grid(self, *, visible: bool, axis: str, alpha: float) -> None: ...
    def invert_yaxis(self) -> None: ...
    def legend(
        self, *, ncols: int, frameon: bool, loc: str, bbox_to_anchor: tuple[float, float]
    ) -> object: ...
    def set_axisbelow(self, b: bool) -> None: ...
    def set_title(self, label: str, *, loc: str) -> object: ...
    def set_xlabel(self, xlabel: str) -> object: ...
    def set_xscale(self, value: str) -> None: ...

"""How many leases a handle has out: what decides whether its next one may have to wait."""

__all__ = ["LeaseCount"]


class LeaseCount:
    """
    The leases of one handle; false while there are none.

    Attributes:
        out_count: How many are out. A driver that leases counts here; others never do.
    """

    __slots__ = ("out_count",)

    def __init__(self) -> None:
        self.out_count = 0

    def __bool__(self) -> bool:
        return self.out_count > 0

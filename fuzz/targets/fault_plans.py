"""Fault plans as text: any text is read or refused; what was read is written and read the same."""

from uringio.testing._faults import plan_of, plan_text


def run(data: bytes) -> None:
    try:
        plan = plan_of(data.decode("latin-1"))
    except ValueError:
        return
    assert plan_of(plan_text(plan)) == plan

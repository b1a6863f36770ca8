"""`import uringio` is cheap because it is small: it loads nothing that a program may not need."""

from tests.fresh import FreshPython

HEAVY = ("asyncio", "h11", "ssl", "attr", "attrs")


def test_import_loads_nothing_heavy(fresh_python: FreshPython) -> None:
    """A bare import leaves event loops, protocols, TLS and class builders unloaded."""
    run = fresh_python(
        f"""
        import sys
        before = set(sys.modules)
        import uringio
        loaded = set(sys.modules) - before
        print(sorted(loaded & set({HEAVY!r})))
        print("uringio" in loaded)
        """
    )
    assert run.stdout.splitlines() == ["[]", "True"], run.stderr


def test_every_exported_name_can_be_had_after_the_bare_import(fresh_python: FreshPython) -> None:
    """Names that are loaded late are still found, and none loads asyncio."""
    run = fresh_python(
        """
        import sys
        import uringio
        for name in uringio.__all__:
            getattr(uringio, name)
        print("asyncio" in sys.modules and not any("aio" == n for n in uringio.__all__))
        """
    )
    assert run.stdout.split() == ["False"], run.stderr


def test_the_probe_is_loaded_when_it_is_asked_for(fresh_python: FreshPython) -> None:
    """`uringio.probe` is a function, found by name, by `from` and by `dir`, and costs nothing."""
    run = fresh_python(
        """
        import sys
        import uringio
        rooms = ("uringio.probing", "uringio.lowlevel._opcodes", "platform")
        print([one for one in rooms if one in sys.modules], "probe" in dir(uringio))
        from uringio import probe
        print(probe is uringio.probe, callable(probe), "uringio.probing" in sys.modules)
        try:
            uringio.prob
        except AttributeError as error:
            print(error)
        """
    )
    assert run.check().stdout.splitlines() == [
        "[] True",
        "True True True",
        "module 'uringio' has no attribute 'prob'",
    ]

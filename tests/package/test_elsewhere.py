"""
Systems that are not at hand, played in fresh interpreters on Linux; see `elsewhere`.

What is proved: nothing of Linux is looked up when the package is imported, what differs between
systems is theirs, and the drivers run with their numbers and structures.  What is not: that a
kernel of theirs answers as these do.
"""

import sys
from pathlib import Path

import pytest

from tests.fresh import FreshPython
from tests.package.elsewhere import SYSTEMS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it is played by Linux")

HEAD = (Path(__file__).parent / "elsewhere.py").read_text(encoding="utf-8")

IMPORTING = """
import importlib, io, contextlib, pkgutil
try:
    import hypothesis  # which is not ours, and asks more of the system
except ImportError:
    pass
import asyncio  # likewise

system = pretend(sys.argv[1])
import uringio
for module in pkgutil.walk_packages(uringio.__path__, "uringio."):
    # Programs are started, not imported, and those that `uringio bench` compares need rivals.
    programs = ("__main__", ".bench.servers.", ".bench.programs.")
    if not any(part in module.name for part in programs):
        importlib.import_module(module.name)
for name in dir(uringio):
    getattr(uringio, name)
for name in dir(uringio.lowlevel):
    getattr(uringio.lowlevel, name)

from uringio._sys import kqueue, libc, numbers
from uringio._sys.system import real_system
layout = kqueue.layout_of(sys.platform, os.uname().release)
assert layout.size == system.kevent_bytes, layout
assert (
    numbers.AT_FDCWD, numbers.AT_SYMLINK_NOFOLLOW, numbers.AT_SYMLINK_FOLLOW, numbers.AT_REMOVEDIR
) == system.at
for name, number in system.numbers.items():
    assert getattr(numbers, name, number) == number, name
for name in system.lacking.get("socket", []):
    assert getattr(numbers, name, 0) in {0, -1}, name
assert real_system().native_poller == "kqueue"
assert real_system().io_uring_setup(8, 0) == -errno.ENOSYS  # that number is another call there
assert real_system().bare_syscall(426, 0, 0, 0, 0, None, None) == -1
assert libc.Libc().epoll_create1(0) == -errno.ENOSYS
for refused in (uringio.lowlevel.Epoll, lambda: uringio.lowlevel.Ring(8)):
    try:
        refused()
    except (uringio.RingError, uringio.UnsupportedError):
        pass
    else:
        raise AssertionError(f"{refused} works")
"""

CHOOSING = """
system = pretend(sys.argv[1])
translate(system)
import contextlib, io, json
import uringio
from uringio import aio
from uringio._driver import current
from uringio.cli import main as command

async def main():
    await uringio.sleep(0)
    return current.driver()

for driver in uringio.run(main), aio.run(main()):
    assert driver.name == "kqueue", driver.name
    assert driver.refusal.errno == errno.ENOSYS
assert uringio.run(main, backend="poll").name == "poll"
for backend in ("uring", "epoll"):
    try:
        uringio.run(main, backend=backend)
    except (uringio.RingError, uringio.UnsupportedError) as error:
        assert "Linux" in str(error), error
    else:
        raise AssertionError(f"{backend} works")
with contextlib.redirect_stdout(io.StringIO()) as out:
    assert command(["probe", "--json"]) == 1
found = json.loads(out.getvalue())
assert (found["backend"], found["works"]) == ("kqueue", False)
assert found["refusal"]["cause"] == "absent"
assert found["refusal"]["remedies"] == []
assert "Only Linux has io_uring" in found["refusal"]["explanation"], found["refusal"]
with contextlib.redirect_stdout(io.StringIO()) as out:
    assert command(["probe"]) == 1
assert "Programs run on kqueue instead" in out.getvalue(), out.getvalue()
assert "epoll" not in out.getvalue(), out.getvalue()
assert os.uname().sysname in out.getvalue(), out.getvalue()
"""

RUNNING = """
system = pretend(sys.argv[1])
translate(system)
import asyncio, socket, stat
import uringio
from uringio import aio, fs
from uringio.net.options import SO_MARK, SO_REUSEPORT
from uringio._driver import current

top = sys.argv[2]

async def echo(stream):
    async with stream:
        while data := await stream.recv():
            await stream.send_all(data)

async def streams():
    assert current.driver().name == "kqueue"
    for host in ("127.0.0.1", "::1")[: 1 + int(sys.argv[3])]:
        async with await uringio.listen_tcp(host, 0) as listener, uringio.TaskGroup() as group:
            port = listener.local_address[1]
            async with await uringio.connect_tcp(host, port) as client:
                accepted = await listener.accept()
                assert not os.get_inheritable(accepted.fileno())
                assert not os.get_blocking(accepted.fileno())
                assert accepted.remote_address == client.local_address, accepted.remote_address
                group.start_soon(echo, accepted)
                for size in (1, 70_000, 2_000_000):
                    await client.send_all(bytes(size))
                    assert await client.recv_exactly(size) == bytes(size)
                with uringio.move_on_after(0.001) as scope:
                    await client.recv()
                assert scope.cancelled_caught
                assert SO_REUSEPORT.get(client) in (False, True)
                try:
                    SO_MARK.get(client)
                except OSError as error:
                    assert error.errno == errno.ENOPROTOOPT
                else:
                    raise AssertionError("SO_MARK is Linux's")
    try:
        await uringio.connect_tcp("127.0.0.1", port)
    except ConnectionRefusedError:
        pass
    else:
        raise AssertionError("somebody listens")

async def messages():
    path = top + "/socket"
    async with await uringio.listen_unix(path) as listener:
        assert listener.local_address == path
        async with await uringio.connect_unix(path) as client, await listener.accept() as server:
            with open(top + "/passed", "w+b") as file:
                file.write(b"by descriptor")
                file.flush()
                await client.sendmsg([b"he", b"re"], fds=[file.fileno()])
            message = await server.recvmsg(100)
            assert message.data == b"here"
            [passed] = message.fds
            number = passed.fileno()
            assert not os.get_inheritable(number)
            assert os.pread(number, 100, 0) == b"by descriptor"
            passed.close()
    try:
        await uringio.listen_unix(b"\\0abstract")
    except ValueError as error:
        assert "Linux" in str(error)
    else:
        raise AssertionError("there is no abstract namespace")
    async with (
        await uringio.open_udp(("127.0.0.1", 0)) as one,
        await uringio.open_udp(("127.0.0.1", 0)) as other,
    ):
        await one.send_to(b"datagram", other.local_address)
        data, sender = await other.recv_from(100)
        assert (data, sender) == (b"datagram", one.local_address), (data, sender)
        await one.send_to(b"too long", other.local_address)
        assert (await other.recvmsg(3)).truncated

async def names():
    await fs.mkdir(top + "/d")
    async with await uringio.open_file(top + "/d/a", "w+b") as file:
        await file.write_all(b"content")
        await file.fsync()
        assert await file.read_at(3, 100) == b"tent"
        status = await file.stat()
        assert tuple(status) == tuple(os.stat(top + "/d/a")), status
        assert status.st_mtime_ns == os.stat(top + "/d/a").st_mtime_ns
        assert status.st_dev == os.stat(top + "/d/a").st_dev
    await fs.rename(top + "/d/a", top + "/d/b")
    await fs.link(top + "/d/b", top + "/d/c")
    await fs.symlink("c", top + "/d/s")
    await fs.link(top + "/d/s", top + "/d/t", follow_symlinks=True)
    assert stat.S_ISLNK((await fs.stat(top + "/d/s", follow_symlinks=False)).st_mode)
    assert (await fs.stat(top + "/d/s")).st_nlink == 3
    await fs.copy_tree(top + "/d", top + "/e")
    await fs.copy(top + "/d/b", top + "/e/copy")
    async with (
        await uringio.open_file(top + "/e", flags=os.O_DIRECTORY) as folder,
        await uringio.files.open_beneath(folder, "copy") as file,
    ):
        assert await file.read_all() == b"content"
    for name in ("b", "c", "s", "t"):
        await fs.unlink(top + "/d/" + name)
    await fs.rmdir(top + "/d")
    try:
        await fs.stat(top + "/d")
    except FileNotFoundError:
        pass
    else:
        raise AssertionError("it is there still")

for program in (streams, messages, names):
    uringio.run(program)

async def on_asyncio():
    async def serve(reader, writer):
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
    writer.write(b"line\\n")
    assert await reader.read() == b"line\\n"
    writer.close()
    server.close()
    loop = asyncio.get_running_loop()
    got = loop.create_future()

    class Once(asyncio.DatagramProtocol):
        def datagram_received(self, data, address):
            got.done() or got.set_result((data, address))

    one, _ = await loop.create_datagram_endpoint(Once, ("127.0.0.1", 0))
    other, _ = await loop.create_datagram_endpoint(Once, ("127.0.0.1", 0))
    for _ in range(3):
        one.sendto(b"datagram", other.get_extra_info("sockname"))
    assert await got == (b"datagram", one.get_extra_info("sockname")), got
    one.close()
    other.close()
    assert type(asyncio.get_running_loop()).__module__.startswith("uringio")

aio.run(on_asyncio())
assert mistakes == [], mistakes
"""


@pytest.mark.parametrize("system", sorted(SYSTEMS))
def test_everything_can_be_imported(fresh_python: FreshPython, system: str) -> None:
    """Every module and public name, with Linux's names hidden; the right layouts and numbers."""
    fresh_python(HEAD + IMPORTING, system).check()


@pytest.mark.parametrize("system", ["darwin", "openbsd7"])
def test_kqueue_is_chosen(fresh_python: FreshPython, system: str) -> None:
    """By both schedulers; the probe says why, and advises nothing that cannot help."""
    fresh_python(HEAD + CHOOSING, system).check()


@pytest.mark.parametrize("system", ["darwin", "freebsd14", "openbsd7"])
def test_programs_run(fresh_python: FreshPython, system: str, tmp_path: Path) -> None:
    """Streams, messages, files and asyncio's streams, by the system's numbers and structures."""
    has_ipv6 = Path("/proc/net/if_inet6").exists()
    fresh_python(HEAD + RUNNING, system, str(tmp_path), str(int(has_ipv6))).check()


SERVING = """
import http.client, re, threading
system = pretend(sys.argv[1])
translate(system)
from uringio.cli import main as command

reading, writing = os.pipe()
os.dup2(writing, 1)
answers = []

def visit():
    try:
        line = os.read(reading, 1000).decode()
        answers.append(line)
        client = http.client.HTTPConnection("127.0.0.1", int(re.search(r":([0-9]+)/", line)[1]))
        for target in ("/a.bin", "/"):
            client.request("GET", target)
            with client.getresponse() as response:
                answers.append((response.status, response.read()))
        client.close()
    finally:
        os.kill(os.getpid(), signal.SIGTERM)

visitor = threading.Thread(target=visit)
visitor.start()
assert command(["serve", sys.argv[2], "--port", "0", "--quiet"]) == 0
visitor.join()
line, (status, body), (listed, page) = answers
assert " (kqueue); " in line, line
assert (status, body) == (200, bytes(300_000))
assert listed == 200 and b"a.bin" in page
assert mistakes == [], mistakes
"""


@pytest.mark.parametrize("system", ["darwin", "freebsd14"])
def test_a_folder_is_served(fresh_python: FreshPython, system: str, tmp_path: Path) -> None:
    """The server serves and ends in order, and has nothing to say about io_uring."""
    (tmp_path / "a.bin").write_bytes(bytes(300_000))
    fresh_python(HEAD + SERVING, system, str(tmp_path)).check()

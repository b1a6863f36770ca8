"""The seam to the kernel, against the real one."""

import errno
import gc
import os
import select
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel import uring_refusal
from uringio._driver.draining import Drain
from uringio._sys import constants as k
from uringio._sys.layouts import PARAMS
from uringio._sys.memory import Memory, pin
from uringio._sys.system import Mapping, System, real_system
from uringio.errors import OpError

MAPS = Path("/proc/self/maps")
FDS = Path("/proc/self/fd")

SO_PEEK_OFF = 42  # which any user may set, to any number; the socket module lacks its name


@pytest.fixture(scope="module")
def system() -> System:
    return System()


@pytest.fixture
def fds(system: System) -> Iterator[list[int]]:
    """A list whose descriptors are closed at the end."""
    opened: list[int] = []
    yield opened
    for fd in opened:
        assert system.close(fd) == 0


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


# --- one per process -----------------------------------------------------------------------------


def test_real_system_is_one() -> None:
    """Everybody gets the same."""
    assert real_system() is real_system()


def test_processor_is_known_to_keep_order_or_not(system: System) -> None:
    """The two common machines are told apart; an unknown one counts as reordering."""
    machine = os.uname().machine
    known = {"x86_64": True, "aarch64": False}
    assert system.total_store_order == known.get(machine, system.total_store_order)


# --- sockets -------------------------------------------------------------------------------------


def test_socket_is_closed_on_exec_and_blocking_as_told(system: System, fds: list[int]) -> None:
    """Only what was asked for is set, and a child process inherits nothing."""
    fds.append(system.socket(system.AF_INET, system.SOCK_STREAM))
    fds.append(system.socket(system.AF_INET, system.SOCK_STREAM | system.SOCK_NONBLOCK))
    assert [os.get_inheritable(fd) for fd in fds] == [False, False]
    assert [os.get_blocking(fd) for fd in fds] == [True, False]
    system.set_blocking(fds[0], False)
    system.set_blocking(fds[1], True)
    assert [os.get_blocking(fd) for fd in fds] == [False, True]


@pytest.mark.parametrize(
    ("family", "host"), [(System.AF_INET, "127.0.0.1"), (System.AF_INET6, "::1")]
)
def test_tcp_from_socket_to_last_byte(
    system: System, fds: list[int], family: int, host: str
) -> None:
    """Bind, listen, connect, accept, names of both ends, send, receive, end: over addresses."""
    listener = system.socket(family, system.SOCK_STREAM)
    fds.append(listener)
    try:
        system.bind(listener, family, (host, 0))
    except OpError as refusal:
        pytest.skip(str(refusal))
    system.listen(listener, 8)
    name = system.getsockname(listener)
    assert name[0] == host
    assert int(name[1]) > 0

    client = system.socket(family, system.SOCK_STREAM)
    fds.append(client)
    addr, len_bytes, _keep = pin(system.pack_sockaddr(family, name))
    assert system.connect(client, addr, len_bytes) == 0

    memory = Memory(4096)
    memory.view[128:132] = k.SIZEOF_SOCKADDR_STORAGE.to_bytes(4, "little")
    server = system.accept(
        listener, memory.addr, memory.addr + 128, system.SOCK_CLOEXEC | system.SOCK_NONBLOCK
    )
    assert server >= 0
    fds.append(server)
    assert not os.get_inheritable(server)
    assert not os.get_blocking(server)
    peer = system.unpack_sockaddr(bytes(memory.view[: memory.view[128]]))
    assert peer == system.getsockname(client) == system.getpeername(server)
    assert system.getpeername(client) == system.getsockname(server) == name

    data, count, _keep_data = pin(b"over the wire")
    assert system.send(client, data, count, 0) == count
    assert system.recv(server, memory.addr, 4096, 0) == count
    assert bytes(memory.view[:count]) == b"over the wire"
    assert system.recv(server, memory.addr, 4096, 0) == -errno.EAGAIN
    assert system.shutdown(client, 1) == 0
    assert system.recv(server, memory.addr, 4096, 0) == 0


def test_bytes_are_sent_through_the_bare_door(system: System, fds: list[int]) -> None:
    """The quick way to send and read moves the same bytes, and fails by -1 and errno."""
    left, right = (one.detach() for one in socket.socketpair())
    fds += [left, right]
    assert system.bare_send(left, b"a\0b", 3, 0) == 3
    assert system.read_bytes(right, 100) == b"a\0b"
    assert system.bare_send(-1, b"x", 1, 0) == -1
    assert system.get_errno() == errno.EBADF


def test_datagrams_go_through_the_bare_door(system: System, fds: list[int]) -> None:
    """Datagrams go to an address and to the connected peer, and come with their sender's."""
    one, other = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    one.bind(("127.0.0.1", 0))
    other.bind(("127.0.0.1", 0))
    name = system.pack_sockaddr(system.AF_INET, one.getsockname())
    own = system.pack_sockaddr(system.AF_INET, other.getsockname())
    other.connect(one.getsockname())
    fds += [one.detach(), other.detach()]
    left, right = fds[-2:]
    drain = Drain(system, 100)
    assert system.bare_send_to(right, b"a\0b", 3, 0, None, 0) == 3
    assert system.bare_send_to(right, b"", 0, 0, name, len(name)) == 0
    assert drain.take(left) == (b"a\0b", own)
    assert drain.take(left) == (b"", own)
    assert drain.take(left) == -errno.EAGAIN
    assert drain.take(-1) == -errno.EBADF
    assert system.bare_send_to(-1, b"x", 1, 0, name, len(name)) == -1
    assert system.get_errno() == errno.EBADF


def test_a_borrowed_socket_stays_its_owners(system: System, fds: list[int]) -> None:
    """What sends on a number waits for nothing, whatever the default says, and closes nothing."""
    left, right = (one.detach() for one in socket.socketpair())
    fds += [left, right]
    os.set_blocking(left, False)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(50.0)
    try:
        send = system.sender(left)
    finally:
        socket.setdefaulttimeout(before)
    assert send is not None
    assert send(b"a\0b", socket.MSG_NOSIGNAL) == 3
    assert os.read(right, 10) == b"a\0b"
    with pytest.raises(BlockingIOError):
        while True:
            send(bytes(65536), socket.MSG_NOSIGNAL)
    del send
    gc.collect()
    assert stat.S_ISSOCK(os.fstat(left).st_mode)
    read_end, write_end = os.pipe()
    fds += [read_end, write_end]
    assert system.sender(write_end) is None
    assert system.sender(-1) is None


def test_accept_answers_that_nobody_waits(system: System, fds: list[int]) -> None:
    """An attempt returns -errno; it raises nothing."""
    fds.append(system.socket(system.AF_INET, system.SOCK_STREAM | system.SOCK_NONBLOCK))
    system.bind(fds[0], system.AF_INET, ("127.0.0.1", 0))
    assert system.accept(fds[0], 0, 0, 0) == -errno.EINVAL
    system.listen(fds[0], 1)
    assert system.accept(fds[0], 0, 0, 0) == -errno.EAGAIN


def test_unix_socket_names(system: System, fds: list[int], tmp_path: Path) -> None:
    """A path, an abstract name with NULs, a chosen name, and no name at all come back as such."""
    names: list[str | bytes] = [str(tmp_path / "socket"), b"\0%d \0 name\0" % os.getpid()]
    for name in names:
        fds.append(system.socket(system.AF_UNIX, system.SOCK_STREAM))
        assert system.getsockname(fds[-1]) == ""
        system.bind(fds[-1], system.AF_UNIX, name)
        assert system.getsockname(fds[-1]) == name
    chosen = []
    for _ in range(2):
        fds.append(system.socket(system.AF_UNIX, system.SOCK_STREAM))
        system.bind(fds[-1], system.AF_UNIX, "")
        chosen.append(system.getsockname(fds[-1]))
    assert all(isinstance(name, bytes) and name.startswith(b"\0") for name in chosen)
    assert chosen[0] != chosen[1]


def test_longest_unix_path_comes_back_whole(
    system: System, fds: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """107 bytes of path fit, and the kernel's answer is not cut."""
    monkeypatch.chdir(tmp_path)
    fds.append(system.socket(system.AF_UNIX, system.SOCK_STREAM))
    system.bind(fds[0], system.AF_UNIX, "s" * 107)
    assert system.getsockname(fds[0]) == "s" * 107
    assert (tmp_path / ("s" * 107)).is_socket()


@pytest.mark.parametrize("value", [1, 0, 70_000, -1])
def test_socket_options_travel_as_int(system: System, fds: list[int], value: int) -> None:
    """A C int in both directions, negative ones too."""
    fds.append(system.socket(system.AF_UNIX, system.SOCK_STREAM))
    system.setsockopt(fds[0], socket.SOL_SOCKET, SO_PEEK_OFF, value)
    assert system.getsockopt(fds[0], socket.SOL_SOCKET, SO_PEEK_OFF) == value


def test_socket_options_travel_as_bytes(system: System, fds: list[int]) -> None:
    """A structure, such as SO_LINGER's, is passed as it is."""
    fds.append(system.socket(system.AF_INET, system.SOCK_STREAM))
    linger = (1).to_bytes(4, "little") + (7).to_bytes(4, "little")
    system.setsockopt(fds[0], socket.SOL_SOCKET, socket.SO_LINGER, linger)
    with socket.socket(fileno=os.dup(fds[0])) as one:
        assert one.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == linger


def test_refusals_name_the_call_and_its_object(system: System, fds: list[int]) -> None:
    """A control call raises the fitting builtin error, with operation and descriptor."""
    fds.append(system.socket(system.AF_INET, system.SOCK_STREAM))
    with pytest.raises(OpError, match=r"192\.0\.2\.1") as refused:
        system.bind(fds[0], system.AF_INET, ("192.0.2.1", 9))
    assert (refused.value.errno, refused.value.op, refused.value.fd) == (
        errno.EADDRNOTAVAIL,
        "bind",
        fds[0],
    )
    with pytest.raises(OpError) as refused:
        system.getpeername(fds[0])
    assert (refused.value.errno, refused.value.op) == (errno.ENOTCONN, "getpeername")
    with pytest.raises(OpError, match="level 77, option 99"):
        system.setsockopt(fds[0], 77, 99, 1)
    with pytest.raises(OpError) as refused:
        system.getsockopt(fds[0], 77, 99)
    assert refused.value.op == "getsockopt"
    with pytest.raises(OpError) as refused:
        system.listen(-1, 1)
    assert refused.value.errno == errno.EBADF
    with pytest.raises(OpError) as refused:
        system.socket(-1, 1)
    assert refused.value.op == "socket"
    with pytest.raises(OpError) as refused:
        system.set_blocking(-1, True)
    assert refused.value.errno == errno.EBADF
    with pytest.raises(OpError) as refused:
        system.fstat(-1)
    assert (refused.value.op, refused.value.fd) == ("fstat", -1)


def test_stale_sockets_are_removed_and_nothing_else(system: System, tmp_path: Path) -> None:
    """A socket file goes; a plain file, a folder, a missing or an abstract name do not matter."""
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))
    assert system.socket_inode(str(path)) == path.stat().st_ino
    system.remove_stale_socket(str(path))
    assert not path.exists()
    assert system.socket_inode(str(path)) == 0
    system.remove_stale_socket(str(path))
    plain = tmp_path / "plain"
    plain.write_bytes(b"keep")
    for name in (str(plain), os.fsencode(plain), str(tmp_path), b"\0abstract"):
        assert system.socket_inode(name) == 0
        system.remove_stale_socket(name)
    assert plain.read_bytes() == b"keep"


# --- names ---------------------------------------------------------------------------------------


def test_numeric_names_resolve_without_help(system: System) -> None:
    """Family, kind, protocol and address, ready for the other calls."""
    found = system.getaddrinfo("127.0.0.1", 80, system.SOCK_STREAM)
    assert found == [(system.AF_INET, system.SOCK_STREAM, socket.IPPROTO_TCP, ("127.0.0.1", 80))]
    for family, _, _, address in found:
        assert system.unpack_sockaddr(system.pack_sockaddr(family, address)) == address


def test_no_name_means_loopback(system: System) -> None:
    """Each address can be packed for its family."""
    found = system.getaddrinfo(None, 80, system.SOCK_STREAM)
    assert found
    for family, kind, _, address in found:
        assert kind == system.SOCK_STREAM
        assert system.unpack_sockaddr(system.pack_sockaddr(family, address)) == address


def test_unknown_name_is_an_oserror(system: System) -> None:
    """A name that no resolver may know (RFC 6761) is refused as the standard library does it."""
    with pytest.raises(socket.gaierror):
        system.getaddrinfo("name.invalid", 80, system.SOCK_STREAM)


# --- descriptors ---------------------------------------------------------------------------------


def test_pipe_poke_and_drain(system: System, fds: list[int]) -> None:
    """Any number of pokes is taken by one drain, an empty or full pipe blocks neither."""
    read_fd, write_fd = system.pipe()
    fds += [read_fd, write_fd]
    assert not os.get_inheritable(read_fd)
    assert not os.get_inheritable(write_fd)
    system.drain(read_fd)
    for count in (1, 3, 4096, 10_000):
        for _ in range(count):
            system.poke(write_fd)
        assert select.select([read_fd], [], [], 0)[0] == [read_fd]
        system.drain(read_fd)
        assert select.select([read_fd], [], [], 0)[0] == []
    for _ in range(70_000):  # more than the 64 KiB that a pipe holds
        system.poke(write_fd)
    system.drain(read_fd)
    assert select.select([read_fd], [], [], 0)[0] == []


def test_drain_ends_with_the_pipe(system: System, fds: list[int]) -> None:
    """A pipe whose writer has gone has nothing to drain, for ever."""
    read_fd, write_fd = system.pipe()
    fds.append(read_fd)
    system.poke(write_fd)
    assert system.close(write_fd) == 0
    system.drain(read_fd)
    system.drain(read_fd)


def test_files_by_address_and_offset(system: System, fds: list[int], tmp_path: Path) -> None:
    """Open, write, synchronise, read back and look, each an attempt that answers -errno."""
    dir_fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    fds.append(dir_fd)
    assert system.open_at(dir_fd, b"file", os.O_RDONLY, 0) == -errno.ENOENT
    fd = system.open_at(dir_fd, b"file", os.O_RDWR | os.O_CREAT, 0o640)
    assert fd >= 0
    fds.append(fd)
    full = os.fsencode(tmp_path / "file")
    by_path = system.open_at(k.AT_FDCWD, full, os.O_RDONLY, 0)
    assert by_path >= 0
    fds.append(by_path)
    memory = Memory(4096)
    memory.view[:4] = b"text"
    assert system.pwrite(fd, memory.addr, 4, 10) == 4
    assert system.fsync(fd, False) == system.fsync(fd, True) == 0
    assert system.fsync(-1, False) == -errno.EBADF
    assert system.pread(by_path, memory.addr + 100, 10, 8) == 6
    assert bytes(memory.view[100:106]) == b"\0\0text"
    assert system.preadv(by_path, [memory.view[200:204]], 10, 0) == 4
    assert bytes(memory.view[200:204]) == b"text"
    assert system.pwritev(by_path, [memory.view[:4]], 0, 0) == -errno.EBADF
    found = system.fstat(fd)
    assert (found.st_size, stat.S_IMODE(found.st_mode) & ~0o640) == (14, 0)


def test_poll_says_what_holds_now(system: System, fds: list[int]) -> None:
    """Nothing, readable, hung up, or no such descriptor: without waiting."""
    read_fd, write_fd = system.pipe()
    fds.append(read_fd)
    assert system.poll_fd(read_fd, select.POLLIN) == 0
    system.poke(write_fd)
    assert system.poll_fd(read_fd, select.POLLIN) == select.POLLIN
    system.close(write_fd)
    assert system.poll_fd(read_fd, select.POLLIN) & select.POLLHUP
    assert system.poll_fd(-1, select.POLLIN) == select.POLLNVAL
    assert system.poll_fd(write_fd, select.POLLIN) == select.POLLNVAL


def test_epoll_is_closed_on_exec(system: System) -> None:
    """A child process does not inherit the interest list."""
    with system.epoll() as poller:
        assert not os.get_inheritable(poller.fileno())


def test_thread_runs(system: System) -> None:
    """The function runs, in another thread than this one."""
    seen: list[int] = []
    done = threading.Event()

    def note() -> None:
        seen.append(threading.get_ident())
        done.set()

    system.start_thread(note)
    assert done.wait(50)
    assert seen != [threading.get_ident()]


# --- mappings ------------------------------------------------------------------------------------


@pytest.fixture
def ring_fd(system: System) -> Iterator[tuple[int, tuple[int, ...]]]:
    """A ring's descriptor and what the kernel said of it."""
    if refusal := uring_refusal():
        pytest.skip(refusal)
    params = bytearray(k.SIZEOF_PARAMS)
    addr, _, _keep = pin(params, writable=True)
    fd = system.io_uring_setup(4, addr)
    assert fd >= 0
    yield fd, PARAMS.unpack(params)
    assert system.close(fd) == 0


def count_ring_mappings() -> int:
    return MAPS.read_text().count("[io_uring]")


def test_setup_answers_the_errno(system: System) -> None:
    """Neither a bad size nor a bad address raises."""
    if refusal := uring_refusal():
        pytest.skip(refusal)
    params = bytearray(k.SIZEOF_PARAMS)
    addr, _, _keep = pin(params, writable=True)
    assert system.io_uring_setup(0, addr) == -errno.EINVAL
    assert system.io_uring_setup(4, 0) == -errno.EFAULT
    assert system.io_uring_register(1 << 20, k.IORING_UNREGISTER_FILES, 0, 0) == -errno.EBADF


def test_mapping_is_unmapped_once(system: System, ring_fd: tuple[int, tuple[int, ...]]) -> None:
    """The range goes back at the first call; the second leaves whatever is there now alone."""
    fd, _ = ring_fd
    before = count_ring_mappings()
    mapping = system.map_ring(fd, k.IORING_OFF_SQES, 4 * k.SIZEOF_SQE)
    assert count_ring_mappings() == before + 1
    mapping.view[:4] = b"\1\2\3\4"
    assert bytes(system.memory_at(mapping.addr, 4)) == b"\1\2\3\4"
    mapping.unmap()
    assert count_ring_mappings() == before
    again = system.map_ring(fd, k.IORING_OFF_SQES, 4 * k.SIZEOF_SQE)
    mapping.unmap()
    assert count_ring_mappings() == before + 1
    again.unmap()
    assert count_ring_mappings() == before


def test_mapping_does_not_hold_the_descriptor(
    system: System, ring_fd: tuple[int, tuple[int, ...]]
) -> None:
    """No second descriptor appears, as the standard library's mmap would make."""
    fd, _ = ring_fd
    before = set(FDS.iterdir())
    mapping = system.map_ring(fd, k.IORING_OFF_SQES, 4 * k.SIZEOF_SQE)
    assert set(FDS.iterdir()) == before
    assert isinstance(mapping, Mapping)
    mapping.unmap()
    assert is_open(fd)


def test_refused_mapping_says_so(system: System, ring_fd: tuple[int, tuple[int, ...]]) -> None:
    """An offset that no ring has is the kernel's error, not an address."""
    fd, _ = ring_fd
    with pytest.raises(OpError, match="mmap") as refused:
        system.map_ring(fd, 0x7000_0000, 4096)
    assert refused.value.fd == fd


def test_allocated_memory_is_the_kernels_to_use(system: System, fds: list[int]) -> None:
    """A read into it by address is seen through its view."""
    read_fd, write_fd = system.pipe()
    fds += [read_fd, write_fd]
    memory = system.allocate(10_000)
    os.write(write_fd, b"from the kernel")
    assert system.read(read_fd, memory.addr + 4090, 100) == 15
    assert bytes(memory.view[4090:4105]) == b"from the kernel"

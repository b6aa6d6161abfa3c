"""Each fault that a machine can have is planted, found, and named with what helps."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import webbrowser
from pathlib import Path

import pytest

from lora_course.classroom import room
from lora_course.classroom.preflight import findings, machine
from lora_course.classroom.preflight.machine import GIB


def refuse(number: int):
    def refused(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return refused


def taken(*ports: int):
    def take(port: int) -> None:
        if port in ports:
            refuse(errno.EADDRINUSE)()

    return take


def no_browser() -> None:
    raise webbrowser.Error("could not locate runnable browser")


WELL = {
    "python": lambda: machine.check_python((3, 12, 1)),
    "linux": lambda: machine.check_platform("Linux", "x86_64", libc=("glibc", "2.31")),
    "windows": lambda: machine.check_platform("Windows", "AMD64"),
    "mac": lambda: machine.check_platform("Darwin", "arm64", release="15.1"),
    "memory": lambda: machine.check_memory(int(7.6 * GIB), room.KERNEL),
    "a hub's container": lambda: machine.check_memory(4 * GIB, 4 * GIB, limit=4 * GIB),
    "a limit above what is there": lambda: machine.check_memory(8 * GIB, 4 * GIB, limit=64 * GIB),
    "disk": lambda: machine.check_disk(5 * GIB, "/home"),
    "path": lambda: machine.check_path("C:\\lora-lab", system="Windows"),
    "long path, Windows set to it": lambda: machine.check_path("C:\\" + "a" * 200, system="Windows", long_paths=True),
    "beside a renamed onedrive": lambda: machine.check_path(
        "D:\\Skylab", system="Windows", environment={"OneDrive": "D:\\Sky"}
    ),
    "long path elsewhere": lambda: machine.check_path("/home/" + "a" * 200, system="Linux"),
    "browser": lambda: machine.check_browser(lambda: None),
}

FAULTS = {
    "old python": (lambda: machine.check_python((3, 9, 2)), "too old", "install Python 3.11"),
    "new python": (lambda: machine.check_python((3, 15, 0)), "no wheel", "install Python 3.11"),
    "32 bits": (lambda: machine.check_python((3, 11, 0), 32), "32 bits", "64 bits"),
    "pypy": (lambda: machine.check_python((3, 11, 0), 64, "PyPy"), "PyPy", "install Python"),
    "intel mac": (lambda: machine.check_platform("Darwin", "x86_64", release="14.2"), "Intel Macs", "Binder"),
    "rosetta": (
        lambda: machine.check_platform("Darwin", "x86_64", release="14.2", translated=True),
        "Intel Python",
        "Python for Apple silicon",
    ),
    "old mac": (lambda: machine.check_platform("Darwin", "arm64", release="12.7"), "macOS 14", "update macOS"),
    "arm windows": (lambda: machine.check_platform("Windows", "ARM64"), "ARM64", "another machine"),
    "alpine": (lambda: machine.check_platform("Linux", "x86_64", libc=("", "")), "no glibc", "not Alpine"),
    "old linux": (lambda: machine.check_platform("Linux", "x86_64", libc=("glibc", "2.17")), "2.28", "2019"),
    "little memory": (lambda: machine.check_memory(4 * GIB, 3 * GIB), "4.0 GiB", "share a machine"),
    "full memory": (lambda: machine.check_memory(16 * GIB, GIB), "1.0 free", "close other programs"),
    "memory for most lessons": (
        lambda: machine.check_memory(8 * GIB, room.KERNEL - 1),
        "3.3 must be free",
        "close other programs",
    ),
    "little in a container": (
        lambda: machine.check_memory(2 * GIB, 2 * GIB, limit=2 * GIB),
        "2.0 GiB is the limit of this container, and 3.7 are needed",
        "ask for a larger limit",
    ),
    "little below a limit": (lambda: machine.check_memory(4 * GIB, 4 * GIB, limit=64 * GIB), "8 GB", "share a machine"),
    "no disk": (lambda: machine.check_disk(GIB // 2, "/home"), "0.5 GiB free", "free 3.5 GiB more"),
    "read-only home": (
        lambda: machine.check_writable(Path("/home/ann"), refuse(errno.EROFS)),
        "Read-only file system",
        "a folder of your own",
    ),
    "onedrive": (
        lambda: machine.check_path("C:\\Users\\Ann\\OneDrive - School\\lab", system="Windows"),
        "synchronised (onedrive)",
        "C:\\lora-lab",
    ),
    "renamed onedrive": (
        lambda: machine.check_path("D:\\Sky\\lab", system="Windows", environment={"OneDriveCommercial": "d:\\sky"}),
        "synchronised",
        "move it out",
    ),
    "icloud": (
        lambda: machine.check_path("/Users/ann/Library/Mobile Documents/lab", system="Darwin"),
        "mobile documents",
        "move it out",
    ),
    "long path": (lambda: machine.check_path("C:\\" + "a" * 100, system="Windows"), "260", "at most 90 letters"),
    "port taken": (lambda: machine.check_port(8888, taken(8888)), "in use", "--port 8889"),
    "several ports taken": (lambda: machine.check_port(8888, taken(8888, 8889)), "in use", "--port 8890"),
    "all ports taken": (lambda: machine.check_port(8888, refuse(errno.EADDRINUSE)), "none of the next 49", "--port"),
    "firewall": (lambda: machine.check_port(8888, call=refuse(errno.ECONNREFUSED)), "cannot call itself", "firewall"),
    "no browser": (lambda: machine.check_browser(no_browser), "none", "--no-browser"),
}


@pytest.mark.parametrize("what", WELL)
def test_a_machine_that_is_well_is_green(what: str):
    finding = WELL[what]()
    assert finding.green, finding
    assert not finding.remedy


@pytest.mark.parametrize("what", FAULTS)
def test_a_planted_fault_is_found_and_its_remedy_named(what: str):
    check, found, remedy = FAULTS[what]
    finding = check()
    assert not finding.green
    assert finding.in_the_way == (what not in ("port taken", "several ports taken"))
    assert found in finding.found
    assert remedy in finding.remedy


def test_what_must_be_free_is_what_a_lesson_may_take():
    assert machine.NEEDED_FREE_MEMORY == room.KERNEL < machine.NEEDED_LIMIT  # beside Jupyter's server, in a container


def test_what_nobody_tells_is_not_called_a_fault():
    assert machine.check_memory(None, None).green


def test_a_folder_that_cannot_be_made_is_found_for_real(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    assert machine.check_writable(tmp_path / "new" / "folder").green
    assert not (tmp_path / "new").exists()  # looking leaves nothing behind
    if os.path.isdir("/proc/self"):
        assert not machine.check_writable(Path("/proc/self/lab")).green  # root too may not write there


def test_a_port_that_is_taken_is_found_for_real_and_looking_leaves_it_free():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        found = machine.check_port(port)
        assert not found.green
        assert "takes the next one by itself" in found.remedy
        assert findings.words([found]).startswith("(!)")  # nothing has to be done, so the machine is ready
        assert findings.letter([found], "1", "today")["green"]
    assert machine.check_port(port).green
    assert machine.check_port(port).green


def test_a_containers_limit_counts_and_no_limit_does_not(tmp_path: Path):
    (tmp_path / "memory.max").write_text("2147483648\n")
    assert machine.container_limit(tmp_path) == 2 * GIB
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.container_limit(tmp_path) is None


def test_what_a_containers_programs_hold_is_not_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert machine.container_use(tmp_path) == 0
    (tmp_path / "memory.stat").write_text(f"anon {GIB}\nfile {3 * GIB}\nshmem {GIB // 2}\n")
    assert machine.container_use(tmp_path) == 1.5 * GIB
    (tmp_path / "old" / "memory").mkdir(parents=True)
    (tmp_path / "old" / "memory" / "memory.stat").write_text(f"rss 5\ntotal_rss {GIB}\n")
    assert machine.container_use(tmp_path / "old") == GIB
    monkeypatch.setattr(machine, "container_limit", lambda: 4 * 10**6)  # less than any machine has
    monkeypatch.setattr(machine, "container_use", lambda: 3 * 10**6)
    assert machine.memory() == (4 * 10**6, 10**6)


def test_every_kind_of_thing_is_looked_at(tmp_path: Path):
    names = [finding.name for finding in machine.look(tmp_path, tmp_path)]
    assert names == ["python", "platform", "memory", "disk", "write", "path", "port", "browser"]
    assert len(machine.look(tmp_path, tmp_path / "assets")) == len(names) + 2  # the disk and the right to write there


def test_it_runs_with_the_standard_library_alone(tmp_path: Path):
    code = "from pathlib import Path; from lora_course.classroom.preflight.machine import look; look(Path(), Path())"
    root = str(Path(__file__).parents[4])
    alone = [sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, {root!r}); {code}"]
    done = subprocess.run(alone, cwd=tmp_path, capture_output=True, text=True, env={"PATH": os.environ["PATH"]})
    assert done.returncode == 0, done.stderr

"""Emulators that a user registers, and images for several platforms beside each other.

The kernel's registrations are those of the whole machine: the tests use an architecture that
nothing else here needs, and leave what they find.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge.profile import emulator
from isula_edge.profile.profile import Profile, all_profiles, load, named

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.rig import Engine

pytestmark = [pytest.mark.root, pytest.mark.lxc, pytest.mark.qemu]

TOP = Path(__file__).parents[2]
# nobody else's on either of the machines that run these tests
ARCH = "riscv64"
HERE = load().architecture


def profile() -> Profile:
    found = named(ARCH)
    assert found is not None
    return found


def entries() -> list[emulator.Entry]:
    """What the kernel has for it."""
    program = emulator.sample(profile())
    return [found for found in emulator.entries(disabled=True) if found.matches(program)]


def write(name: str, text: str) -> None:
    with open(f"{emulator.BINFMT}/{name}", "wb", buffering=0) as file:
        file.write(text.encode())


def register(name: str, path: str, flags: str) -> None:
    """As somebody else does it."""
    parts = ("".join(f"\\x{byte:02x}" for byte in part) for part in emulator.pattern(profile()))
    write("register", f":{name}:M::{':'.join(parts)}:{path}:{flags}")


def clear() -> None:
    for found in entries():
        write(found.name, "-1")


@pytest.fixture
def unregistered() -> Iterator[None]:
    """Nothing is registered for the architecture, before and after."""
    if os.path.exists(f"{emulator.BINFMT}/status"):
        clear()
    yield
    clear()


@pytest.fixture(scope="module")
def foreign() -> Path:
    """An archive of busybox:latest for the architecture."""
    folder = TOP / "build/images-riscv64"
    folder.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "ci/images", str(folder), "-a", ARCH]
    subprocess.run(words, check=True, cwd=TOP)
    return folder / "docker.tar"


@pytest.fixture
def both(engine: Engine, foreign: Path) -> Iterator[Engine]:
    """An engine with busybox for this machine and for the architecture."""
    engine.ok("load", "-i", str(foreign))
    yield engine
    engine.remove_containers()
    engine.ok("rmi", "--platform", ARCH, "busybox")


def row(engine: Engine, arch: str = ARCH) -> dict[str, Any]:
    lines = engine.ok("emulator", "ls", "--format", "json").splitlines()
    found: dict[str, Any] = next(one for one in map(json.loads, lines) if one["arch"] == arch)
    return found


@pytest.mark.usefixtures("unregistered")
def test_an_emulator_comes_and_goes(engine: Engine) -> None:
    assert row(engine)["state"] == "available"
    assert row(engine, HERE)["state"] == "native"
    assert ARCH not in engine.ok("emulator", "ls", "-q").split()
    path = os.path.realpath(shutil.which("qemu-riscv64-static") or "")
    assert engine.ok("emulator", "install", ARCH) == f"{ARCH}: {path} registered"
    (found,) = entries()
    assert (found.name, found.path, found.flags) == ("qemu-riscv64", path, "OCF")
    assert (row(engine)["state"], row(engine)["path"]) == ("registered", path)
    assert {ARCH, HERE} <= set(engine.ok("emulator", "ls", "-q").split())
    assert f"Emulator: {ARCH} ({path})" in engine.ok("info")
    # again, by another word
    assert engine.ok("emulator", "install", f"linux/{ARCH}").endswith("is registered already")
    assert engine.ok("emulator", "install", "-q", ARCH) == ""
    assert engine.ok("emulator", "rm", ARCH) == f"{ARCH}: qemu-riscv64 is registered no more"
    assert entries() == []
    gone = engine.isula("emulator", "rm", ARCH)
    assert gone.code == 1
    assert f"no emulator is registered for {ARCH}" in gone.err


@pytest.mark.usefixtures("unregistered")
def test_somebody_elses_without_the_flag_goes_by_force_only(engine: Engine) -> None:
    path = shutil.which("qemu-riscv64-static") or ""
    assert engine.ok("info").count(f"Emulator: {ARCH}") == 0
    register("theirs", path, "OC")
    assert "without flag F" in row(engine)["reason"]
    assert f"Emulator: {ARCH} ({path}, without flag F" in engine.ok("info")
    refused = engine.isula("emulator", "install", ARCH)
    assert refused.code == 1
    assert "theirs was registered by somebody else without the flag F" in refused.err
    assert "--force" in refused.err
    assert [found.name for found in entries()] == ["theirs"]
    engine.ok("emulator", "install", "--force", ARCH)
    assert [(found.name, found.flags) for found in entries()] == [("qemu-riscv64", "OCF")]


@pytest.mark.usefixtures("unregistered")
def test_somebody_elses_with_the_flag_is_as_good(engine: Engine, both: Engine) -> None:
    register("theirs", shutil.which("qemu-riscv64-static") or "", "F")
    assert engine.ok("emulator", "install", ARCH).endswith("is registered already")
    assert [found.name for found in entries()] == ["theirs"]
    assert both.ok("run", "--rm", "--platform", ARCH, "busybox", "uname", "-m") == ARCH


@pytest.mark.usefixtures("unregistered")
def test_one_that_is_switched_off_is_switched_on(engine: Engine) -> None:
    register("qemu-riscv64", shutil.which("qemu-riscv64-static") or "", "OCF")
    write("qemu-riscv64", "0")
    assert row(engine)["state"] == "available"
    assert engine.ok("emulator", "install", ARCH).endswith(" registered")
    assert [(found.name, found.enabled) for found in entries()] == [("qemu-riscv64", True)]


def test_what_cannot_be_installed(engine: Engine) -> None:
    for words, code, text in (
        ((), 1, "requires at least 1 argument"),
        (("all", ARCH), 1, "all stands alone"),
        ((HERE,), 1, f"this machine runs programs for {HERE} itself"),
        (("s390x",), 1, "no profile for architecture s390x"),
        (("a/b/c/d",), 1, "Invalid platform"),
    ):
        result = engine.isula("emulator", "install", *words)
        assert result.code == code
        assert text in result.err
    # one that is wrong holds up no other
    result = engine.isula("emulator", "install", "s390x", HERE)
    assert (result.code, result.err.count("Error response")) == (1, 2)


def test_all_are_those_that_are_installed(engine: Engine) -> None:
    before = {entry.name for entry in emulator.entries()}
    try:
        out = engine.ok("emulator", "install", "all")
        expected = {item.architecture for item in all_profiles() if item.elf not in load().native}
        assert {line.partition(":")[0] for line in out.splitlines()} == expected
        assert expected <= set(engine.ok("emulator", "ls", "-q").split())
    finally:
        # those of other architectures stay: somebody may have begun to use them by now
        if "qemu-riscv64" not in before:
            clear()
        if "qemu-arm" not in before:
            with contextlib.suppress(OSError):
                write("qemu-arm", "-1")


@pytest.mark.usefixtures("unregistered")
def test_without_an_emulator_it_is_said_what_to_do(both: Engine, runtime: str) -> None:
    words = ("run", "--rm", "--runtime", runtime, "--platform", ARCH, "busybox", "uname", "-m")
    refused = both.isula(*words)
    assert refused.code == 126
    assert "is a program for riscv (64 bit)" in refused.err
    assert f"isula emulator install {ARCH}" in refused.err
    both.ok("emulator", "install", ARCH)
    assert both.ok(*words) == ARCH


@pytest.mark.usefixtures("unregistered")
def test_containers_of_an_architecture_that_is_one_folder(both: Engine, runtime: str) -> None:
    both.ok("emulator", "install", ARCH)
    words = ("--runtime", runtime, "--platform", f"linux/{ARCH}", "busybox")
    assert both.ok("run", "--rm", *words, "uname", "-m") == ARCH
    assert both.isula("run", "--rm", *words, "sh", "-c", "exit 42").code == 42
    script = 'tty; echo "$$"; exit 7'
    terminal = both.isula("run", "--rm", "-t", *words, "sh", "-c", script)
    assert (terminal.code, terminal.out.split()) == (7, ["/dev/pts/0", "1"])
    both.ok("run", "-d", "--name", "other", *words, "sleep", "1000")
    assert both.ok("exec", "other", "uname", "-m") == ARCH
    # the registration's own copy of the emulator goes on when that is taken back
    both.ok("emulator", "rm", ARCH)
    assert both.ok("ps", "-q") != ""


def test_a_name_has_an_image_for_each_platform(both: Engine) -> None:
    listed = [line.split() for line in both.ok("images").splitlines()]
    assert listed[0][-1] == "PLATFORM"
    rows = {line[-1]: line[2] for line in listed[1:] if line[:2] == ["busybox", "latest"]}
    assert {word.split("/")[1] for word in rows} == {HERE, ARCH}
    # without a platform it is this machine's
    for words, architecture in (
        ((), HERE),
        (("--platform", f"linux/{HERE}"), HERE),
        (("--platform", ARCH), ARCH),
    ):
        template = ("-f", "{{.image.architecture}}")
        assert both.ok("inspect", *template, *words, "busybox") == architecture
    absent = both.isula("inspect", "--platform", "linux/s390x", "busybox")
    assert "for linux/s390x" in absent.err
    assert f"linux/{ARCH}" in absent.err
    assert both.image(rows[f"linux/{ARCH}"])["architecture"] == ARCH
    # what is started of it, says so
    warned = both.isula("create", "--name", "foreign", rows[f"linux/{ARCH}"])
    assert f"The image is for linux/{ARCH}" in warned.err
    quiet = both.isula("create", "--name", "asked", "--platform", ARCH, "busybox")
    assert (quiet.code, quiet.err) == (0, "")


def test_each_platform_is_saved_and_loaded_alone(both: Engine, tmp_path: Path) -> None:
    for platform in (HERE, ARCH):
        both.ok("save", "-o", f"{tmp_path}/{platform}.tar", "--platform", platform, "busybox")
    both.ok("tag", "busybox", "copy:v1")
    ids = set(both.ok("images", "-q", "--filter", "reference=copy:v1").split())
    assert len(ids) == 2
    # of a name all go, or one
    both.ok("rmi", "--platform", ARCH, "copy:v1")
    assert both.image("copy:v1")["architecture"] == HERE
    both.ok("rmi", "copy:v1")
    assert both.isula("inspect", "copy:v1").code == 1
    both.ok("rmi", "--platform", ARCH, "busybox")
    assert "PLATFORM" not in both.ok("images")
    both.ok("load", "-i", f"{tmp_path}/{ARCH}.tar")
    both.ok("load", "-i", f"{tmp_path}/{HERE}.tar")
    assert both.ok("images").count(f"linux/{ARCH}") == 1
    assert both.image("busybox")["architecture"] == HERE


def test_nothing_goes_while_a_container_needs_one_of_them(both: Engine) -> None:
    both.ok("create", "--name", "user", "--platform", ARCH, "busybox")
    both.ok("tag", "busybox", "other:v1")
    both.ok("rmi", "other:v1")
    refused = both.isula("rmi", "--platform", ARCH, "busybox")
    assert refused.code == 1
    assert "Image used by" in refused.err
    assert both.ok("images").count("busybox") == 2

"""Case A31k: a program for another processor is refused before it starts, with what to do."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from typing import TYPE_CHECKING

import pytest

from isula_edge import errors
from isula_edge.profile import elf
from isula_edge.profile.profile import load
from tests.fakes.images import FakeImage, FakeLayer, docker_archive, make_image
from tests.unit.profile import elves

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.rig import Engine

OCI_TAR = "application/vnd.oci.image.layer.v1.tar"
FOREIGN = [
    ("x86_64", elves.header(elves.AARCH64), "aarch64 (64 bit)", "qemu-aarch64-static"),
    ("aarch64", elves.header(elves.X86_64), "x86_64 (64 bit)", "qemu-x86_64-static"),
    ("x86_64", elves.header(elves.S390, big=True), "s390 (64 bit)", ""),
]
# how the package qemu-user-static registers the two
ENTRIES = {
    "qemu-aarch64-static": "7f454c460201010000000000000000000200b700",
    "qemu-x86_64-static": "7f454c4602010100000000000000000002003e00",
}


@pytest.fixture
def binfmt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kernel that emulates nothing, and an engine that is built for nothing known."""
    folder = tmp_path / "binfmt_misc"
    folder.mkdir()
    (folder / "status").write_text("enabled\n")
    monkeypatch.setattr("isula_edge.profile.emulator.BINFMT", str(folder))
    monkeypatch.setattr(elf, "_own", lambda: (b"\0\0", b"\0\0"))
    return folder


@pytest.mark.parametrize(("machine", "data", "named", "program"), FOREIGN)
def test_the_error_names_both_and_what_to_register(
    binfmt: Path,
    monkeypatch: pytest.MonkeyPatch,
    machine: str,
    data: bytes,
    named: str,
    program: str,
) -> None:
    path = binfmt.parent / "entrypoint"
    path.write_bytes(data)

    answer = os.uname_result(("Linux", "edge", "6.6.0", "#1", machine))
    monkeypatch.setattr(os, "uname", lambda: answer)
    with pytest.raises(errors.CommandNotExecutable) as found:
        elf.check_executable(str(path), load(machine))
    assert "exec format error" in str(found.value)
    assert f"entrypoint is a program for {named}" in str(found.value)
    assert f"this machine is {machine}" in str(found.value)
    assert found.value.exit_status == 126
    if program:
        assert f"register {program} in binfmt_misc" in found.value.hint
    assert "pull the image for this platform" in found.value.hint


@pytest.mark.parametrize(("machine", "data", "named", "program"), FOREIGN[:2])
def test_with_the_emulator_registered_it_is_let_through(
    binfmt: Path, machine: str, data: bytes, named: str, program: str
) -> None:
    del named
    path = binfmt.parent / "entrypoint"
    path.write_bytes(data)
    text = (
        f"interpreter /usr/bin/{program}\nflags: OCF\noffset 0\nmagic {ENTRIES[program]}\n"
        "mask ffffffffffffff00fffffffffffffffffeffffff\n"
    )
    (binfmt / "qemu").write_text(f"enabled\n{text}")
    elf.check_executable(str(path), load(machine))
    (binfmt / "qemu").write_text(f"disabled\n{text}")
    with pytest.raises(errors.CommandNotExecutable):
        elf.check_executable(str(path), load(machine))


def image_with(program: bytes) -> FakeImage:
    """An image of this machine's platform, its entry point ``program``."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo("foreign")
        info.size, info.mode = len(program), 0o755
        archive.addfile(info, io.BytesIO(program))
    layer = FakeLayer(out.getvalue(), out.getvalue(), OCI_TAR)
    here = {"os": "linux", "architecture": load().architecture}
    return make_image([layer], platform=here, config={"config": {"Entrypoint": ["/foreign"]}})


# no machine of ours runs code for S/390, nor has an emulator of it
S390 = elves.header(elves.S390, big=True)


def refused(engine: Engine, name: str) -> None:
    result = engine.isula("start", name)
    assert "foreign is a program for s390 (64 bit)" in result.err
    assert "pull the image for this platform" in result.err
    state = engine.state_of(name)
    assert (state["Status"], state["ExitCode"]) == ("exited", 126)


@pytest.mark.root
@pytest.mark.lxc
def test_an_engine_refuses_it_before_the_start(
    make_engine: Callable[..., Engine], runtime: str, tmp_path: Path
) -> None:
    archive = tmp_path / "image.tar"
    archive.write_bytes(docker_archive({"foreign:latest": image_with(S390)}))
    engine = make_engine(load=False)
    engine.ok("load", "-i", str(archive))
    engine.ok("create", "--name", "foreign", "--runtime", runtime, "foreign")
    refused(engine, "foreign")


@pytest.mark.root
@pytest.mark.lxc
def test_an_engine_refuses_it_on_a_volume_too(engine: Engine, runtime: str, tmp_path: Path) -> None:
    program = tmp_path / "foreign"
    program.write_bytes(S390)
    program.chmod(0o755)
    engine.ok(
        "create", "--name", "foreign", "--runtime", runtime, "-v", f"{tmp_path}:/data",
        "busybox", "/data/foreign",
    )  # fmt: skip
    refused(engine, "foreign")


def test_a_script_for_an_interpreter_of_another_machine(
    engine: Engine, runtime: str, tmp_path: Path
) -> None:
    program = tmp_path / "foreign"
    program.write_bytes(S390)
    program.chmod(0o755)
    script = tmp_path / "script"
    script.write_text("#!/data/foreign -x\n")
    script.chmod(0o755)
    engine.ok(
        "create", "--name", "foreign", "--runtime", runtime, "-v", f"{tmp_path}:/data",
        "busybox", "/data/script",
    )  # fmt: skip
    refused(engine, "foreign")


def test_an_interpreter_that_is_missing_is_named(
    engine: Engine, runtime: str, tmp_path: Path
) -> None:
    script = tmp_path / "script"
    script.write_text("#!/usr/bin/nosuch\n")
    script.chmod(0o755)
    words = ("run", "--rm", "--runtime", runtime, "-v", f"{tmp_path}:/data", "busybox")
    result = engine.isula(*words, "/data/script")
    assert result.code == 127
    assert "/usr/bin/nosuch" in result.err


def test_a_loader_that_is_missing_is_named(engine: Engine, runtime: str, tmp_path: Path) -> None:
    # a program of the host's, whose C library busybox's image does not have
    shutil.copy("/bin/true", tmp_path / "dynamic")
    words = ("run", "--rm", "--runtime", runtime, "-v", f"{tmp_path}:/data", "busybox")
    result = engine.isula(*words, "/data/dynamic")
    assert result.code == 127
    assert elf.interpreter("/bin/true") in result.err


def test_programs_on_volumes_are_run(engine: Engine, runtime: str, tmp_path: Path) -> None:
    shutil.copy("/bin/busybox", tmp_path / "echo")
    (tmp_path / "hello").write_text("#!/data/echo hi\n")
    (tmp_path / "hello").chmod(0o755)
    words = ("run", "--rm", "--runtime", runtime, "-v", f"{tmp_path}:/data")
    assert engine.ok(*words, "busybox", "/data/echo", "one") == "one"
    assert engine.ok(*words, "-t", "busybox", "/data/echo", "two") == "two"
    assert engine.ok(*words, "busybox", "/data/hello") == "hi /data/hello"
    assert engine.ok(*words, "-e", "PATH=/data", "busybox", "echo", "three") == "three"

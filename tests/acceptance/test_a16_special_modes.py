"""Case A16: setuid bits, owners and file capabilities survive pull, run, and a look inside."""

from __future__ import annotations

import gzip
import os
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fakes.images import FakeLayer, docker_archive, make_image
from tests.fakes.layers import archive, directory, regular

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.rig import Engine

pytestmark = [pytest.mark.root, pytest.mark.lxc]

# cap_net_raw, effective and permitted, revision 2 (linux/capability.h)
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
MODES = {
    "suid": (0o4755, 1, 29), "sgid": (0o2755, 12345, 1), "both": (0o6755, 65534, 65534),
    "plain": (0o640, 3, 4),
}  # fmt: skip


@pytest.mark.parametrize("driver", ["overlay", "vfs"])
def test_inside_a_container(
    make_engine: Callable[..., Engine], runtime: str, tmp_path: Path, driver: str
) -> None:
    entries = [directory("bin"), directory("t", mode=0o1777, uid=7, gid=8)]
    entries.append(regular("bin/busybox", Path("/bin/busybox").read_bytes(), mode=0o755))
    for name, (mode, uid, gid) in MODES.items():
        entries.append(regular(f"t/{name}", b"x", mode=mode, uid=uid, gid=gid, mtime=1234567890))
    capable = regular("t/capable", b"x", mode=0o755)
    capable[0].pax_headers = {
        "SCHILY.xattr.security.capability": CAPABILITY.decode("utf-8", "surrogateescape")
    }
    entries.append(capable)
    data = archive(entries)
    layer = FakeLayer(data, gzip.compress(data))
    host = {"os": "linux", "architecture": {"x86_64": "amd64"}.get(os.uname().machine, "arm64")}
    file = tmp_path / "image.tar"
    file.write_bytes(docker_archive({"modes:v1": make_image([layer], platform=host)}))
    engine = make_engine("--storage-driver", driver, load=False)
    engine.ok("load", "-i", str(file))
    engine.ok(
        "run", "-d", "--name", "modes", "--runtime", runtime, "modes:v1",
        "/bin/busybox", "sleep", "1000",
    )  # fmt: skip
    words = ("/bin/busybox", "stat", "-c", "%a %u %g %Y")
    for name, (mode, uid, gid) in MODES.items():
        assert (
            engine.ok("exec", "modes", *words, f"/t/{name}") == f"{mode:o} {uid} {gid} 1234567890"
        )
    assert engine.ok("exec", "modes", *words[:3], "%a %u %g", "/t") == "1777 7 8"
    path = f"/proc/{engine.state_of('modes')['Pid']}/root/t/capable"
    assert os.getxattr(path, "security.capability") == CAPABILITY


def test_the_capability_is_in_the_archive_as_it_should() -> None:
    info = tarfile.TarInfo("x")
    info.pax_headers = {"SCHILY.xattr.user.a": "b"}
    assert b"SCHILY.xattr.user.a=b" in archive([(info, b"")])

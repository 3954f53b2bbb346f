"""hosts, hostname and resolv.conf of a pod."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from isula_edge.network import Dns
from isula_edge.pod import files

ID = "ab" * 32


@pytest.mark.parametrize(
    ("wanted", "node", "expected"),
    [
        ("box", False, "box"),
        ("box", True, "box"),
        ("", False, ID[:63]),
        ("", True, os.uname().nodename),
    ],
)
def test_the_host_name(wanted: str, node: bool, expected: str) -> None:
    assert files.hostname(wanted, ID, node=node) == expected


def written(folder: Path, dns: Dns | None = None, *, node: bool = False) -> dict[str, str]:
    """Texts of the files by their paths inside."""
    found = files.write_files(str(folder), "box", dns, node=node)
    return {inside: Path(path).read_text() for inside, path in found.items()}


def test_the_files_are_for_everybody(tmp_path: Path) -> None:
    os.umask(old := os.umask(0o077))
    try:
        os.umask(0o077)
        files.write_files(str(tmp_path / "p"), "box", None, node=False)
    finally:
        os.umask(old)
    for name in ("hosts", "hostname", "resolv.conf"):
        mode = (tmp_path / "p" / name).stat().st_mode
        assert stat.S_IMODE(mode) == 0o644


def test_a_pods_own_files(tmp_path: Path) -> None:
    found = written(tmp_path, Dns(("10.0.0.1", "::1"), ("a.b", "c"), ("ndots:5", "rotate")))
    assert set(found) == {"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"}
    assert found["/etc/hostname"] == "box\n"
    assert "127.0.0.1\tlocalhost\n" in found["/etc/hosts"]
    assert found["/etc/hosts"].endswith("127.0.1.1\tbox\n")
    assert found["/etc/resolv.conf"] == (
        "nameserver 10.0.0.1\nnameserver ::1\nsearch a.b c\noptions ndots:5 rotate\n"
    )


@pytest.mark.parametrize(
    ("dns", "text"),
    [
        (Dns(servers=("1.1.1.1",)), "nameserver 1.1.1.1\n"),
        (Dns(searches=("a",)), "search a\n"),
        (Dns(options=("rotate",)), "options rotate\n"),
    ],
)
def test_a_part_of_dns_is_all_there_is(tmp_path: Path, dns: Dns, text: str) -> None:
    assert written(tmp_path, dns)["/etc/resolv.conf"] == text


@pytest.mark.parametrize("dns", [None, Dns()])
def test_without_dns_it_is_the_hosts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dns: Dns | None
) -> None:
    texts = {"/etc/resolv.conf": "nameserver 9.9.9.9\n"}
    monkeypatch.setattr(files, "_read", lambda path: texts.get(path, ""))
    assert written(tmp_path, dns)["/etc/resolv.conf"] == "nameserver 9.9.9.9\n"
    texts.clear()
    assert written(tmp_path, dns)["/etc/resolv.conf"].startswith("nameserver 8.8.8.8\n")


def test_on_the_hosts_network_hosts_is_the_hosts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {"/etc/hosts": "1.2.3.4 there\n"}
    monkeypatch.setattr(files, "_read", lambda path: texts.get(path, ""))
    assert written(tmp_path, node=True)["/etc/hosts"] == "1.2.3.4 there\n"
    assert "there" not in written(tmp_path)["/etc/hosts"]
    texts.clear()
    assert written(tmp_path, node=True)["/etc/hosts"].endswith("\tbox\n")


def test_addresses_come_into_the_same_file(tmp_path: Path) -> None:
    written(tmp_path)
    before = (tmp_path / "hosts").stat().st_ino
    files.write_hosts(str(tmp_path), "box", ["10.0.0.5", "fd00::5"], node=False)
    text = (tmp_path / "hosts").read_text()
    assert text.endswith("10.0.0.5\tbox\nfd00::5\tbox\n")
    assert "127.0.1.1" not in text
    # containers hold it by its bind mount
    assert (tmp_path / "hosts").stat().st_ino == before


def test_a_file_of_the_host_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    assert files._read(str(tmp_path / "absent")) == ""
    assert files._read(str(tmp_path)) == ""
    (tmp_path / "odd").write_bytes(b"a\xff")
    assert files._read(str(tmp_path / "odd")) == "a\ufffd"

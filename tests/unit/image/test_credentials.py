"""config.json as Docker writes it: read, changed, kept, and refused."""

from __future__ import annotations

import base64
import json
import logging
import os
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from isula_edge.image.credentials import AuthFile, Credentials
from isula_edge.sys import atomic

if TYPE_CHECKING:
    from pathlib import Path


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.fixture
def file(tmp_path: Path) -> AuthFile:
    return AuthFile(str(tmp_path / "folder/config.json"))


def put(file: AuthFile, content: object, mode: int = 0o600) -> None:
    os.makedirs(os.path.dirname(file.path), exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    with open(file.path, "w", encoding="utf-8") as out:
        out.write(text)
    os.chmod(file.path, mode)


def content(file: AuthFile) -> dict[str, Any]:
    with open(file.path, encoding="utf-8") as source:
        found = json.load(source)
    assert isinstance(found, dict)
    return found


def test_what_is_written_is_dockers_format(file: AuthFile) -> None:
    entries = file.read()
    assert entries.put("reg.io:5000", Credentials("me", "pa:ss"))
    assert entries.put("docker.io", Credentials("you", identity_token="id"))
    file.write(entries)
    assert content(file) == {
        "auths": {
            "reg.io:5000": {"auth": b64("me:pa:ss")},
            "https://index.docker.io/v1/": {"auth": b64("you:"), "identitytoken": "id"},
        }
    }
    found = os.stat(file.path)
    assert found.st_mode & 0o777 == 0o600
    assert found.st_uid == os.geteuid()
    assert os.stat(os.path.dirname(file.path)).st_mode & 0o777 == 0o700
    again = file.read()
    assert again.get("reg.io:5000") == Credentials("me", "pa:ss")
    assert again.get("docker.io") == Credentials("you", identity_token="id")
    assert again.get("reg.io") is None
    assert not again.put("reg.io:5000", Credentials("me", "pa:ss"))


def test_it_is_written_durably(file: AuthFile, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []

    def fsync(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))

    file.write(file.read())
    monkeypatch.setattr(os, "fsync", fsync)
    file.write(file.read())
    folder = os.path.dirname(file.path)
    assert len(synced) == 2
    assert synced[0].startswith(f"{folder}/{atomic.TEMP_PREFIX}")
    assert synced[1] == folder


def test_what_is_not_understood_is_kept(file: AuthFile) -> None:
    others = {"HttpHeaders": {"X": "y"}, "proxies": [1], "psFormat": "é", "auths": {"other": {}}}
    put(file, others)
    entries = file.read()
    entries.put("a.io", Credentials("u", "p"))
    file.write(entries)
    assert content(file) == {**others, "auths": {"other": {}, "a.io": {"auth": b64("u:p")}}}
    assert list(content(file)) == list(others)
    entries = file.read()
    assert entries.remove("a.io")
    assert not entries.remove("a.io")
    file.write(entries)
    assert content(file) == others


@pytest.mark.parametrize(
    ("key", "host"),
    [
        ("https://a.io/v1/", "a.io"),
        ("http://a.io:5000", "a.io:5000"),
        ("A.io/some/path", "a.io"),
        ("docker.io", "docker.io"),
        ("index.docker.io", "docker.io"),
        ("https://registry-1.docker.io/v2/", "docker.io"),
    ],
)
def test_keys_as_others_write_them(file: AuthFile, key: str, host: str) -> None:
    put(file, {"auths": {key: {"auth": b64("u:p")}}})
    entries = file.read()
    assert entries.get(host) == Credentials("u", "p")
    assert entries.get("b.io") is None
    assert entries.put(host, Credentials("u", "new"))
    assert len(entries.table["auths"]) == 1
    assert entries.get(host) == Credentials("u", "new")
    assert entries.remove(host)
    assert entries.table["auths"] == {}


def test_the_exact_key_comes_first(file: AuthFile) -> None:
    put(
        file,
        {"auths": {"https://a.io/v1/": {"auth": b64("x:old")}, "a.io": {"auth": b64("u:p")}}},
    )
    assert file.read().get("a.io") == Credentials("u", "p")


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ({}, None),
        ({"auth": ""}, None),
        ({"auth": b64("u:p\0\0")}, Credentials("u", "p")),
        ({"username": "u", "password": "p", "email": "e@x"}, Credentials("u", "p")),
        ({"auth": b64("u:"), "identitytoken": "i"}, Credentials("u", identity_token="i")),
        ({"registrytoken": "r"}, Credentials(registry_token="r")),
        ({"auth": b64("ü:p€")}, Credentials("ü", "p€")),
    ],
)
def test_entries(file: AuthFile, entry: dict[str, str], found: Credentials | None) -> None:
    put(file, {"auths": {"a.io": entry}})
    assert file.read().get("a.io") == found


@pytest.mark.parametrize("text", ["", "\n", "{}", '{"auths": null}'])
def test_nothing_in_it(file: AuthFile, text: str) -> None:
    put(file, text)
    entries = file.read()
    assert entries.get("a.io") is None
    assert entries.helper("a.io") == ""
    assert not entries.remove("a.io")


@pytest.mark.parametrize(
    "text",
    [
        '{"auths": {',
        "[]",
        "\0" * 100,
        "[" * 100_000,
        '{"auths": []}',
        '{"credsStore": {}}',
        '{"credHelpers": "x"}',
        " " * ((1 << 20) + 1),
        "\udcff",
    ],
)
def test_a_damaged_file_is_named(file: AuthFile, text: str) -> None:
    os.makedirs(os.path.dirname(file.path))
    with open(file.path, "wb") as out:
        out.write(text.encode("utf-8", "surrogateescape"))
    os.chmod(file.path, 0o600)
    with pytest.raises(errors.DataLoss) as caught:
        file.read()
    assert file.path in str(caught.value)
    assert "repair it" in caught.value.hint


@pytest.mark.parametrize(
    "entry",
    [5, {"auth": "%%%"}, {"auth": b64("no colon")}, {"auth": 5}, {"identitytoken": []}],
)
def test_a_damaged_entry_is_named_and_can_be_replaced(file: AuthFile, entry: object) -> None:
    put(file, {"auths": {"a.io": entry, "b.io": {"auth": b64("u:p")}}})
    entries = file.read()
    with pytest.raises(errors.DataLoss, match=r"a\.io"):
        entries.get("a.io")
    assert entries.get("b.io") == Credentials("u", "p")
    assert entries.put("a.io", Credentials("u", "p"))
    assert entries.get("a.io") == Credentials("u", "p")


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_what_others_may_write_is_refused(file: AuthFile, mode: int) -> None:
    put(file, {}, mode)
    with pytest.raises(errors.PermissionDenied) as caught:
        file.read()
    assert f"chmod 600 {file.path}" in caught.value.hint


def test_what_others_may_read_is_said_once(
    file: AuthFile, caplog: pytest.LogCaptureFixture
) -> None:
    put(file, {}, 0o644)
    with caplog.at_level(logging.WARNING):
        file.read()
        file.read()
    assert len(caplog.records) == 1
    assert file.path in caplog.text


def test_a_folder_in_its_place(file: AuthFile) -> None:
    os.makedirs(file.path)
    with pytest.raises(errors.DataLoss, match="no regular file"):
        file.read()


def test_a_link_stays_one(file: AuthFile, tmp_path: Path) -> None:
    target = tmp_path / "docker.json"
    target.write_text("{}")
    target.chmod(0o600)
    os.makedirs(os.path.dirname(file.path))
    os.symlink(target, file.path)
    entries = file.read()
    entries.put("a.io", Credentials("u", "p"))
    file.write(entries)
    assert os.path.islink(file.path)
    assert json.loads(target.read_text()) == {"auths": {"a.io": {"auth": b64("u:p")}}}


def test_what_a_crash_left_is_removed(file: AuthFile) -> None:
    file.sweep()
    put(file, {})
    folder = os.path.dirname(file.path)
    for name in (".tmp-config.json-1a-2b", ".tmp-other-1a-2b"):
        with open(f"{folder}/{name}", "w", encoding="ascii"):
            pass
    file.sweep()
    assert sorted(os.listdir(folder)) == [".tmp-other-1a-2b", "config.json"]


def test_helpers(file: AuthFile) -> None:
    put(
        file,
        {
            "credsStore": "pass",
            "credHelpers": {"https://index.docker.io/v1/": "ecr-login", "plain.io": ""},
        },
    )
    entries = file.read()
    assert entries.helper("docker.io") == "ecr-login"
    assert entries.helper("plain.io") == ""
    assert entries.helper("a.io") == "pass"


@pytest.mark.parametrize("name", ["../x", "a b", "A", "-x", "x;y", "a/b"])
def test_a_bad_name_of_a_helper(file: AuthFile, name: str) -> None:
    put(file, {"credsStore": name})
    with pytest.raises(errors.InvalidArgument, match="credential helper"):
        file.read().helper("a.io")

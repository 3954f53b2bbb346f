"""Login, logout and the credentials of a pull, with helpers that are real programs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from isula_edge.image.credentials import AuthFile, Credentials
from isula_edge.service import credential_helpers
from isula_edge.service.config import EngineConfig
from isula_edge.service.credentials import Logins, explained
from isula_edge.service.events import Events
from isula_edge.sys.process import Reaper

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

HELPER = """\
#!/bin/sh
echo "$1" >> {folder}/actions
case $1 in
get) read -r key; cat "{folder}/answer" ;;
store) cat > {folder}/stored ;;
erase) read -r key; echo "$key" >> {folder}/erased ;;
esac
exit "$(cat {folder}/code)"
"""


class Rig:
    """Logins over a file of its own, and a registry that is a function."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.file = AuthFile(str(folder / "auth/config.json"))
        self.config = EngineConfig(auth_file=self.file.path, registry_mirrors=("https://m.io",))
        self.requests: list[dict[str, Any]] = []
        self.answer: dict[str, Any] | errors.EngineError = {"identity_token": ""}
        self.actions: list[str] = []
        monkeypatch.setattr("isula_edge.service.credentials.run_worker", self._worker)
        monkeypatch.setattr(credential_helpers, "_PATH", str(folder))

    async def _worker(
        self, _reaper: Reaper, request: dict[str, Any], _handle: object
    ) -> dict[str, Any]:
        self.requests.append(request)
        if isinstance(self.answer, errors.EngineError):
            raise self.answer
        return self.answer

    def run(self, work: Callable[[Logins], Awaitable[Any]]) -> Any:
        """What ``work`` returns in an event loop of its own; keeps the events."""

        async def whole() -> Any:
            reaper, events = Reaper(), Events()
            reaper.install()
            try:
                return await work(Logins(self.config, reaper, events))
            finally:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0):
                        async for event in events.read(0, 1 << 62):
                            self.actions.append(f"{event.kind} {event.action} {event.id}")

        return asyncio.run(whole())

    def auths(self, ref: str, auth: dict[str, str] | None = None) -> tuple[dict[str, Any], str]:
        """``auths`` and trouble of a pull."""
        request = {"ref": ref, "mirrors": ["https://m.io", "https://n.io/x"]}
        found: tuple[dict[str, Any], str] = self.run(
            lambda logins: logins.for_pull(request, auth or {})
        )
        return found

    def helper(self, name: str, answer: str = "", code: int = 0) -> None:
        """Installs docker-credential-``name`` and makes it the store of everything."""
        path = self.folder / f"docker-credential-{name}"
        path.write_text(HELPER.format(folder=self.folder))
        path.chmod(0o755)
        self.says(answer, code)
        self.put({"credsStore": name})

    def says(self, answer: str, code: int = 0) -> None:
        """What the helper prints, and its exit status."""
        (self.folder / "answer").write_text(answer)
        (self.folder / "code").write_text(str(code))

    def put(self, table: dict[str, Any]) -> None:
        """Writes config.json."""
        entries = self.file.read()
        entries.table.update(table)
        self.file.write(entries)

    def content(self) -> dict[str, Any]:
        """What config.json says."""
        return self.file.read().table


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(tmp_path, monkeypatch)


def test_login_and_logout(rig: Rig) -> None:
    found = rig.run(lambda logins: logins.login("https://a.io/v1/", "me", "pw"))
    assert found == {"server": "a.io"}
    assert rig.actions == ["image login a.io"]
    (request,) = rig.requests
    assert request["op"] == "login"
    assert request["server"] == "a.io"
    assert request["auth"] == {"username": "me", "password": "pw"}
    assert rig.file.read().get("a.io") == Credentials("me", "pw")
    for removed in (True, False):
        result = rig.run(lambda logins: logins.logout("a.io"))
        assert result == {"server": "a.io", "removed": removed}
    assert rig.actions[1:] == ["image logout a.io"] * 2
    assert rig.content() == {"auths": {}}


def test_logout_of_an_unknown_registry_writes_nothing(rig: Rig) -> None:
    assert rig.run(lambda logins: logins.logout("a.io")) == {"server": "a.io", "removed": False}
    assert not os.path.exists(rig.file.path)


def test_the_same_login_again_writes_nothing(rig: Rig) -> None:
    rig.run(lambda logins: logins.login("a.io", "me", "pw"))
    before = os.stat(rig.file.path)
    rig.run(lambda logins: logins.login("a.io", "me", "pw"))
    assert os.stat(rig.file.path).st_ino == before.st_ino


def test_refused_credentials_are_not_stored(rig: Rig) -> None:
    rig.run(lambda logins: logins.login("a.io", "me", "pw"))
    rig.answer = errors.PermissionDenied("no")
    with pytest.raises(errors.PermissionDenied):
        rig.run(lambda logins: logins.login("a.io", "me", "other"))
    assert rig.file.read().get("a.io") == Credentials("me", "pw")
    assert rig.actions == ["image login a.io"]


def test_an_identity_token_replaces_the_password(rig: Rig) -> None:
    rig.answer = {"identity_token": "long"}
    rig.run(lambda logins: logins.login("docker.io", "me", "pw"))
    assert rig.file.read().get("docker.io") == Credentials("me", identity_token="long")
    assert "pw" not in str(rig.content())
    assert list(rig.content()["auths"]) == ["https://index.docker.io/v1/"]


@pytest.mark.parametrize(
    ("server", "username", "password"),
    [("", "u", "p"), ("a b", "u", "p"), ("a.io", "", "p"), ("a.io", "u", ""), ("a.io", "u:", "p"),
     ("a.io", "u", "p\n"), ("a.io", "u\r\nX: y", "p")],
)  # fmt: skip
def test_what_cannot_be_right_is_refused(
    rig: Rig, server: str, username: str, password: str
) -> None:
    with pytest.raises(errors.InvalidArgument):
        rig.run(lambda logins: logins.login(server, username, password))
    assert rig.requests == []


def test_a_damaged_file_is_left_alone(rig: Rig) -> None:
    rig.put({})
    with open(rig.file.path, "w", encoding="ascii") as file:
        file.write('{"auths": {')
    for work in (
        lambda logins: logins.login("a.io", "u", "p"),
        lambda logins: logins.logout("a.io"),
    ):
        with pytest.raises(errors.DataLoss, match=r"config\.json"):
            rig.run(work)
    assert rig.requests == []
    with open(rig.file.path, encoding="ascii") as file:
        assert file.read() == '{"auths": {'
    auths, trouble = rig.auths("a.io/b")
    assert auths == {}
    assert trouble.startswith(f"Failed to load auths for host a.io: {rig.file.path}: no JSON")
    error = explained(errors.PermissionDenied("denied", kind="image", ref="a.io/b"), trouble)
    assert (error.message, error.hint, error.ref) == ("denied", trouble, "a.io/b")


def test_each_host_gets_its_own(rig: Rig) -> None:
    entries = rig.file.read()
    for host in ("docker.io", "m.io", "a.io"):
        entries.put(host, Credentials("u", f"of {host}"))
    rig.file.write(entries)

    def auth(host: str) -> dict[str, str]:
        return {"username": "u", "password": f"of {host}"}

    assert rig.auths("busybox") == ({"m.io": auth("m.io")}, "")
    assert rig.auths("a.io/b") == ({"a.io": auth("a.io")}, "")
    assert rig.auths("index.docker.io/b") == ({"docker.io": auth("docker.io")}, "")
    assert rig.auths("none.io/b") == ({}, "")


def test_the_callers_own_credentials_come_first(rig: Rig) -> None:
    entries = rig.file.read()
    entries.put("a.io", Credentials("stored", "x"))
    rig.file.write(entries)
    mine = {"username": "u", "password": "p"}
    assert rig.auths("a.io/b", mine) == ({"a.io": mine}, "")
    assert rig.auths("a.io/b", {"registry_token": "t"}) == ({"a.io": {"registry_token": "t"}}, "")
    at_mirror = {**mine, "server_address": "https://n.io/v1/"}
    assert rig.auths("busybox", at_mirror) == ({"n.io": mine}, "")


def test_credentials_for_a_host_that_is_not_asked_go_nowhere(rig: Rig) -> None:
    auths, trouble = rig.auths("busybox", {"username": "u", "password": "p"})
    assert auths == {}
    assert "are for docker.io" in trouble
    assert explained(errors.PermissionDenied("denied"), trouble).hint == trouble


def test_a_crash_leaves_nothing_behind(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that ends before the rename is gone at the next start, and the old file stays."""
    rig.run(lambda logins: logins.login("a.io", "me", "pw"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", _crash)
        patch.setattr(os, "unlink", _crash)
        with pytest.raises(SystemExit):
            rig.run(lambda logins: logins.login("a.io", "me", "other"))
    folder = os.path.dirname(rig.file.path)
    assert len(os.listdir(folder)) == 2
    assert rig.auths("a.io/b")[0] == {"a.io": {"username": "me", "password": "pw"}}
    assert os.listdir(folder) == ["config.json"]


def _crash(*_arguments: object) -> None:
    raise SystemExit


def test_the_daemon_talks_to_no_registry_itself() -> None:
    """Nor does it load what would be needed for that."""
    code = (
        "import sys, isula_edge.service.credentials\n"
        "print([name for name in ('ssl', 'http', 'urllib', 'urllib3') if name in sys.modules])"
    )
    command = [sys.executable, "-c", f"import sys; sys.path[:0]={sys.path!r}\n{code}"]
    # asyncio asks for ssl unless it is kept out, as the daemon does
    command[-1] = command[-1].replace("import sys;", "import sys; sys.modules['ssl'] = None;", 1)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "['ssl']\n"


# helpers


def test_a_helper_keeps_the_credentials(rig: Rig) -> None:
    rig.helper("test", '{"ServerURL": "a.io", "Username": "u", "Secret": "p"}')
    rig.run(lambda logins: logins.login("a.io", "u", "p"))
    stored = json.loads((rig.folder / "stored").read_text())
    assert stored == {"ServerURL": "a.io", "Username": "u", "Secret": "p"}
    assert rig.content() == {"credsStore": "test", "auths": {"a.io": {}}}
    assert rig.auths("a.io/b") == ({"a.io": {"username": "u", "password": "p"}}, "")
    assert rig.run(lambda logins: logins.logout("a.io"))["removed"]
    assert (rig.folder / "erased").read_text() == "a.io\n"
    assert rig.content() == {"credsStore": "test", "auths": {}}


def test_a_helper_keeps_identity_tokens(rig: Rig) -> None:
    rig.helper("test", '{"Username": "<token>", "Secret": "long"}')
    rig.answer = {"identity_token": "long"}
    rig.run(lambda logins: logins.login("docker.io", "u", "p"))
    assert json.loads((rig.folder / "stored").read_text()) == {
        "ServerURL": "https://index.docker.io/v1/",
        "Username": "<token>",
        "Secret": "long",
    }
    assert rig.auths("docker.io/b") == ({"docker.io": {"identity_token": "long"}}, "")


def test_a_helper_of_one_host(rig: Rig) -> None:
    rig.helper("test", '{"Username": "u", "Secret": "p"}')
    rig.put({"credsStore": "", "credHelpers": {"a.io": "test"}})
    assert rig.auths("a.io/b")[0] == {"a.io": {"username": "u", "password": "p"}}
    assert rig.auths("b.io/b")[0] == {}
    assert (rig.folder / "actions").read_text() == "get\n"


def test_a_helper_that_has_none(rig: Rig) -> None:
    rig.helper("test", "credentials not found in native keychain\n", 1)
    assert rig.auths("a.io/b") == ({}, "")
    rig.says('{"Username": "", "Secret": ""}')
    assert rig.auths("a.io/b") == ({}, "")


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        ("the vault is locked\n", 1, "failed with status 1: the vault is locked"),
        ("no json", 0, "sent an answer that is no credentials"),
        ("[]", 0, "sent an answer that is no credentials"),
        ('{"Username": 5, "Secret": "x"}', 0, "sent an answer that is no credentials"),
    ],
)
def test_a_helper_that_fails_is_named(rig: Rig, answer: str, code: int, said: str) -> None:
    rig.helper("test", answer, code)
    auths, trouble = rig.auths("a.io/b")
    assert auths == {}
    assert f"docker-credential-test {said}" in trouble


def test_a_helper_that_is_not_there(rig: Rig) -> None:
    rig.put({"credsStore": "absent"})
    with pytest.raises(errors.FailedPrecondition, match="docker-credential-absent is not install"):
        rig.run(lambda logins: logins.login("a.io", "u", "p"))
    assert rig.content() == {"credsStore": "absent"}
    assert "is not installed" in rig.auths("a.io/b")[1]


def test_a_helper_that_does_not_end(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.helper("test")
    (rig.folder / "docker-credential-test").write_text("#!/bin/sh\nexec sleep 1000\n")
    monkeypatch.setattr(credential_helpers, "_TIMEOUT_S", 0.2)
    assert "docker-credential-test did not end" in rig.auths("a.io/b")[1]


def test_a_failed_store_leaves_the_file(rig: Rig) -> None:
    rig.helper("test", code=1)
    with pytest.raises(errors.Unavailable, match="docker-credential-test failed"):
        rig.run(lambda logins: logins.login("a.io", "u", "p"))
    assert rig.content() == {"credsStore": "test"}


@pytest.mark.parametrize("said", ['{{"Username": "me", "Secret": "{0}"}}', "cannot keep {0}"])
def test_a_secret_that_a_helper_repeats_is_not_told(rig: Rig, said: str) -> None:
    rig.helper("x", said.format("s3cr3t"), 1)
    path = rig.folder / "docker-credential-x"
    path.write_text(path.read_text().replace("exit ", "echo locked >&2; echo more >&2; exit "))
    with pytest.raises(errors.EngineError) as caught:
        rig.run(lambda logins: logins.login("a.io", "me", "s3cr3t"))
    assert "s3cr3t" not in str(caught.value)
    assert "failed with status 1: locked" in str(caught.value)
    assert "more" not in str(caught.value)

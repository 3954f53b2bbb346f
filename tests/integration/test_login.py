"""Login at real registries: htpasswd and tokens, over TLS with an authority of the device's own."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from isula_edge import errors
from isula_edge.client import Client
from tests.fakes.certificates import Authority
from tests.integration.conftest import Pulling
from tests.rig import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.rig import Engine, Result

pytestmark = [pytest.mark.root]

# not of 127.0.0.0/8, to which certificates play no part
ADDRESS = "192.0.2.1"
HOST, TOKENS = f"{ADDRESS}:5000", f"{ADDRESS}:5001"
IMAGE = f"{HOST}/busybox:latest"
# user "me", password "secret"
HTPASSWD = "me:$2b$04$1HDTs8bNRLSveDmaDRGDDOqfTaFPEoxv/TCoV0qxDIALK5dArsbGS\n"
CONFIG = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {folder}/registry}}}}
http: {{addr: "0.0.0.0:5000", secret: tests, tls: {{certificate: {cert}, key: {key}}}}}
auth: {auth}
"""


class Private(Pulling):
    """A registry that serves nobody without a password."""

    def __init__(self, engine: Engine, images: Path, folder: Path) -> None:
        super().__init__(engine, images, folder)
        self.up()
        self.push()
        self.down()
        authority = Authority(folder / "ca")
        self.pair = authority.sign("registry", names=f"IP:{ADDRESS}")
        for host in (HOST, TOKENS):
            place = folder / "certs.d" / host
            place.mkdir(parents=True)
            shutil.copy(authority.certificate, place / "ca.crt")
        words = ("ip", "-n", engine.network.name, "addr", "add", f"{ADDRESS}/32", "dev", "lo")
        subprocess.run(words, check=True)
        self.server: subprocess.Popen[bytes] | None = None
        self.config = folder / "root/.isulad/config.json"

    def serve(self, auth: str) -> None:
        """Starts the registry with this authorization."""
        text = CONFIG.format(
            folder=self.folder, cert=self.pair.certificate, key=self.pair.key, auth=auth
        )
        (self.folder / "registry.yml").write_text(text)
        self.up()

    def by_password(self) -> None:
        """A registry that knows its users itself."""
        (self.folder / "htpasswd").write_text(HTPASSWD)
        self.serve(f"{{htpasswd: {{realm: tests, path: {self.folder}/htpasswd}}}}")

    def by_token(self, *, offline: bool) -> None:
        """A registry that believes a token server."""
        key, certificate = self.folder / "sign.key", self.folder / "sign.crt"
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650"),
                *("-subj", "/CN=tokens", "-keyout", str(key), "-out", str(certificate)),
            ],
            check=True,
            capture_output=True,
        )
        settings = {
            "address": [ADDRESS, 5001],
            "users": {"me": "secret"},
            "issuer": "tests",
            "key": str(key),
            "certificate": str(certificate),
            "tls": [str(self.pair.certificate), str(self.pair.key)],
            "offline": offline,
        }
        (self.folder / "tokens.json").write_text(json.dumps(settings))
        words = [sys.executable, "-m", "tests.fakes.token_server", f"{self.folder}/tokens.json"]
        prefix = self.engine.network.prefix
        self.server = subprocess.Popen([*prefix, *words], stdin=subprocess.DEVNULL)
        code = f"import socket; socket.create_connection(('{ADDRESS}', 5001)).close()"
        probe = [*prefix, sys.executable, "-c", code]
        until(
            lambda: subprocess.run(probe, stderr=subprocess.DEVNULL, check=False).returncode == 0,
            "the token server answering",
        )
        self.serve(
            f"{{token: {{realm: 'https://{TOKENS}/token', service: tests, issuer: tests, "
            f"rootcertbundle: {certificate}}}}}"
        )

    def close(self) -> None:
        """Ends both servers."""
        self.down()
        if self.server is not None:
            self.server.terminate()
            self.server.wait()

    # as a user does

    def login(self, password: str = "secret", host: str = HOST) -> Result:
        """``isula login``."""
        words = ("login", "-u", "me", "--password-stdin", host)
        return self.engine.isula(*words, stdin=f"{password}\n".encode())

    def pulls(self) -> bool:
        """Whether the image can be pulled; it is gone again afterwards."""
        result = self.engine.isula("pull", IMAGE)
        if result.code == 0:
            self.engine.ok("rmi", IMAGE)
            return True
        assert "authentication failed" in result.err, result
        return False


@pytest.fixture
def private(make_engine: Callable[..., Engine], images: Path, tmp_path: Path) -> Iterator[Private]:
    """An engine that trusts the authority of a registry that is not yet up."""
    engine = make_engine(
        load=False,
        config={
            "certs-dir": str(tmp_path / "certs.d"),
            "auth-file": str(tmp_path / "root/.isulad/config.json"),
        },
    )
    found = Private(engine, images, tmp_path)
    try:
        yield found
    finally:
        found.close()


@pytest.mark.parametrize("how", ["htpasswd", "token", "identity token"])
def test_login_pull_logout(private: Private, how: str) -> None:
    if how == "htpasswd":
        private.by_password()
    else:
        private.by_token(offline=how != "token")
    assert not private.pulls()

    for _ in range(2):
        result = private.login()
        assert (result.code, result.out, result.err) == (0, "", "Login Succeeded\n")
    assert private.config.stat().st_mode & 0o777 == 0o600
    assert private.config.parent.stat().st_mode & 0o777 == 0o700
    entry = json.loads(private.config.read_text())["auths"][HOST]
    if how == "identity token":
        assert base64.b64decode(entry["auth"]) == b"me:"
        assert entry["identitytoken"]
    else:
        assert entry == {"auth": base64.b64encode(b"me:secret").decode()}
    assert private.pulls()
    assert private.pulls()

    private.engine.restart()
    assert private.pulls()

    for _ in range(2):
        result = private.engine.isula("logout", HOST)
        assert (result.code, result.out, result.err) == (0, "", "Logout Succeeded\n")
        assert not private.pulls()
    assert json.loads(private.config.read_text()) == {"auths": {}}


def test_a_wrong_password_changes_nothing(private: Private) -> None:
    private.by_password()
    result = private.login("wrong")
    assert result.code == 1
    assert result.err == (
        "Error response from daemon: "
        f"login to registry for {HOST} failed: invalid username/password\n"
    )
    assert not private.config.exists()
    assert private.login().code == 0
    before = private.config.read_bytes()
    assert private.login("wrong").code == 1
    assert private.config.read_bytes() == before
    assert private.pulls()


def test_what_login_and_logout_do_is_an_event(private: Private) -> None:
    private.by_password()
    assert private.login().code == 0
    private.engine.ok("logout", f"https://{HOST}/v1/")
    private.engine.ok("logout", "nobody.example.com")
    shown = private.engine.ok("events", "--since", "1", "--until", "0s")
    assert [line.split(" ", 1)[1] for line in shown.splitlines()] == [
        f"image login {HOST}",
        f"image logout {HOST}",
        "image logout nobody.example.com",
    ]


def test_a_damaged_file_is_named_and_left(private: Private) -> None:
    private.by_password()
    private.config.parent.mkdir(parents=True)
    private.config.write_text('{"auths": {')
    private.config.chmod(0o600)
    for words in (("login", "-u", "me", "-p", "secret", HOST), ("logout", HOST)):
        result = private.engine.isula(*words)
        assert result.code == 1
        assert str(private.config) in result.err
    assert private.config.read_text() == '{"auths": {'
    result = private.engine.isula("pull", IMAGE)
    assert result.code == 1
    assert f"Failed to load auths for host {HOST}: {private.config}" in result.err


def test_the_password_is_nowhere_but_in_the_file(private: Private) -> None:
    """The log does not have it, neither the right one nor the wrong one."""
    private.by_password()
    assert private.login("secret").code == 0
    assert private.pulls()
    assert private.login("wr0ng-passw0rd").code == 1
    log = private.engine.log_text()
    assert "secret" not in log
    assert "wr0ng-passw0rd" not in log


def test_the_callers_own_credentials(private: Private) -> None:
    """They come before what is stored, and are not stored; a typing error is named."""
    private.by_password()
    good, bad = ({"username": "me", "password": word} for word in ("secret", "wrong"))
    with Client(private.engine.host) as client:
        with pytest.raises(errors.PermissionDenied):
            client.pull(IMAGE)
        assert client.pull(IMAGE, auth=good)["ref"] == IMAGE
        assert not private.config.exists()
        client.remove_image(IMAGE)
        client.login(HOST, "me", "secret")
        for one in (bad, {"registry_token": "none"}):
            with pytest.raises(errors.PermissionDenied):
                client.pull(IMAGE, auth=one)
        with pytest.raises(errors.InvalidArgument, match="auth has no user"):
            client.pull(IMAGE, auth={"user": "me"})
        elsewhere = {**bad, "server_address": "other.example.com"}
        assert client.pull(IMAGE, auth=elsewhere)["ref"] == IMAGE


def test_two_at_once_do_not_share_a_password(private: Private) -> None:
    """A pull with other credentials is a pull of its own, however much is under way."""
    private.by_password()
    bad = {"username": "me", "password": "wrong"}
    good = {"username": "me", "password": "secret"}

    def pull(auth: dict[str, str]) -> str:
        with Client(private.engine.host) as client:
            try:
                return str(client.pull(IMAGE, auth=auth)["ref"])
            except errors.PermissionDenied:
                return "denied"

    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(pull, [good, bad] * 3))
    assert found == [IMAGE, "denied"] * 3


def test_an_unknown_authority_is_named(private: Private) -> None:
    private.by_password()
    shutil.rmtree(private.folder / "certs.d")
    result = private.login()
    assert result.code == 1
    assert f"TLS with {HOST} failed" in result.err
    assert not private.config.exists()

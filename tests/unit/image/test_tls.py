"""HTTPS registries: own CAs, client certificates, insecure ones, and wrong clocks."""

from __future__ import annotations

import base64
import shutil
import ssl
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from isula_edge.image import proxies
from isula_edge.image.auth import Credentials
from isula_edge.image.pull import PullRequest, pull
from isula_edge.image.transport import Settings, Transport
from isula_edge.sys.wallclock import ClockWatch
from tests.fakes.certificates import Authority
from tests.fakes.images import FakeLayer, make_image
from tests.fakes.jobs import FakeDaemon
from tests.fakes.registry import FakeRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from isula_edge.snapshot import LayerStore

IMAGE = make_image([FakeLayer.of({"a": b"1"})])

pytestmark = pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")

if shutil.which("openssl") is None:
    pytest.skip("openssl is not installed", allow_module_level=True)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def secure(authority: Authority) -> Iterator[FakeRegistry]:
    with FakeRegistry(tls=authority.sign("registry")) as registry:
        registry.add("a/b", "latest", IMAGE)
        yield registry


@pytest.fixture
def not_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """127.0.0.1 is a host like any other."""
    monkeypatch.setattr(proxies, "LOOPBACK", ())


@pytest.fixture
def certs(tmp_path: Path, secure: FakeRegistry) -> Path:
    """The empty directory with the certificates for ``secure``."""
    folder = tmp_path / "certs.d" / secure.host
    folder.mkdir(parents=True)
    return folder


def do_pull(registry: FakeRegistry, store: LayerStore, graph: Path, **settings: Any) -> FakeDaemon:
    daemon = FakeDaemon()
    wanted = PullRequest(
        ref=f"{registry.host}/a/b",
        tmpdir=str(graph / "tmp"),
        settings=Settings(**{"certs_dir": "/nonexistent", **settings}),
    )
    pull(wanted, store, daemon.job)
    return daemon


def test_loopback_needs_no_certificate(
    secure: FakeRegistry, registry: FakeRegistry, store: LayerStore, graph: Path
) -> None:
    do_pull(secure, store, graph)
    registry.add("a/b", "latest", IMAGE)
    do_pull(registry, store, graph)


@pytest.mark.usefixtures("not_loopback")
def test_an_unknown_ca_is_refused(secure: FakeRegistry, store: LayerStore, graph: Path) -> None:
    with pytest.raises(errors.Unavailable, match=f"TLS with {secure.host} failed") as found:
        do_pull(secure, store, graph)
    assert "certs.d" in found.value.hint
    assert not found.value.retryable


@pytest.mark.usefixtures("not_loopback")
def test_a_ca_alone_is_enough(
    secure: FakeRegistry, certs: Path, authority: Authority, store: LayerStore, graph: Path
) -> None:
    shutil.copy(authority.certificate, certs / "ca.crt")
    do_pull(secure, store, graph, certs_dir=str(certs.parent))


@pytest.mark.usefixtures("not_loopback")
def test_a_pair_alone_and_all_three(
    secure: FakeRegistry, certs: Path, authority: Authority, store: LayerStore, graph: Path
) -> None:
    pair = authority.sign("client")
    shutil.copy(pair.certificate, certs / "client.cert")
    shutil.copy(pair.key, certs / "client.key")
    do_pull(secure, store, graph, certs_dir=str(certs.parent), insecure=(secure.host,))
    shutil.copy(authority.certificate, certs / "ca.crt")
    do_pull(secure, store, graph, certs_dir=str(certs.parent))


@pytest.mark.parametrize(("name", "text"), [("x.cert", "key file"), ("x.key", "cert file")])
def test_half_a_pair_is_an_error(
    secure: FakeRegistry, certs: Path, store: LayerStore, graph: Path, name: str, text: str
) -> None:
    (certs / name).write_text("")
    with pytest.raises(errors.FailedPrecondition, match=f"lack corresponding {text}"):
        do_pull(secure, store, graph, certs_dir=str(certs.parent))


def test_a_bad_certificate_file_is_named(
    secure: FakeRegistry, certs: Path, store: LayerStore, graph: Path
) -> None:
    (certs / "ca.crt").write_text("nonsense")
    with pytest.raises(errors.FailedPrecondition, match=r"ca\.crt"):
        do_pull(secure, store, graph, certs_dir=str(certs.parent))


@pytest.mark.usefixtures("not_loopback")
def test_insecure_registries(
    secure: FakeRegistry, registry: FakeRegistry, store: LayerStore, graph: Path
) -> None:
    registry.add("a/b", "latest", IMAGE)
    for host in (secure, registry):
        do_pull(host, store, graph, insecure=(host.host,))
        do_pull(host, store, graph, insecure=("127.0.0.0/8",))
    do_pull(secure, store, graph, skip_verify=True)
    # without its port it is another one
    with pytest.raises(errors.Unavailable):
        do_pull(secure, store, graph, insecure=("127.0.0.1",))


@pytest.mark.usefixtures("not_loopback")
def test_plain_http_where_https_is_wanted(
    registry: FakeRegistry, store: LayerStore, graph: Path
) -> None:
    with pytest.raises(errors.Unavailable, match=registry.host):
        do_pull(registry, store, graph)
    assert registry.seen("/v2/") == []


@pytest.mark.usefixtures("not_loopback")
def test_insecure_of_one_mirror_is_not_that_of_the_next(
    secure: FakeRegistry, registry: FakeRegistry, graph: Path, store: LayerStore
) -> None:
    wanted = PullRequest(
        ref="a/b",
        tmpdir=str(graph / "tmp"),
        mirrors=[registry.url, secure.host],
        settings=Settings(certs_dir="/nonexistent"),
    )
    with pytest.raises(errors.Unavailable, match="TLS"):
        pull(wanted, store, FakeDaemon().job)


@pytest.mark.usefixtures("not_loopback")
@pytest.mark.parametrize(
    ("start", "end", "state"),
    [
        ("20900101000000Z", "20990101000000Z", "is not yet valid"),
        ("20200101000000Z", "20210101000000Z", "has expired"),
    ],
)
def test_a11_a_wrong_clock_is_named(
    authority: Authority,
    tmp_path: Path,
    store: LayerStore,
    graph: Path,
    start: str,
    end: str,
    state: str,
) -> None:
    with FakeRegistry(tls=authority.sign("odd", start, end)) as registry:
        folder = tmp_path / "certs.d" / registry.host
        folder.mkdir(parents=True)
        shutil.copy(authority.certificate, folder / "ca.crt")
        with pytest.raises(errors.Unavailable, match=f"{state}; the local time is 20") as found:
            do_pull(registry, store, graph, certs_dir=str(folder.parent))
        assert found.value.retryable
        assert "clock" in found.value.hint


@pytest.mark.usefixtures("not_loopback")
def test_https_does_not_become_http_unnoticed(
    secure: FakeRegistry,
    registry: FakeRegistry,
    certs: Path,
    authority: Authority,
    store: LayerStore,
    graph: Path,
) -> None:
    shutil.copy(authority.certificate, certs / "ca.crt")
    registry.add("a/b", "latest", IMAGE)
    # blobs have a digest and may come from anywhere
    secure.faults.redirect_blobs = registry.url
    do_pull(secure, store, graph, certs_dir=str(certs.parent))
    target = {"Location": f"{registry.url}/v2/a/b/manifests/latest"}
    secure.faults.statuses = {"/manifests/": [(302, target)]}
    with pytest.raises(errors.Unavailable, match="redirects from HTTPS to plain HTTP"):
        do_pull(secure, store, graph, certs_dir=str(certs.parent))
    realm = f'Bearer realm="{registry.url}/token",service="fake"'
    secure.faults.statuses = {"/v2/": [(401, {"WWW-Authenticate": realm})]}
    wanted = PullRequest(
        ref=f"{secure.host}/a/b",
        tmpdir=str(graph / "tmp"),
        settings=Settings(certs_dir=str(certs.parent)),
        auths={secure.host: Credentials("u", "p")},
    )
    with pytest.raises(errors.Unavailable, match="password over plain HTTP"):
        pull(wanted, store, FakeDaemon().job)


def test_through_a_proxy(
    registry: FakeRegistry, store: LayerStore, graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fake registry serves absolute URLs as a proxy gets them."""
    monkeypatch.setenv("HTTP_PROXY", registry.url)
    registry.add("a/b", "latest", IMAGE)
    wanted = PullRequest(ref="a/b", tmpdir=str(graph / "tmp"), mirrors=["http://far.invalid"])
    pull(wanted, store, FakeDaemon().job)
    assert registry.seen("http://far.invalid/v2/")


def test_a_proxy_that_is_down_or_none(
    store: LayerStore, graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = PullRequest(ref="a/b", tmpdir=str(graph / "tmp"), mirrors=["http://far.invalid"])
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with pytest.raises(errors.Unavailable, match=r"far\.invalid through the proxy"):
        pull(wanted, store, FakeDaemon().job)
    monkeypatch.setenv("HTTP_PROXY", "socks5://u:secret@h:1")
    with pytest.raises(errors.InvalidArgument, match="proxy") as found:
        pull(wanted, store, FakeDaemon().job)
    assert "secret" not in str(found.value)


@pytest.mark.parametrize(
    ("user", "basic"),
    [
        ("u:p@", "u:p"),
        ("u:p%23%40%25w@", "u:p#@%w"),
        ("dom%5Cu:%C3%A4%E2%82%AC@", "dom\\u:\u00e4\u20ac"),
        ("u@", "u"),
    ],
)
def test_the_password_of_a_proxy_is_sent_as_it_is(
    registry: FakeRegistry,
    store: LayerStore,
    graph: Path,
    monkeypatch: pytest.MonkeyPatch,
    user: str,
    basic: str,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://{user}{registry.host}")
    registry.add("a/b", "latest", IMAGE)
    wanted = PullRequest(ref="a/b", tmpdir=str(graph / "tmp"), mirrors=["http://far.invalid"])
    pull(wanted, store, FakeDaemon().job)
    sent = {item.headers["proxy-authorization"] for item in registry.requests}
    assert sent == {f"Basic {base64.b64encode(basic.encode()).decode()}"}


@pytest.mark.parametrize("proxy", ["http://u:secret#w@h:1", "http://u:secret/w@h:1", "http://[h"])
def test_a_proxy_that_is_no_url_is_named_without_its_password(
    store: LayerStore, graph: Path, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy)
    wanted = PullRequest(ref="a/b", tmpdir=str(graph / "tmp"), mirrors=["http://far.invalid"])
    with pytest.raises(errors.InvalidArgument, match="proxy") as found:
        pull(wanted, store, FakeDaemon().job)
    assert "%XX" in found.value.hint
    assert "secret" not in f"{found.value} {found.value.hint}"


@pytest.mark.usefixtures("not_loopback")
def test_several_authorities_and_other_files(
    secure: FakeRegistry,
    certs: Path,
    authority: Authority,
    store: LayerStore,
    graph: Path,
    tmp_path: Path,
) -> None:
    other = Authority(tmp_path / "other")
    shutil.copy(other.certificate, certs / "a.crt")
    shutil.copy(authority.certificate, certs / "b.crt")
    (certs / "README").write_text("not a certificate")
    (certs / "old.crt.bak").write_text("not a certificate")
    do_pull(secure, store, graph, certs_dir=str(certs.parent))


def test_an_encrypted_key_is_refused_and_nobody_is_asked(
    secure: FakeRegistry, certs: Path, authority: Authority, store: LayerStore, graph: Path
) -> None:
    pair = authority.sign("client")
    shutil.copy(pair.certificate, certs / "client.cert")
    words = ["openssl", "ec", "-in", str(pair.key), "-out", str(certs / "client.key"), "-aes256"]
    subprocess.run([*words, "-passout", "pass:secret"], check=True, capture_output=True)
    with pytest.raises(errors.FailedPrecondition, match=r"client\.cert: its key is encrypted"):
        do_pull(secure, store, graph, certs_dir=str(certs.parent))


def test_the_default_port_has_a_directory_of_its_own(
    authority: Authority, certs: Path, tmp_path: Path
) -> None:
    """An origin has no default port; a directory, and a list, may."""
    folder = tmp_path / "certs.d" / "r.io:443"
    folder.mkdir()
    shutil.copy(authority.certificate, folder / "ca.crt")
    sender = Transport(Settings(certs_dir=str(folder.parent)), FakeDaemon().job)
    added = sender._context("r.io").cert_store_stats()["x509"]
    assert added == sender._context("other.io").cert_store_stats()["x509"] + 1
    assert sender._context("r.io").verify_mode is ssl.CERT_REQUIRED
    listed = Transport(Settings(insecure=("https://r.io:443",)), FakeDaemon().job)
    assert listed._context("r.io").verify_mode is ssl.CERT_NONE


@pytest.mark.usefixtures("not_loopback")
def test_a11_a_certificate_that_becomes_valid_is_waited_for(
    authority: Authority,
    tmp_path: Path,
    store: LayerStore,
    graph: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The waiting is replaced: while it lasts the registry gets a certificate of today."""
    with FakeRegistry(tls=authority.sign("future", "20900101000000Z")) as registry:
        registry.add("a/b", "latest", IMAGE)
        folder = tmp_path / "certs.d" / registry.host
        folder.mkdir(parents=True)
        shutil.copy(authority.certificate, folder / "ca.crt")
        waits: list[float] = []

        def wait(_watch: ClockWatch, seconds: float) -> bool:
            waits.append(seconds)
            registry.use(authority.sign("now"))
            return True

        monkeypatch.setattr(ClockWatch, "wait", wait)
        daemon = FakeDaemon()
        wanted = PullRequest(
            ref=f"{registry.host}/a/b",
            tmpdir=str(graph / "tmp"),
            settings=Settings(certs_dir=str(folder.parent)),
            clock_timeout_s=60,
        )
        pull(wanted, store, daemon.job)
    assert len(waits) == 1
    assert daemon.image["id"] == IMAGE.id
    assert "Waiting for the clock" in {item["status"] for item in daemon.of("v")}


@pytest.mark.usefixtures("not_loopback")
def test_a_registry_that_wants_a_client_certificate(
    secure: FakeRegistry, certs: Path, authority: Authority, store: LayerStore, graph: Path
) -> None:
    secure.use(authority.sign("registry"), clients=authority.certificate)
    shutil.copy(authority.certificate, certs / "ca.crt")
    with pytest.raises(errors.Unavailable, match="TLS") as found:
        do_pull(secure, store, graph, certs_dir=str(certs.parent))
    assert f"certs.d/{secure.host}/client.cert" in found.value.hint
    pair = authority.sign("client")
    shutil.copy(pair.certificate, certs / "client.cert")
    shutil.copy(pair.key, certs / "client.key")
    do_pull(secure, store, graph, certs_dir=str(certs.parent))

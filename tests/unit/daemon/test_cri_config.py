"""Keys of daemon.json for Kubernetes: what they become, and what is refused by name."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from isula_edge.daemon import config
from isula_edge.daemon.cri_config import parse
from isula_edge.service.config import CriConfig

if TYPE_CHECKING:
    from pathlib import Path

FILE = "/etc/isulad/daemon.json"
LONGEST = "unix:///" + "a" * 106


def test_nothing_said_is_the_default() -> None:
    assert parse({}, FILE) == CriConfig()


EMPTY: dict[str, Any] = {
    "cri-socket": "",
    "enable-cri-v1": False,
    "cri-runtimes": {},
    "pod-sandbox-image": "",
    "cni-conf-dir": "",
    "cni-bin-dir": "",
    "cni-cache-dir": "",
    "stream-server-address": "",
    "websocket-server-listening-port": 0,
    "stream-server-cert": "",
    "stream-server-key": "",
    "cdi-spec-dirs": [],
    "nri-support": False,
    "nri-socket-path": "",
    "plugin-path": "",
    "plugin-config-path": "",
    "plugin-registration-timeout": 0,
    "plugin-requst-timeout": 0,
}


@pytest.mark.parametrize("key", EMPTY)
def test_an_empty_value_is_the_default(key: str) -> None:
    assert parse({key: EMPTY[key]}, FILE) == CriConfig()


TAKEN: list[tuple[str, Any, dict[str, Any]]] = [
    ("cri-socket", "unix:///run/c.sock", {"socket": "/run/c.sock", "eager": True}),
    ("cri-socket", LONGEST, {"socket": "/" + "a" * 106, "eager": True}),
    ("enable-cri-v1", True, {"eager": True}),
    ("cri-runtimes", {"kata": "kata-runtime"}, {"handlers": {"kata": "kata-runtime"}}),
    ("pod-sandbox-image", "pause:3", {"pod_sandbox_image": "pause:3"}),
    ("cni-conf-dir", "/c", {"cni_conf_dir": "/c"}),
    ("cni-bin-dir", "/a", {"cni_bin_dirs": ("/a",)}),
    ("cni-bin-dir", "/a,/b", {"cni_bin_dirs": ("/a", "/b")}),
    ("cni-bin-dir", ":/a::/b,", {"cni_bin_dirs": ("/a", "/b")}),
    ("cni-cache-dir", "/c", {"cni_cache_dir": "/c"}),
    ("stream-server-address", "0.0.0.0", {"stream_address": "0.0.0.0"}),
    ("websocket-server-listening-port", 1, {"stream_port": 1}),
    ("websocket-server-listening-port", 65535, {"stream_port": 65535}),
    ("enable-cdi", False, {"cdi": False}),
    ("cdi-spec-dirs", ["/a", "/b"], {"cdi_dirs": ("/a", "/b")}),
    ("nri-support", True, {"nri": True}),
    ("nri-socket-path", "/n", {"nri_socket": "/n"}),
    ("disable-connections", True, {"nri_connections": False}),
    ("plugin-path", "/p", {"nri_plugin_dir": "/p"}),
    ("plugin-config-path", "/p", {"nri_config_dir": "/p"}),
    ("plugin-registration-timeout", 7, {"nri_registration_s": 7.0}),
    ("plugin-requst-timeout", 7, {"nri_request_s": 7.0}),
]


@pytest.mark.parametrize(("key", "value", "expected"), TAKEN)
def test_a_value_is_taken(key: str, value: Any, expected: dict[str, Any]) -> None:
    assert parse({key: value}, FILE) == CriConfig(**expected)


def test_a_certificate_and_its_key() -> None:
    found = parse({"stream-server-cert": "/c", "stream-server-key": "/k"}, FILE)
    assert found == CriConfig(stream_cert="/c", stream_key="/k")


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"stream-server-cert": "/c"}, "stream-server-cert"),
    ({"stream-server-key": "/k"}, "stream-server-cert"),
    ({"stream-server-cert": "/c", "stream-server-key": ""}, "stream-server-cert"),
    ({"websocket-server-listening-port": -1}, "websocket-server-listening-port"),
    ({"websocket-server-listening-port": 65536}, "websocket-server-listening-port"),
    ({"cri-socket": "/run/c.sock"}, "cri-socket"),
    ({"cri-socket": "unix://run/c.sock"}, "cri-socket"),
    ({"cri-socket": "unix:///"}, "cri-socket"),
    ({"cri-socket": "unix:///run/"}, "cri-socket"),
    ({"cri-socket": "tcp://1.2.3.4:5"}, "cri-socket"),
    ({"cri-socket": LONGEST + "a"}, "cri-socket"),
    ({"cri-socket": "unix:///" + "ä" * 54}, "cri-socket"),
    ({"cni-bin-dir": "a"}, "cni-bin-dir"),
    ({"cni-bin-dir": "/a,b"}, "cni-bin-dir"),
    ({"cdi-spec-dirs": ["/a", "b"]}, "cdi-spec-dirs"),
    ({"plugin-registration-timeout": -1}, "plugin-registration-timeout"),
    ({"plugin-requst-timeout": -1}, "plugin-requst-timeout"),
]


@pytest.mark.parametrize(("table", "key"), REFUSED)
def test_a_wrong_value_is_refused_with_file_and_key(table: dict[str, Any], key: str) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        parse(table, FILE)
    assert str(caught.value).startswith(f"{FILE}: {key}")
    assert caught.value.ref == key
    assert "\n" not in str(caught.value)


def load(folder: Path, document: dict[str, Any]) -> config.DaemonConfig:
    file = folder / "daemon.json"
    file.write_text(json.dumps(document))
    return config.load(config.parse_arguments(["--config", str(file)]))


def test_the_file_is_read_as_a_whole(tmp_path: Path) -> None:
    document = {"nri-support": True, "cni-bin-dir": "/a:/b", "cri-runtimes": {"fast": "runc"}}
    found = load(tmp_path, document)
    assert found.problems == ()
    assert found.engine.cri == parse(document, FILE)


def test_the_clients_socket_cannot_be_the_cris_alone(tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidArgument, match="cri-socket /a is one of hosts") as caught:
        load(tmp_path, {"cri-socket": "unix:///a", "hosts": ["unix:///b", "unix:///a"]})
    assert caught.value.ref == "cri-socket"
    assert load(tmp_path, {"cri-socket": "unix:///a", "hosts": ["unix:///b"]}).engine.cri.eager

"""Names of registries: which are one, and where credentials for them go."""

from __future__ import annotations

import pytest

from isula_edge import errors
from isula_edge.image import hosts


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("docker.io", "docker.io"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
        ("Reg.Example.COM:5000", "reg.example.com:5000"),
        ("https://reg.example.com/v1/", "reg.example.com"),
        ("http://reg.example.com:80/v2/", "reg.example.com:80"),
        ("reg.example.com/team", "reg.example.com"),
        ("[::1]:5000", "[::1]:5000"),
        ("localhost", "localhost"),
    ],
)
def test_one_name_for_a_registry(text: str, host: str) -> None:
    assert hosts.canonical(text) == host
    assert hosts.checked(text) == host
    assert hosts.canonical(hosts.key_of(host)) == host
    assert hosts.canonical(hosts.contact(host)) == host


@pytest.mark.parametrize("text", ["", "https://", "ftp://a.b", "u@h", "a b", "a:port", "-x"])
def test_what_is_no_registry_is_refused(text: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="Invalid registry server"):
        hosts.checked(text)


@pytest.mark.parametrize(
    ("ref", "asked", "home"),
    [
        ("busybox", ["m:1", "docker.io"], "docker.io"),
        ("docker.io/busybox", ["hm", "docker.io"], "docker.io"),
        ("index.docker.io/a/b", ["hm", "docker.io"], "docker.io"),
        ("R.io:5000/a", ["r.io:5000"], "r.io:5000"),
    ],
)
def test_who_is_asked_in_a_pull(ref: str, asked: list[str], home: str) -> None:
    mirrors = ["http://m:1/x", "https://registry-1.docker.io", "m:1"]
    assert hosts.of_pull(ref, mirrors, {"docker.io": ["https://hm/"]}) == asked
    assert hosts.home(ref) == home

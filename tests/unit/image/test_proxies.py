"""Which proxy serves which host."""

from __future__ import annotations

import pytest

from isula_edge.image import proxies

ENVIRONMENT = {"HTTP_PROXY": "http://plain:1", "https_proxy": "secure:2"}


def test_all_proxy_is_for_what_has_none_of_its_own() -> None:
    environment = {"ALL_PROXY": "http://all:3", "http_proxy": "plain:1"}
    assert proxies.for_url("https", "r.io", environment) == "http://all:3"
    assert proxies.for_url("http", "r.io", environment) == "http://plain:1"
    assert proxies.for_url("https", "r.io", {"all_proxy": "x", "no_proxy": "r.io"}) == ""


def test_blanks_are_nothing() -> None:
    assert proxies.for_url("https", "r.io", {"HTTPS_PROXY": " ", "https_proxy": "p"}) == "http://p"


def test_the_scheme_decides() -> None:
    assert proxies.for_url("http", "r.io", ENVIRONMENT) == "http://plain:1"
    assert proxies.for_url("https", "r.io", ENVIRONMENT) == "http://secure:2"
    assert proxies.for_url("https", "r.io", {}) == ""


@pytest.mark.parametrize("host", ["localhost:5000", "127.0.0.1", "127.9.9.9:1", "[::1]:5000"])
def test_loopback_has_none(host: str) -> None:
    assert proxies.for_url("http", host, ENVIRONMENT) == ""


@pytest.mark.parametrize(
    ("no_proxy", "host", "exempt"),
    [
        ("*", "r.io", True),
        ("r.io", "r.io", True),
        ("r.io", "a.r.io:5000", True),
        ("r.io", "other.io", False),
        ("r.io", "notr.io", False),
        (".r.io", "a.r.io", True),
        (".r.io", "r.io", False),
        ("*.r.io", "a.r.io", True),
        ("r.io:443", "r.io", True),
        ("r.io:80", "r.io", False),
        ("R.IO", "r.io", True),
        ("10.0.0.0/8", "10.1.2.3:5000", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.1.2.3", "10.1.2.3:5000", True),
        ("fd00::/8", "[fd00::1]:5000", True),
        ("bad/cidr, ,:80,.", "r.io", False),
        ("x.io , r.io", "r.io", True),
        ("x.io r.io\ty.io", "r.io", True),
        ("10.1.2.3:5000", "10.1.2.3:5000", True),
        ("10.1.2.3:5000", "10.1.2.3:5001", False),
        ("10.1.2.3:443", "10.1.2.3", True),
        ("[fd00::1]:5000", "[fd00::1]:5000", True),
        ("[FD00:0::1]", "[fd00::1]:5000", True),
        ("fd00::1", "[fd00:0::1]", True),
        ("fd00::1", "[fd00::2]", False),
        ("::/0", "10.1.2.3", False),
        ("1.2.3.4", "r1.2.3.4", False),
    ],
)
def test_no_proxy(no_proxy: str, host: str, exempt: bool) -> None:
    found = proxies.for_url("https", host, {**ENVIRONMENT, "NO_PROXY": no_proxy})
    assert (found == "") is exempt

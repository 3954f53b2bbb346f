"""Which proxy serves which host."""

from __future__ import annotations

import pytest

from isula_edge.image import proxies

ENVIRONMENT = {"HTTP_PROXY": "http://plain:1", "https_proxy": "secure:2"}


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
    ],
)
def test_no_proxy(no_proxy: str, host: str, exempt: bool) -> None:
    found = proxies.for_url("https", host, {**ENVIRONMENT, "NO_PROXY": no_proxy})
    assert (found == "") is exempt

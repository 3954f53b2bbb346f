"""Results of plugins: checked and converted between versions."""

from __future__ import annotations

from typing import Any

import pytest

from isula_edge import errors
from isula_edge.network.result import addresses, check_cidr, convert, validate

OLD = {
    "cniVersion": "0.2.0",
    "ip4": {"ip": "10.0.0.2/24", "gateway": "10.0.0.1", "routes": [{"dst": "0.0.0.0/0"}]},
    "ip6": {"ip": "fd00::2/64", "routes": [{"dst": "::/0", "gw": "fd00::1"}]},
    "dns": {"nameservers": ["10.0.0.1"]},
}
MIDDLE = {
    "cniVersion": "0.4.0",
    "ips": [
        {"version": "4", "address": "10.0.0.2/24", "gateway": "10.0.0.1"},
        {"version": "6", "address": "fd00::2/64"},
    ],
    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0", "gw": "fd00::1"}],
    "dns": {"nameservers": ["10.0.0.1"]},
}
NEW = {
    **MIDDLE,
    "cniVersion": "1.1.0",
    "ips": [{"address": "10.0.0.2/24", "gateway": "10.0.0.1"}, {"address": "fd00::2/64"}],
}


@pytest.mark.parametrize("source", [OLD, MIDDLE, NEW])
@pytest.mark.parametrize("target", [OLD, MIDDLE, NEW])
def test_every_form_becomes_every_other(source: dict[str, Any], target: dict[str, Any]) -> None:
    result = validate(source, "0.1.0")
    assert convert(result, target["cniVersion"]) == target


def test_fields_that_nobody_knows_are_kept() -> None:
    interface = {"name": "eth0", "mtu": 1400, "socketPath": "/x", "future": [1]}
    ip = {"version": "4", "address": "10.0.0.2/24", "future": True}
    raw = {"cniVersion": "0.3.1", "interfaces": [interface], "ips": [ip], "future": {}}
    result = convert(validate(raw, "0.3.1"), "1.0.0")
    assert result["interfaces"] == [interface]
    assert result["ips"] == [{"address": "10.0.0.2/24", "future": True}]
    assert result["future"] == {}


def test_a_result_without_version_has_that_of_the_network() -> None:
    assert validate({}, "0.4.0") == {"cniVersion": "0.4.0"}
    assert validate({"cniVersion": ""}, "0.4.0") == {"cniVersion": "0.4.0"}


def test_addresses_outside_the_container_are_left_out() -> None:
    interfaces = [{"name": "veth1"}, {"name": "eth0", "sandbox": "/ns"}]
    ips = [
        {"address": "10.0.0.1/24", "interface": 0},
        {"address": "10.0.0.2/24", "interface": 1},
        {"address": "fd00::2/64"},
        {"address": "10.0.0.9/24", "interface": 7},
    ]
    result = {"cniVersion": "1.0.0", "interfaces": interfaces, "ips": ips}
    assert addresses(result) == ["10.0.0.2/24", "fd00::2/64", "10.0.0.9/24"]
    assert addresses({**result, "ips": ips[:1]}) == ["10.0.0.1/24"]
    assert addresses({"cniVersion": "1.0.0"}) == []
    assert addresses(validate(OLD, "0.1.0")) == ["10.0.0.2/24", "fd00::2/64"]


@pytest.mark.parametrize(
    ("text", "family"), [("10.0.0.0/8", 4), ("fd00::/64", 6), ("::ffff:1.2.3.4/96", 6)]
)
def test_addresses_with_a_prefix(text: str, family: int) -> None:
    assert check_cidr(text) == family


@pytest.mark.parametrize(
    "text",
    ["", "10.0.0.1", "10.0.0.1/", "10.0.0.1/33", "fd00::/129", "fd00::%eth0/64", "10.0.0/8", "a/8",
     "10.0.0.1/-1", "10.0.0.1/٣", "10.0.0.1/24 ", "\0/8", None, 7, [], {}],
)  # fmt: skip
def test_what_is_no_address_with_a_prefix(text: object) -> None:
    with pytest.raises(errors.InvalidArgument):
        check_cidr(text)


@pytest.mark.parametrize(
    "raw",
    [
        None,
        [],
        "x",
        7,
        {"cniVersion": 1},
        {"cniVersion": "one"},
        {"ips": {}},
        {"ips": [1]},
        {"ips": [{}]},
        {"ips": [{"address": "10.0.0.1"}]},
        {"ips": [{"address": "10.0.0.1/8", "gateway": 1}]},
        {"ips": [{"address": "10.0.0.1/8", "interface": "0"}]},
        {"ips": [{"address": "10.0.0.1/8", "interface": True}]},
        {"interfaces": "eth0"},
        {"interfaces": [{}]},
        {"interfaces": [{"name": "eth0", "mac": 1}]},
        {"interfaces": [{"name": "eth0", "sandbox": []}]},
        {"routes": [{}]},
        {"routes": [{"dst": "0.0.0.0/0", "gw": 1}]},
        {"routes": ["0.0.0.0/0"]},
        {"dns": []},
        {"dns": {"nameservers": "10.0.0.1"}},
        {"dns": {"search": [None]}},
        {"cniVersion": "0.2.0", "ip4": []},
        {"cniVersion": "0.2.0", "ip4": {"ip": "x"}},
        {"cniVersion": "0.2.0", "ip4": {"ip": "10.0.0.1/8", "routes": 1}},
    ],
)
def test_what_is_no_result(raw: object) -> None:
    with pytest.raises(errors.InvalidArgument):
        validate(raw, "1.0.0")

"""Results of plugins: checked, and converted between versions of the specification.

Three forms exist: 0.1 and 0.2 have ``ip4`` and ``ip6``; 0.3 and 0.4 a list ``ips`` whose items
say their IP version; since 1.0 they do not.  Everything is kept as JSON values, so that fields
this engine does not know reach the next plugin.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.network import versions

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["addresses", "check_cidr", "convert", "family_of", "validate"]

_Result = dict[str, Any]


def family_of(address: str) -> int:
    """4 or 6 for a literal address, 0 for anything else."""
    for family, number in ((socket.AF_INET, 4), (socket.AF_INET6, 6)):
        try:
            socket.inet_pton(family, address)
        except (OSError, ValueError):
            continue
        return number
    return 0


def check_cidr(text: object) -> int:
    """The IP version of ``text``, an address with a prefix length; raises InvalidArgument."""
    address, slash, prefix = text.partition("/") if isinstance(text, str) else ("", "", "")
    family = family_of(address)
    if not family or not slash or not (prefix.isascii() and prefix.isdigit() and len(prefix) < 4):
        raise errors.InvalidArgument(f"invalid address with prefix: {text!r:.100}")
    if int(prefix) > (32 if family == 4 else 128):
        raise errors.InvalidArgument(f"invalid prefix length: {text!r:.100}")
    return family


def validate(raw: object, version: str) -> _Result:
    """``raw`` if it is a result, with its cniVersion (``version`` if it says none).

    Raises InvalidArgument.
    """
    if not isinstance(raw, dict):
        raise errors.InvalidArgument("the result is no JSON object")
    said = raw["cniVersion"] if raw.get("cniVersion") not in (None, "") else version
    if not isinstance(said, str):
        raise errors.InvalidArgument("the result's cniVersion is no string")
    result = {**raw, "cniVersion": said}
    if versions.at_least(said, "0.3.0"):
        _each(result, "interfaces", _check_interface)
        _each(result, "ips", _check_ip)
        _each(result, "routes", _check_route)
    else:
        for key in ("ip4", "ip6"):
            part = _object(result, key)
            if part is not None:
                check_cidr(part.get("ip"))
                _text(part, "gateway")
                _each(part, "routes", _check_route)
    dns = _object(result, "dns") or {}
    for key in ("nameservers", "search", "options"):
        _each(dns, key, _check_text)
    return result


def convert(result: _Result, version: str) -> _Result:
    """A valid ``result`` in the form that ``version`` has."""
    forms = [_form(str(result["cniVersion"])), _form(version)]
    if forms[0] == 1 and forms[1] > 1:
        result = _flat(result)
    elif forms[0] > 1 and forms[1] == 1:
        result = _nested(result)
    if forms[1] > 1 and result.get("ips"):
        result = {**result, "ips": [_ip_for(item, forms[1]) for item in result["ips"]]}
    return {**result, "cniVersion": version}


def addresses(result: _Result) -> list[str]:
    """Addresses of the container with their prefix lengths, in the result's order.

    Those of interfaces that lie outside the container are left out, unless there are no others.
    """
    flat = convert(result, versions.NEWEST)
    interfaces = flat.get("interfaces") or []
    every = [(str(item["address"]), item.get("interface")) for item in flat.get("ips") or []]
    inside = [
        address
        for address, index in every
        if index is None or not 0 <= index < len(interfaces) or interfaces[index].get("sandbox")
    ]
    return inside or [address for address, _ in every]


def _form(version: str) -> int:
    if versions.at_least(version, "1.0.0"):
        return 3
    return 2 if versions.at_least(version, "0.3.0") else 1


def _ip_for(item: _Result, form: int) -> _Result:
    rest = {key: value for key, value in item.items() if key != "version"}
    return rest if form == 3 else {"version": str(check_cidr(item["address"])), **rest}


def _flat(result: _Result) -> _Result:
    """0.1 and 0.2 as later versions have it, IP versions left out."""
    ips: list[_Result] = []
    routes: list[_Result] = []
    for key in ("ip4", "ip6"):
        part = result.get(key)
        if part:
            ip = {"address": part["ip"]}
            ips.append(ip | ({"gateway": part["gateway"]} if part.get("gateway") else {}))
            routes += part.get("routes") or []
    rest = {key: value for key, value in result.items() if key not in ("ip4", "ip6")}
    return {**rest, "ips": ips, "routes": routes}


def _nested(result: _Result) -> _Result:
    """Later versions as 0.1 and 0.2 have it: the first address of each IP version."""
    nested = {key: value for key, value in result.items() if key not in ("interfaces", "ips")}
    routes = nested.pop("routes", None) or []
    for family in (4, 6):
        for item in result.get("ips") or []:
            if check_cidr(item["address"]) != family:
                continue
            part = {"ip": item["address"]}
            part |= {"gateway": item["gateway"]} if item.get("gateway") else {}
            chosen = [route for route in routes if check_cidr(route["dst"]) == family]
            nested[f"ip{family}"] = {**part, "routes": chosen}
            break
    return nested


def _check_interface(item: object) -> None:
    if not isinstance(item, dict) or not isinstance(item.get("name"), str):
        raise errors.InvalidArgument("an interface of the result has no name")
    _text(item, "mac")
    _text(item, "sandbox")


def _check_ip(item: object) -> None:
    if not isinstance(item, dict):
        raise errors.InvalidArgument("an address of the result is no JSON object")
    check_cidr(item.get("address"))
    _text(item, "gateway")
    index = item.get("interface")
    if index is not None and (not isinstance(index, int) or isinstance(index, bool)):
        raise errors.InvalidArgument("an address of the result names an interface by no number")


def _check_route(item: object) -> None:
    if not isinstance(item, dict):
        raise errors.InvalidArgument("a route of the result is no JSON object")
    check_cidr(item.get("dst"))
    _text(item, "gw")


def _check_text(item: object) -> None:
    if not isinstance(item, str):
        raise errors.InvalidArgument("the result's dns has something that is no string")


def _each(of: _Result, key: str, check: Callable[[object], None]) -> None:
    items = of.get(key)
    if items is None:
        return
    if not isinstance(items, list):
        raise errors.InvalidArgument(f"{key} of the result is no list")
    for item in items:
        check(item)


def _object(of: _Result, key: str) -> _Result | None:
    value = of.get(key)
    if value is not None and not isinstance(value, dict):
        raise errors.InvalidArgument(f"{key} of the result is no JSON object")
    return value


def _text(of: _Result, key: str) -> None:
    if not isinstance(of.get(key, ""), str | None):
        raise errors.InvalidArgument(f"{key} of the result is no string")

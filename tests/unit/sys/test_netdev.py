"""Counters of network interfaces."""

from __future__ import annotations

from isula_edge.sys.netdev import Interface, interfaces, parse

TEXT = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo
    lo:    3745      39    0    0    0     0          0         0     3745      39    0    0    0 0 0 0
eth0.5:1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16
"""  # noqa: E501


def test_columns_of_proc_net_dev() -> None:
    assert parse(TEXT) == [
        Interface("lo", 3745, 39, 0, 0, 3745, 39, 0, 0),
        Interface("eth0.5", 1, 2, 3, 4, 9, 10, 11, 12),
    ]


def test_a_namespace_that_is_gone_is_left_out() -> None:
    assert interfaces(["/nowhere/net", "/nowhere/net"]) == {}
    assert interfaces([]) == {}

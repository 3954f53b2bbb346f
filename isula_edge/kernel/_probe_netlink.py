"""Netlink messages that tell which kinds of link and packet filter the kernel has.

None of them changes anything: a link is asked for with an address of zeros, which every
kind refuses before it makes the device; the packet filter is asked for its generation,
and given an empty batch.
"""

from __future__ import annotations

import socket
import struct

from isula_edge.kernel.source import Answer

__all__ = ["link", "nft_batch", "nft_getgen"]

_ROUTE, _NETFILTER = 0, 12
_REQUEST, _ACK, _EXCL, _CREATE = 0x1, 0x4, 0x200, 0x400
_NLMSG_ERROR = 2
_RTM_NEWLINK = 16
_IFLA_ADDRESS, _IFLA_LINKINFO, _IFLA_INFO_KIND = 1, 18, 1
_NFT = 10
_NFT_GETGEN = _NFT << 8 | 16
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def _message(kind: int, flags: int, payload: bytes, sequence: int = 1) -> bytes:
    return struct.pack("=IHHII", 16 + len(payload), kind, flags, sequence, 0) + payload


def _exchange(protocol: int, data: bytes, silence: Answer) -> Answer:
    """Sends ``data``; the kernel has worked on it, and queued its answer, when send
    returns.  ``silence`` is what no answer means."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as channel:
            channel.bind((0, 0))
            channel.send(data)
            try:
                reply = channel.recv(8192, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return silence
    except OSError as error:
        return Answer.of(-1, error.errno or 0)
    if struct.unpack_from("=H", reply, 4)[0] != _NLMSG_ERROR:
        return Answer(0)
    number = -struct.unpack_from("=i", reply, 16)[0]
    return Answer(0) if number == 0 else Answer.of(-1, number)


def link(kind: str) -> Answer:
    """Answer to a new link of ``kind``: EOPNOTSUPP when the kernel has no such kind (it
    tries to load a module for it first)."""
    info = _attribute(_IFLA_INFO_KIND, kind.encode() + b"\0")
    payload = bytes(16) + _attribute(_IFLA_ADDRESS, bytes(6)) + _attribute(_IFLA_LINKINFO, info)
    flags = _REQUEST | _ACK | _CREATE | _EXCL
    return _exchange(_ROUTE, _message(_RTM_NEWLINK, flags, payload), Answer(-1, "EIO"))


def nft_getgen() -> Answer:
    """Answer to the question for the generation of nf_tables (EINVAL: not there)."""
    return _exchange(
        _NETFILTER, _message(_NFT_GETGEN, _REQUEST | _ACK, bytes(4)), Answer(-1, "EIO")
    )


def nft_batch() -> Answer:
    """Answer to an empty batch as today's nft sends it: success, or what is refused.

    Linux up to 3.19 reads the byte order of its subsystem number differently.
    """
    header = struct.pack("!BBH", 0, 0, _NFT)
    data = _message(_BATCH_BEGIN, _REQUEST, header) + _message(_BATCH_END, _REQUEST, header, 2)
    return _exchange(_NETFILTER, data, Answer(0))

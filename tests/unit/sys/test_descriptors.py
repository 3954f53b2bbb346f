"""Open files of processes."""

from __future__ import annotations

import os
import socket

from isula_edge.sys.descriptors import Descriptors, count, soft_limit


def test_files_and_sockets_of_this_process() -> None:
    before = count([os.getpid()])
    with socket.socket(), open("/dev/null"):
        after = count([os.getpid()])
    assert before.processes == after.processes == 1
    assert (after.files, after.sockets) == (before.files + 2, before.sockets + 1)


def test_a_process_that_is_gone_holds_nothing() -> None:
    assert count([2**22 + 1]) == Descriptors()
    assert soft_limit(2**22 + 1) is None


def test_the_soft_limit_of_this_process() -> None:
    import resource

    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert soft_limit(os.getpid()) == (None if soft == resource.RLIM_INFINITY else soft)

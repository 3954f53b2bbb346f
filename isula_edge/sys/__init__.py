"""Level 1: what the engine asks of the kernel and the file system.

Owns no state and no paths.  Every system call that Python lacks is in
:mod:`isula_edge.sys.syscalls`, every child process is started by
:mod:`isula_edge.sys.process`, every durable write is made by :mod:`isula_edge.sys.atomic`.
"""

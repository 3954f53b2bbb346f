"""The ``isula`` command: what a user types, sent to ``isulad`` and shown.

One module of :mod:`isula_cli.commands` per command.  A command that succeeds imports
that module, the client library and the wire format, and little else: its start-up
time is part of every figure a user sees.  Help, completion and the texts about
mistyped flags are click's work (:mod:`isula_cli.clickui`), loaded only for them.
The package is empty so that importing it costs nothing.
"""

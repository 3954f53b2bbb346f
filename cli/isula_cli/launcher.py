"""Writes the ``isula`` program: ``python -m isula_cli.launcher TARGET``.

The program starts Python isolated and without ``site``, which is most of the start-up
time of a script that an installer writes, and adds the directories it needs itself.
"""

from __future__ import annotations

__all__ = ["main", "script"]

import os
import sys
from importlib.util import find_spec

_LONGEST_FIRST_LINE = 250


def script(python: str) -> str:
    """Text of the program for the interpreter ``python``; raises ValueError if it cannot be."""
    first = f"#!{python} -IS"
    if not os.path.isabs(python) or len(os.fsencode(first)) > _LONGEST_FIRST_LINE or " " in python:
        raise ValueError(f"the kernel cannot run a script whose interpreter is {python!r}")
    places: list[str] = []
    for package in ("isula_cli", "isula_edge", "click"):
        spec = find_spec(package)
        if spec is not None and spec.origin:
            place = os.path.dirname(os.path.dirname(os.path.abspath(spec.origin)))
            if place not in places:
                places.append(place)
    return (
        f"{first}\n"
        "import sys\n\n"
        f"sys.path[:0] = {places!r}\n"
        "from isula_cli.main import main\n\n"
        "sys.exit(main())\n"
    )


def main(argv: list[str]) -> int:
    """Write the program to ``argv[0]``: the exit status."""
    if len(argv) != 1 or argv[0].startswith("-"):
        sys.stderr.write("Usage: python -m isula_cli.launcher TARGET\n")
        return 2
    target = argv[0]
    temporary = f"{target}.{os.getpid()}.tmp"
    try:
        text = script(sys.executable)
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            os.fchmod(file.fileno(), 0o755)
        os.replace(temporary, target)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"isula_cli.launcher: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

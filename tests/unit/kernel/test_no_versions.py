"""Nothing in the engine compares the version of a kernel: it asks for features."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[3]

SHOWN = {
    "isula_edge/service/system.py": "version and info show it",
    "isula_edge/sys/syscalls.py": "an error names it",
    "isula_edge/kernel/features.py": "a report names it",
    "isula_edge/kernel/_network.py": "modules lie in a folder of its name",
    # minKernel of a profile in Docker's format: its author means the release
    "isula_edge/profile/seccomp.py": "a condition that a profile states",
}
"""Files that may look at the release, and why."""

COMPARED = {"isula_edge/profile/seccomp.py"}

_SOURCES = ("/proc/sys/kernel/osrelease", "/proc/sys/kernel/version", "/proc/version")


def modules() -> list[Path]:
    found = [
        path
        for folder in ("isula_edge", "cli/isula_cli", "cri/isula_cri")
        for path in sorted((TOP / folder).rglob("*.py"))
    ]
    assert len(found) > 100
    return [*found, TOP / "kernel-checks/check-kernel"]


def looks(tree: ast.AST) -> bool:
    """Whether the release of the kernel is looked at anywhere."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner = ast.unparse(node.value)
            if node.attr == "release" and ("uname" in owner or owner == "host"):
                return True
            if owner == "platform" and node.attr in ("release", "uname", "version", "platform"):
                return True
        if isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("uname()"):
            return True
        # a file that is mounted on is not read
        if isinstance(node, ast.Constant) and node.value in _SOURCES:
            return True
    return False


def compares(tree: ast.AST) -> bool:
    """Whether something that is called a release or a kernel's version is compared by order."""
    order = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
    return any(
        isinstance(node, ast.Compare)
        and any(isinstance(op, order) for op in node.ops)
        and re.search(r"release|uname|kernel_version", ast.unparse(node)) is not None
        for node in ast.walk(tree)
    )


def test_only_these_look_at_the_release() -> None:
    trees = {str(path.relative_to(TOP)): ast.parse(path.read_text()) for path in modules()}
    assert {name for name, tree in trees.items() if looks(tree)} == set(SHOWN)
    assert {name for name, tree in trees.items() if compares(tree)} == COMPARED


@pytest.mark.parametrize(
    "text",
    [
        "import os\nif os.uname().release >= '5.10': pass",
        "import platform\nx = platform.release()",
        "import os\nx = os.uname()[2]",
        "x = open('/proc/sys/kernel/osrelease').read()",
    ],
)
def test_the_search_finds(text: str) -> None:
    assert looks(ast.parse(text))
    assert not looks(ast.parse("import os\nx = os.uname().machine"))
    assert compares(ast.parse("if kernel_version < (4, 0): pass"))


def test_no_script_of_the_engine_asks_uname() -> None:
    """Hooks and helpers are shell in strings, profiles and contrib are data."""
    texts = [path for path in modules() if re.search(r"uname +-[a-z]*r", path.read_text())]
    for folder in ("profiles", "contrib"):
        texts += [
            path
            for path in sorted((TOP / folder).rglob("*"))
            if path.is_file() and re.search(r"uname +-[a-z]*r|minKernel", path.read_text())
        ]
    assert texts == []

"""Mount points, read from mountinfo."""

from __future__ import annotations

import builtins
import io
from typing import TYPE_CHECKING, Any

from isula_edge.sys import mounts

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

LINE = "{} 27 0:25 / {} rw,relatime - tmpfs none rw\n"


def test_mounts_below_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        "/",
        str(tmp_path),
        f"{tmp_path}/one",
        f"{tmp_path}2/other",
        rf"{tmp_path}/one/two\040words\134",
    ]
    text = "".join(LINE.format(number, point) for number, point in enumerate(points, 30))
    real = builtins.open

    def opened(path: str, *words: Any, **named: Any) -> Any:
        if path == "/proc/self/mountinfo":
            return io.BytesIO(text.encode())
        return real(path, *words, **named)

    monkeypatch.setattr(builtins, "open", opened)
    assert mounts.below(str(tmp_path)) == [f"{tmp_path}/one/two words\\", f"{tmp_path}/one"]

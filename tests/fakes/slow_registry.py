"""A registry whose one image comes as slowly as a test says: ``python -m … LAYERS BYTES``.

Prints HOST:PORT/NAME of the image; each line on standard input is a new rate in bytes a
second, 0 for no limit.
"""

from __future__ import annotations

import random
import sys

from tests.fakes.images import FakeLayer, make_image
from tests.fakes.registry import FakeRegistry


def main(layers: int, size: int) -> None:
    """Serves until standard input ends; the first rate is 256 KiB a second."""
    numbers = random.Random(layers)
    with FakeRegistry() as registry:
        made = [FakeLayer.of({f"file{n}": numbers.randbytes(size)}) for n in range(layers)]
        registry.add("slow/image", "latest", make_image(made))
        registry.faults.bytes_per_s = 256 << 10
        sys.stdout.write(f"{registry.host}/slow/image:latest\n")
        sys.stdout.flush()
        for line in sys.stdin:
            registry.faults.bytes_per_s = int(line)
        registry.faults.bytes_per_s = 0


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))

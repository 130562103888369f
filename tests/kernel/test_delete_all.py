"""Many keys of a map removed at once."""

from __future__ import annotations

import pytest
from eni53.kernel import bpf, layout

from .kernel import Kernel

KEY, VALUE = layout.ASKED_KEY.packer, layout.ASKED.packer


def key(number: int) -> bytes:
    """A row of its own."""
    return KEY.pack(number, 0, 1, 2, 0, 3, 0, 0, 0)


@pytest.mark.parametrize(
    "missing", [(), (0,), (19,), (3, 4, 11), tuple(range(20))], ids=lambda m: f"without {m}"
)
def test_all_go_and_those_that_are_not_there_are_passed_over(missing: tuple[int, ...]) -> None:
    """The kernel stops at a key that it has not: what stands behind it must go as well."""
    kernel = Kernel.load()
    fd = kernel.loaded.maps["asked"]
    try:
        for number in range(30):
            if number not in missing:
                bpf.map_update(fd, key(number), VALUE.pack(1, 0, 0))
        bpf.map_delete_all(fd, [key(number) for number in range(20)])
        bpf.map_delete_all(fd, [])
        left = {
            bytes(keys[at : at + KEY.size])
            for keys, _ in bpf.map_items(fd, KEY.size, VALUE.size, 4096)
            for at in range(0, len(keys), KEY.size)
        }
    finally:
        kernel.maps.close()

    assert left == {key(number) for number in range(20, 30)}

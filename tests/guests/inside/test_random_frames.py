"""A few batches of tests/kernel/test_random.py: enough to see another kernel's verifier at work."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.kernel import test_random
from tests.kernel.kernel import EXPECTED, Kernel


@pytest.mark.parametrize("program", EXPECTED)
@pytest.mark.parametrize(
    "make", [test_random.noise, test_random.plausible_noise, test_random.mutated]
)
def test_programs_and_oracle_agree(
    bench: Kernel, program: str, make: Callable[[random.Random], bytes]
) -> None:
    """As there, with one batch of frames a program."""
    batches = 1 if program == "eni_egress" else 4  # of which it takes a quarter
    test_random.test_programs_and_oracle_agree(bench, program, make, batches * test_random.BATCH)

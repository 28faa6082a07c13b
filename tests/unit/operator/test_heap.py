import ctypes
import subprocess
import sys

import pytest

FREED_AND_NEEDED_AGAIN = """
import resource
from perllm.heap import keep_freed_memory

def count_faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        arrays = [bytearray(40_000) for _ in range(100)]
        del arrays
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

usually = count_faults()
keep_freed_memory()
count_faults()
print(usually, count_faults())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library has no such setting")
def test_memory_that_is_freed_and_needed_again_is_not_cleared_by_the_kernel_each_time() -> None:
    printed = subprocess.run((sys.executable, "-c", FREED_AND_NEEDED_AGAIN), check=True, capture_output=True, text=True)
    usually, kept = map(int, printed.stdout.split())
    assert kept < 100 < usually

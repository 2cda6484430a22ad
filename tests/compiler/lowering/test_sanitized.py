"""All kernels under ASan and UBSan: no byte outside a buffer is read or written, and nothing is undefined."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_kernels_stay_inside_their_buffers() -> None:
    found = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True).stdout.strip()
    if not Path(found).is_absolute():
        pytest.skip("gcc has no libasan.so")
    settings = {"LD_PRELOAD": found, "ASAN_OPTIONS": "detect_leaks=0:redzone=256", "ESPALIER_SANITIZED": "1"}
    words = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "not slow", "-p", "no:cacheprovider", str(Path(__file__).parent)]
    done = subprocess.run(words, env={**os.environ, **settings}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]

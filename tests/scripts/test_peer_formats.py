"""The vector formats against the packages that own them, in environments of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.stress
@pytest.mark.timeout(3600)
def test_every_package_reads_our_files_and_we_read_theirs():
    done = subprocess.run([sys.executable, "scripts/peer_formats.py"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

"""Memory and CPU time that decoding a small hostile file may take, in a process of its own, with generous limits."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

pytestmark = pytest.mark.serial
ROOT = Path(__file__).parents[3]
SIDE = 2000
READ = """
import json, pathlib, sys, time
from service.inference import image
from service.errors import ServiceError

def most_kb():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])

content = pathlib.Path(sys.argv[1]).read_bytes()
image.decode(pathlib.Path(sys.argv[2]).read_bytes(), 32_000_000)  # libraries are loaded
before_kb, begun_s = most_kb(), time.thread_time()
try:
    image.decode(content, 32_000_000)
except ServiceError as error:
    assert error.status in (413, 422)
print(json.dumps({"mb": (most_kb() - before_kb) / 1e3, "ms": (time.thread_time() - begun_s) * 1e3}))
"""


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(side: int, bits: int, color: int, channels: int, extra: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", side, side, bits, color, 0, 0, 0)
    pixels = zlib.compress(bytes((1 + side * channels * bits // 8) * side), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def jpeg(side: int, scans: int) -> bytes:
    stream = io.BytesIO()
    PillowImage.fromarray(np.zeros((side, side, 3), np.uint8)).save(stream, "JPEG", progressive=True, subsampling=0)
    content = stream.getvalue()
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * (scans - content.count(b"\xff\xda") + 1) + content[-2:]


TEXT = zlib.compress(b"a" * 7_900_000, 9)  # libpng takes up to 8 MB of each
FILES = {
    "16-bit transparent": (lambda: png(SIDE, 16, 6, 4), 20),
    "16-bit with a transparent colour": (lambda: png(SIDE, 16, 2, 3, chunk(b"tRNS", bytes(6))), 20),
    "16-bit transparent, largest": (lambda: png(5600, 16, 6, 4), 0),
    "packed texts": (lambda: png(8, 8, 2, 3, chunk(b"iTXt", b"k\0\1\0\0\0" + TEXT) * 100), 0),
    "99 scans": (lambda: jpeg(SIDE, 99), 12),
    "99 scans, large": (lambda: jpeg(5600, 99), 0),
}
SLACK_MB = 20


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("name", FILES)
def test_a_small_hostile_file_takes_little_memory_and_time(name: str, tmp_path: Path) -> None:
    """FILES has the maximum bytes of memory a pixel; 0 for files that are refused before they are decoded, or tiny."""
    make, bytes_per_pixel = FILES[name]
    (tmp_path / "hostile").write_bytes(make())
    (tmp_path / "plain").write_bytes(png(8, 8, 6, 4))
    command = [sys.executable, "-c", READ, str(tmp_path / "hostile"), str(tmp_path / "plain")]
    answer = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout)
    assert answer["mb"] < SLACK_MB + bytes_per_pixel * SIDE**2 / 1e6
    assert answer["ms"] < 3000 * (bytes_per_pixel > 0) + 500

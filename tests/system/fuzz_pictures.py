"""Mutated pictures through the decoder, and a share of them through a server.

``python -m tests.system.fuzz_pictures --count 100000``. Every case is a function of ``--seed`` and its number, so that
a finding can be made again. A crash, a hang, an error that is the server's, or growing memory is a finding: the picture
is saved in ``--out``, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import http.client
import io
import multiprocessing
import os
import random
import struct
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image as PillowImage
from PIL import features

from service.errors import ServiceError
from service.inference import image
from tests import spots
from tests.system.faulty import FaultyServer, starting

SIZE = (32, 24)
MAX_PIXELS = 100_000
HANG_S = 30.0
START_S, STARTING = 120.0, -1
GROWTH_MB = 40.0
"""More than the allocator keeps after the first cases."""
WARM_UP_CASES = 1000
EXTREMES = (0, 1, 2, 7, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)
Mutation = Callable[[random.Random, bytearray], None]


@cache
def originals() -> tuple[bytes, ...]:
    """Small pictures of every kind that is read, or refused by its name."""
    noise = np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 4), np.uint8)
    smooth = np.linspace(0, 255, SIZE[0] * SIZE[1] * 3).reshape(SIZE[1], SIZE[0], 3).astype(np.uint8)
    rgb, rgba = PillowImage.fromarray(smooth), PillowImage.fromarray(noise)
    deep = PillowImage.fromarray(smooth[..., 0].astype(np.uint16) * 257)
    exif = PillowImage.Exif()
    exif[0x0112], exif[0x010E] = 6, "some text"
    several = {"save_all": True, "append_images": [rgb.rotate(90)], "duration": 50}
    made: list[tuple[PillowImage.Image, str, dict[str, object]]] = [
        (rgb, "JPEG", {}), (rgb, "JPEG", {"progressive": True, "exif": exif}), (rgb.convert("L"), "JPEG", {}),
        (rgb.convert("CMYK"), "JPEG", {}), (rgb, "JPEG", {"restart_marker_blocks": 1, "optimize": True}),
        (rgb, "PNG", {}), (rgba, "PNG", {"exif": exif}), (deep, "PNG", {}), (rgb.convert("1"), "PNG", {}),
        (rgb.quantize(16), "PNG", {"transparency": 3}), (rgb, "PNG", several),
        (rgb, "WEBP", {}), (rgba, "WEBP", {"exif": exif}), (rgba, "WEBP", {"lossless": True}), (rgb, "WEBP", several),
        (rgb, "GIF", {}), (rgb, "GIF", several), (rgb, "TIFF", {}), (rgb, "TIFF", {"compression": "tiff_lzw"}),
        (rgb, "BMP", {}), (rgb.quantize(16), "BMP", {}),
    ]  # fmt: skip
    if features.check("avif"):
        made += [(rgb, "AVIF", {}), (rgba, "AVIF", {"exif": exif})]
    contents = []
    for picture, kind, options in made:
        stream = io.BytesIO()
        picture.save(stream, kind, **options)
        contents.append(stream.getvalue())
    return tuple(contents)


def _flip_bits(rng: random.Random, content: bytearray) -> None:
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def _set_bytes(rng: random.Random, content: bytearray) -> None:
    at = rng.randrange(len(content))
    content[at : at + rng.randint(1, 8)] = rng.randbytes(rng.randint(0, 8))


def _truncate(rng: random.Random, content: bytearray) -> None:
    del content[rng.randrange(len(content)) :]


def _repeat(rng: random.Random, content: bytearray) -> None:
    at = rng.randrange(len(content))
    content[at:at] = content[at : at + rng.randint(1, 64)] * rng.choice((1, 2, 50))


def _remove(rng: random.Random, content: bytearray) -> None:
    at = rng.randrange(len(content))
    if len(content) > 64:
        del content[at : at + rng.randint(1, 32)]


def _set_number(rng: random.Random, content: bytearray) -> None:
    """Overwrite what may be a length or a size, most often near the beginning."""
    form = rng.choice((">B", ">H", "<H", ">I", "<I"))
    at = rng.randrange(min(len(content), rng.choice((32, 64, 256, 10**6))))
    content[at : at + struct.calcsize(form)] = struct.pack(
        form, rng.choice(EXTREMES) % (1 << 8 * struct.calcsize(form))
    )


def _splice(rng: random.Random, content: bytearray) -> None:
    other = rng.choice(originals())
    at, begin = rng.randrange(len(content)), rng.randrange(len(other))
    content[at:] = other[begin:]


MUTATIONS: tuple[Mutation, ...] = (
    _flip_bits,
    _set_bytes,
    _truncate,
    _repeat,
    _remove,
    _set_number,
    _set_number,
    _splice,
)


def mutated(seed: int, number: int) -> bytes:
    """Make one case."""
    rng = random.Random(f"{seed} {number}")
    content = bytearray(rng.choice(originals()))
    for _ in range(rng.choice((1, 1, 2, 4))):
        if content:
            rng.choice(MUTATIONS)(rng, content)
    if content.startswith(b"\x89PNG") and rng.random() < 0.8:
        _repair_checksums(content)  # otherwise the decoder sees little of what was changed
    return bytes(content)


def _repair_checksums(png: bytearray) -> None:
    at = 8
    while at + 12 <= len(png):
        end = at + 8 + int.from_bytes(png[at : at + 4])
        if end + 4 > len(png):
            return
        png[end : end + 4] = struct.pack(">I", zlib.crc32(png[at + 4 : end]))
        at = end + 4


def decode(content: bytes) -> str:
    """Decode one case as the server does; returns the outcome's name.

    Raises:
        AssertionError: The picture is not as the rest of the server expects it.
    """
    try:
        counted = image.pixel_count(content)
        picture = image.decode(content, MAX_PIXELS)
    except ServiceError as error:
        return error.slug if error.status < 500 else f"FAILED: {error.detail}"
    pixels = picture.pixels
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    assert 0 < pixels.shape[0] * pixels.shape[1] <= min(counted, MAX_PIXELS)
    return "decoded"


def _resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def _work(seed: int, begin: int, end: int, at: Synchronized, outcomes: multiprocessing.SimpleQueue) -> None:  # type: ignore[type-arg]
    """Decode the cases ``begin`` to ``end``; ``at`` is the one in work."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the decoders print warnings
    counts: Counter[str] = Counter()
    warm_mb = 0.0
    for number in range(begin, end):
        at.value = number
        if number - begin == WARM_UP_CASES:
            warm_mb = _resident_mb()
        try:
            outcome = decode(mutated(seed, number))
            counts[outcome] += 1
            if outcome.startswith("FAILED"):
                outcomes.put(("finding", number, outcome))
        except BaseException as error:  # noqa: BLE001 - a finding, whatever it is
            outcomes.put(("finding", number, repr(error)))
    at.value = end
    outcomes.put(("done", _resident_mb() - warm_mb if warm_mb else 0.0, dict(counts)))


class PictureFuzzer:
    """Runs cases in a child process, and starts it again behind a case that crashed or hung it."""

    def __init__(self, seed: int, out: Path) -> None:
        self._seed, self._out = seed, out
        self.counts: Counter[str] = Counter()
        self.findings = 0

    def decode(self, count: int) -> None:
        """Decode ``count`` cases."""
        context = multiprocessing.get_context("spawn")
        begin = 0
        while begin < count:
            at, outcomes = context.Value("q", STARTING), context.SimpleQueue()
            child = context.Process(target=_work, args=(self._seed, begin, count, at, outcomes))
            child.start()
            begin = count
            seen, since_s = STARTING, time.monotonic()
            while child.is_alive():
                child.join(0.2)
                self._collect(outcomes)
                if at.value != seen:
                    seen, since_s = at.value, time.monotonic()
                elif (
                    time.monotonic() > since_s + (START_S if seen in {STARTING, count} else HANG_S) and child.is_alive()
                ):
                    child.kill()
                    child.join()
                    self.report(seen, f"hangs for {HANG_S:g} s")
                    begin = seen + 1
            self._collect(outcomes)
            if child.exitcode and begin == count and at.value < count:
                self.report(at.value, f"crashes with exit status {child.exitcode}")
                begin = at.value + 1

    def send(self, server: FaultyServer, numbers: range) -> None:
        """Send cases to a server on one connection."""
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=3 * HANG_S)
        before_mb = 0.0
        for i, number in enumerate(numbers):
            if i == len(numbers) // 4:
                before_mb = server.resident_mb()
            try:
                connection.request("POST", "/predict", mutated(self._seed, number), {"Content-Type": "image/jpeg"})
                answer = connection.getresponse()
                answer.read()
            except OSError as error:
                self.report(number, f"makes the server break the connection: {error!r}")
                connection.close()
                continue
            self.counts[f"server: {answer.status}"] += 1
            if answer.status >= 500:
                self.report(number, f"gets status {answer.status}")
        connection.close()
        if (grown_mb := server.resident_mb() - before_mb) > GROWTH_MB:
            self.findings += 1
            print(f"FINDING: the server's memory grew by {grown_mb:.0f} MB")

    def report(self, number: int, what: str) -> None:
        """Save a case that is a finding."""
        self.findings += 1
        self._out.mkdir(parents=True, exist_ok=True)
        path = self._out / f"picture-{self._seed}-{number}"
        path.write_bytes(mutated(self._seed, number))
        print(f"FINDING: case {number} of seed {self._seed} {what}; saved as {path}", flush=True)

    def _collect(self, outcomes: multiprocessing.SimpleQueue) -> None:  # type: ignore[type-arg]
        while not outcomes.empty():
            kind, value, more = outcomes.get()
            if kind == "finding":
                self.report(value, more)
            else:
                self.counts.update(more)
                if value > GROWTH_MB:
                    self.findings += 1
                    print(f"FINDING: memory grew by {value:.0f} MB")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all cases; 1 if there are findings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--server-share", type=float, default=0.05, help="share of the cases that a server gets too")
    parser.add_argument("--out", type=Path, default=Path("fuzz-findings"))
    given = parser.parse_args(arguments)
    fuzzer = PictureFuzzer(given.seed, given.out)
    begun_s = time.monotonic()
    fuzzer.decode(given.count)
    took_s = time.monotonic() - begun_s
    print(f"{given.count} pictures in {took_s:.0f} s ({given.count / took_s:.0f}/s)", flush=True)
    sent = round(given.count * given.server_share)
    if sent:
        with TemporaryDirectory() as folder, starting("--models-dir", spots.write_models(Path(folder))) as server:
            fuzzer.send(server, range(sent))
    for outcome, count in sorted(fuzzer.counts.items()):
        print(f"{count:9} {outcome}")
    print(f"{fuzzer.findings} findings")
    return min(1, fuzzer.findings)


if __name__ == "__main__":
    sys.exit(main())

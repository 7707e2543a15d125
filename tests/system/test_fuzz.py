"""Short runs of the fuzzers; `docs/faults.md` has the long ones."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.system import fuzz_pictures, fuzz_stream

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="memory is read from Linux' /proc")]


def test_mutated_pictures_crash_and_hang_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fuzz_pictures.main(["--count", "5000", "--out", str(tmp_path)]) == 0, capsys.readouterr().out


def test_mutated_messages_crash_and_hang_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fuzz_stream.main(["--count", "5000", "--out", str(tmp_path)]) == 0, capsys.readouterr().out


def test_what_goes_wrong_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that answers nonsense, and a case that is made again from its number."""
    fuzzer = fuzz_pictures.PictureFuzzer(7, tmp_path)
    fuzzer.report(3, "is a finding")
    assert (tmp_path / "picture-7-3").read_bytes() == fuzz_pictures.mutated(7, 3)
    assert fuzzer.findings == 1
    monkeypatch.setattr(fuzz_pictures.image, "pixel_count", lambda _: 0)
    with pytest.raises(AssertionError):
        fuzz_pictures.decode(fuzz_pictures.originals()[0])

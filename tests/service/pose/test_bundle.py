"""Bundles are verified when they are read, and written atomically."""

from pathlib import Path

import pytest

from service.pose import bundle
from tests import spots


@pytest.fixture
def student(tmp_path: Path) -> Path:
    return spots.write_pose_bundle(tmp_path, "student-s", "student")


def test_a_written_bundle_is_read(student: Path) -> None:
    opened = bundle.read(student)
    assert opened.onnx == spots.pose_network()
    assert opened.card == "# student-s\n"
    assert opened.manifest.files == {
        "model.onnx": bundle.sha256(opened.onnx),
        "MODEL_CARD.md": bundle.sha256(b"# student-s\n"),
    }


@pytest.mark.parametrize("position", [0, 1000, -1])
def test_a_flipped_byte_is_refused_with_name_and_both_hashes(student: Path, position: int) -> None:
    content = bytearray((student / "model.onnx").read_bytes())
    expected = bundle.sha256(bytes(content))
    content[position] ^= 1
    (student / "model.onnx").write_bytes(content)
    with pytest.raises(bundle.BundleError) as refusal:
        bundle.read(student)
    message = str(refusal.value)
    assert "student-s" in message
    assert expected in message
    assert bundle.sha256(bytes(content)) in message


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx", "MODEL_CARD.md"])
def test_a_missing_file_is_named(student: Path, name: str) -> None:
    (student / name).unlink()
    with pytest.raises(bundle.BundleError, match=name):
        bundle.read(student)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format_version": 2}', "not json"])
def test_a_bad_manifest_is_refused(student: Path, text: str) -> None:
    (student / "manifest.json").write_text(text)
    with pytest.raises(bundle.BundleError, match="is not a valid manifest"):
        bundle.read(student)


def test_a_card_that_is_no_text_is_refused(student: Path) -> None:
    opened = bundle.read(student)
    (student / "MODEL_CARD.md").write_bytes(b"\xff")
    files = opened.manifest.files | {"MODEL_CARD.md": bundle.sha256(b"\xff")}
    (student / "manifest.json").write_text(opened.manifest.model_copy(update={"files": files}).model_dump_json())
    with pytest.raises(bundle.BundleError, match=r"MODEL_CARD\.md in UTF-8, got"):
        bundle.read(student)


def test_an_unlisted_file_is_refused(student: Path) -> None:
    opened = bundle.read(student)
    manifest = opened.manifest.model_copy(update={"files": {"model.onnx": opened.manifest.files["model.onnx"]}})
    (student / "manifest.json").write_text(manifest.model_dump_json())
    with pytest.raises(bundle.BundleError, match=r"to list MODEL_CARD\.md"):
        bundle.read(student)


def test_rewriting_replaces_the_bundle_and_leaves_no_other_files(student: Path) -> None:
    spots.write_pose_bundle(student.parent, "student-s", "student", shift_cells=1)
    assert bundle.read(student).onnx == spots.pose_network(shift_cells=1)
    assert [path.name for path in student.parent.iterdir()] == ["student-s"]


def test_the_old_bundle_is_restored_when_writing_is_interrupted(student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interruption comes between the two renames."""
    before = bundle.read(student)
    rename = Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        if self.name.endswith(".partial"):
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bundle.write(student, before.manifest, spots.pose_network(shift_cells=1), before.card)
    assert bundle.read(student) == before
    assert [path.name for path in student.parent.iterdir()] == ["student-s"]


def test_a_folder_that_is_not_a_bundle_is_not_replaced(student: Path) -> None:
    """Somebody names the whole models folder in place of a bundle."""
    opened = bundle.read(student)
    with pytest.raises(bundle.BundleError, match="name the bundle's own folder"):
        bundle.write(student.parent, opened.manifest, opened.onnx, opened.card)
    assert bundle.read(student) == opened

"""The public names, the errors, and the independence of the package."""

from __future__ import annotations

import ast
import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import posewright_client
from posewright_client import KEYPOINTS, Keypoint, ModelRef, Pose, Prediction, Side, _errors
from posewright_client._client import USER_AGENT
from posewright_client._frames import StreamArguments, StreamOptions
from service.errors import ServiceError
from service.http.problem_types import PROBLEM_TYPES
from service.wire.problem_documents import problem

PACKAGE = Path(posewright_client.__file__).parent
NOT_CALLED = {
    "unknown-source", "source-conflict", "source-forbidden", "video-unreadable", "video-not-installed",
    "jobs-disabled", "unknown-job", "job-unfinished", "video-too-large", "result-refused", "missing-package",
    "result-pending", "jobs-disk-full",
}  # fmt: skip
"""Problems of sources and video jobs, for which the client has no calls."""
OPTIONAL = {"cv2", "supervision", "tqdm", "PIL", "IPython", "torch", "service", "fastapi", "pydantic"}


def test_every_public_name_exists_and_is_documented() -> None:
    for name in posewright_client.__all__:
        thing = getattr(posewright_client, name)
        assert not isinstance(thing, type) or thing.__doc__
    public = {name for name in vars(posewright_client) if not name.startswith("_")} - {"annotations", "cli", "formats"}
    assert public == set(posewright_client.__all__)


def test_every_error_is_public() -> None:
    kinds = {name for name, it in vars(_errors).items() if isinstance(it, type) and issubclass(it, Exception)}
    assert kinds <= set(posewright_client.__all__)
    for name in kinds:
        assert name in _errors.__doc__


@pytest.mark.parametrize("kind", [it for it in PROBLEM_TYPES if it is not ServiceError], ids=lambda it: it.slug)
def test_every_problem_of_the_server_has_its_class(kind: type[ServiceError]) -> None:
    document = problem(kind("detail", fact=3), "/predict", "id")
    received = _errors.ProblemError.from_document(document)
    assert (received.slug == kind.slug) == (kind.slug not in NOT_CALLED)
    assert (received.status, received.detail, received.extras, received.request_id) == (
        kind.status, "detail", {"fact": 3}, "id",
    )  # fmt: skip


def test_errors_can_be_pickled() -> None:
    problem = _errors.QueueFull(503, "t", "title", "detail", request_id="r", retry_after_s=1.5, extras={"a": 1})
    again = pickle.loads(pickle.dumps(problem))
    assert type(again) is _errors.QueueFull
    assert vars(again) == vars(problem)
    assert str(again) == "503 title: detail"
    assert str(pickle.loads(pickle.dumps(_errors.StreamClosed(1009, "too large")))).endswith("1009: too large")


@pytest.mark.parametrize("uri", ["/problems/queue-full", "urn:posewright:problem:queue-full", "https://x/queue-full"])
def test_the_class_depends_on_the_last_part_of_the_type(uri: str) -> None:
    problem = _errors.ProblemError.from_document({"type": uri, "status": 503})
    assert (type(problem), problem.type) == (_errors.QueueFull, uri)


def test_an_empty_problem_document_is_accepted() -> None:
    problem = _errors.ProblemError.from_document({})
    assert (problem.status, problem.type, problem.request_id) == (0, "about:blank", None)


@given(count=st.integers(0, 3))
def test_people_and_keypoints_are_collections(count: int) -> None:
    keypoints = tuple(Keypoint(name, float(k), 0.0, 0.5) for k, name in enumerate(KEYPOINTS))
    poses = tuple(Pose(str(i), 0.5, (0, 0, 1, 1), keypoints) for i in range(count))
    prediction = Prediction("id", ModelRef("m", "1", "student"), (9, 9), poses, {}, {})
    assert (list(prediction), len(prediction)) == (list(poses), count)
    side = Side(ModelRef("m", "1", "student"), poses, 1.0)
    assert (list(side), len(side)) == (list(poses), count)
    assert not poses or prediction[-1] is poses[-1]
    assert isinstance(prediction, Sequence)
    assert bool(prediction) == (count > 0)
    assert prediction[1:] == poses[1:]
    assert list(reversed(prediction)) == list(reversed(poses))
    with pytest.raises(IndexError):
        prediction[count]
    for i, pose in enumerate(prediction):
        assert pose in prediction
        assert pose is poses[i]
        assert list(pose) == list(KEYPOINTS)
        assert tuple(pose.values()) == keypoints
        assert all(name in pose and pose[name].name == name for name in KEYPOINTS)
        assert "tail" not in pose
        assert 0 not in pose
        assert pose.get("tail") is None
        with pytest.raises(KeyError, match="expected one of"):
            pose["tail"]
        assert pose == pickle.loads(pickle.dumps(pose))
        assert len({pose, pose}) == 1
        assert pose != poses[i - 1] or count == 1


def test_the_keyword_arguments_of_streams_are_the_options() -> None:
    assert list(StreamArguments.__annotations__) == list(StreamOptions.__dataclass_fields__)


def test_the_package_imports_nothing_of_the_server() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                assert name.split(".")[0] not in {"service", "training", "tests"}, path


def test_importing_the_package_imports_no_optional_library() -> None:
    script = f"import sys, posewright_client, posewright_client.cli.main;print(sorted(set(sys.modules) & {OPTIONAL!r}))"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_the_package_is_typed() -> None:
    assert (PACKAGE / "py.typed").exists()


@pytest.mark.parametrize("version", [posewright_client.__version__])
def test_the_version_is_the_same_everywhere(version: str) -> None:
    project = PACKAGE.parent / "pyproject.toml"
    if not project.exists():
        pytest.skip("not run from the checkout")
    assert f'version = "{version}"' in project.read_text()
    assert f"posewright-client/{version}" == USER_AGENT

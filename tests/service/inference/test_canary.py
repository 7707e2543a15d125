"""The canary: who is assigned to the candidate, and what start, promotion and roll back change."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.app import create_app
from service.errors import BadParameter
from service.inference.agreement import Agreements
from service.inference.assignment import Assignment
from service.inference.canary import JUDGE_EVERY, Canary
from service.inference.errors import NoCanary, UnknownModel
from service.inference.metrics import Metrics
from service.inference.registry import ModelRegistry, open_registry
from service.inference.shadow import require_shadow
from service.inference.trial import position
from service.pose import bundle as bundles
from service.pose.skeleton import COCO17
from service.pose.types import Poses
from service.settings import Settings, SettingsError
from tests import spots

CALLERS = [f"10.0.{i // 250}.{i % 250}" for i in range(4000)]
shares = st.floats(0, 1)


@pytest.fixture(scope="module")
def folder(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The usual models, a candidate, and a bundle of another skeleton."""
    folder = Path(shutil.copytree(models_dir, tmp_path_factory.mktemp("canary") / "models"))
    path = spots.write_pose_bundle(folder, "candidate", "student")
    manifest = bundles.read(path).manifest
    puppet = manifest.model_copy(update={"name": "puppet", "skeleton": replace(COCO17, name="puppet")})
    bundles.write(folder / "puppet", puppet, spots.pose_network(), "# puppet\n")
    return folder


@pytest.fixture(scope="module")
def registry(folder: Path) -> ModelRegistry:
    return open_registry(Settings(models_dir=folder))


def canary_of(registry: ModelRegistry, **settings: object) -> Canary:
    registry.student = "student-s"
    return Canary(registry, Settings.model_validate(settings), Metrics().rollout, Agreements(600))


def assign(canary: Canary, key: str) -> Assignment:
    assignment = canary.assign(key)
    assert assignment is not None
    return assignment


def assigned_name(canary: Canary, key: str) -> str:
    return assign(canary, key).choice.model.manifest.name


PERSON = Poses(
    np.zeros((1, 17, 2), np.float32), np.ones((1, 17), np.float32), np.ones((1, 4), np.float32), np.ones(1, np.float32)
)


@given(st.text(min_size=1), st.sampled_from([0.01, 0.05, 0.2, 0.5, 0.9]))
def test_a_share_of_the_callers_is_assigned_within_binomial_bounds(candidate: str, share: float) -> None:
    chosen = sum(position(candidate, key) < share for key in CALLERS)
    deviation = math.sqrt(len(CALLERS) * share * (1 - share))
    assert abs(chosen - len(CALLERS) * share) < 6 * deviation


@given(st.text(), st.text(), shares, shares)
def test_callers_of_a_candidate_stay_with_it_when_the_share_grows(candidate: str, key: str, a: float, b: float) -> None:
    place = position(candidate, key)
    assert 0 <= place < 1
    assert place == position(candidate, key)
    assert not place < min(a, b) or place < max(a, b)


def test_another_candidate_is_tried_by_other_callers() -> None:
    first, second = ({key for key in CALLERS if position(name, key) < 0.1} for name in ("a", "b"))
    assert len(first & second) < 0.3 * len(first)


def test_position_does_not_change_between_versions_and_machines() -> None:
    """Servers of one service decide alike only if this number stays."""
    assert position("student-t", "10.0.0.1") == pytest.approx(0.10126, abs=1e-5)


def test_calls_are_assigned_and_named_models_are_not(registry: ModelRegistry) -> None:
    canary = canary_of(registry, canary="candidate", canary_share=0.25)
    names = {key: assigned_name(canary, key) for key in CALLERS[:400]}
    assert set(names.values()) == {"candidate", "student-s"}
    assert all((name == "candidate") == (position("candidate", key) < 0.25) for key, name in names.items())
    canary.start("candidate", 1)
    assert {assigned_name(canary, key) for key in CALLERS[:50]} == {"candidate"}
    canary.start("candidate", 0)
    assert {assigned_name(canary, key) for key in CALLERS[:50]} == {"student-s"}


def test_a_roll_back_ends_what_is_assigned(registry: ModelRegistry) -> None:
    canary = canary_of(registry, canary="candidate", canary_share=1)
    assignment = assign(canary, "x")
    assert not assignment.rolled_back
    canary.roll_back()
    assert assignment.rolled_back
    assert assignment.on_stable().choice.model.manifest.name == "student-s"
    assert not assignment.on_stable().rolled_back
    assert canary.assign("x") is None
    with pytest.raises(NoCanary):
        canary.roll_back()


def test_a_promotion_changes_auto_and_student_and_can_be_undone(registry: ModelRegistry) -> None:
    canary = canary_of(registry, canary="candidate", canary_share=1)
    assignment = assign(canary, "x")
    canary.promote()
    assert canary.assign("x") is None
    assert not assignment.rolled_back
    assert registry.choose("auto").model.manifest.name == registry.choose("student").model.manifest.name == "candidate"
    assert registry.is_default(registry.find_model("candidate"))
    with pytest.raises(NoCanary):
        canary.promote()
    canary.roll_back()
    assert assignment.rolled_back
    assert registry.choose("auto").model.manifest.name == "student-s"


def test_another_candidate_takes_the_place_of_the_first(registry: ModelRegistry) -> None:
    canary = canary_of(registry, canary="candidate", canary_share=1)
    first = assign(canary, "x")
    canary.start("teacher", 1)
    assert first.rolled_back
    assert assigned_name(canary, "x") == "teacher"


@pytest.mark.parametrize("gone", ["unloaded", "cannot run"])
def test_a_candidate_that_is_gone_is_passed_over(registry: ModelRegistry, gone: str) -> None:
    canary = canary_of(registry, canary="candidate", canary_share=1)
    model = registry.models.pop("candidate")
    try:
        if gone == "cannot run":
            registry.models["candidate"] = replace(model, network=None, failure="test")
        assert assigned_name(canary, "x") == "student-s"
    finally:
        registry.models["candidate"] = model


def test_the_fallback_to_the_teacher_holds_for_the_candidate_too(folder: Path) -> None:
    canary = canary_of(
        open_registry(Settings(models_dir=folder, fallback_score=0.5)), canary="candidate", canary_share=1
    )
    choice = assign(canary, "x").choice
    assert choice.backup is not None
    assert (choice.backup.manifest.name, choice.backup_below) == ("teacher", 0.5)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("puppet", BadParameter, "take its place, got 'puppet', one of skeleton 'puppet'"),
        ("student-s", BadParameter, "that model itself"),
        ("detector", UnknownModel, "the detector 'detector'"),
        ("nobody", UnknownModel, "got 'nobody'"),
    ],
)
def test_a_candidate_that_cannot_take_the_place_is_refused(
    folder: Path, registry: ModelRegistry, name: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        canary_of(registry).start(name, 0.5)
    with pytest.raises(SettingsError, match=r"--canary\): .*" + ("a detector" if name == "detector" else message)):
        create_app(Settings(models_dir=folder, canary=name))
    with pytest.raises(SettingsError, match=r"--shadow-model\): "):
        require_shadow(registry, Settings(models_dir=folder, shadow_model=name, shadow_share=0.5))


@pytest.mark.parametrize("auto_rollback", [True, False])
def test_a_candidate_that_fails_is_rolled_back_if_the_operator_wants_that(
    registry: ModelRegistry, auto_rollback: bool
) -> None:
    canary = canary_of(registry, canary="candidate", canary_share=1, canary_auto_rollback=auto_rollback)
    assignment = assign(canary, "x")
    for _ in range(20):
        assert assignment.record_failure()
        assignment.on_stable().record_answer(1.0, PERSON)
    event = canary.last_event
    assert event is not None
    if auto_rollback:
        assert assignment.rolled_back
        assert (event.change, event.cause) == ("rolled_back", "verdict")
        assert event.reasons[0].startswith("errors: ")
    else:
        assert canary.trial is not None
        assert event.change == "started"


def test_a_candidate_that_is_slow_is_rolled_back(registry: ModelRegistry) -> None:
    canary = canary_of(registry, canary="candidate", canary_share=1, canary_auto_rollback=True)
    assignment = assign(canary, "x")
    for i in range(8 * JUDGE_EVERY):
        assignment.on_stable().record_answer(10 + i % 3, PERSON)
        assignment.record_answer(30 + i % 3, PERSON)
    assert assignment.rolled_back
    assert canary.last_event is not None
    assert canary.last_event.reasons[0].startswith("latency: ")

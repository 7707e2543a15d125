"""Every kind of mistake is recognised."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.pose import oks
from service.pose.skeleton import COCO17
from tests import spots
from training.evaluation import error_analysis
from training.evaluation.error_analysis import GOOD, INVERSION, JITTER, KINDS, MISS, SWAP, UNLABELLED

FLIP = list(COCO17.flip)
PAIRED = np.array([partner != k for k, partner in enumerate(FLIP)])
AREA = 24_000.0
APART = 300
"""px between two neighbours of `group`."""


def group(people: int) -> np.ndarray:
    """Standing people side by side, far apart: float32 (N, 17, 2)."""
    return np.stack([spots.Person((200 + APART * i, 200)).keypoints for i in range(people)])


def classify(answers: np.ndarray, truth: np.ndarray, labelled: np.ndarray | None = None) -> np.ndarray:
    known = np.ones(truth.shape[:2], bool) if labelled is None else labelled
    return error_analysis.classify(answers, truth, known, np.full(len(truth), AREA, np.float32), COCO17)


def moved(truth: np.ndarray, similarity: float, angle: float) -> np.ndarray:
    """Move every joint so far that its keypoint similarity falls to ``similarity``."""
    distance = np.sqrt(-2 * np.log(similarity) * AREA) * 2 * COCO17.sigma_array
    return truth + distance[:, None] * np.array([np.cos(angle), np.sin(angle)], np.float32)


@given(people=st.integers(1, 4))
def test_keypoints_at_their_labels_are_good(people: int) -> None:
    assert (classify(group(people), group(people)) == GOOD).all()


@given(similarity=st.floats(0.51, 0.84), angle=st.floats(0, 6.28), k=st.integers(0, 16))
def test_a_small_distance_is_jitter(similarity: float, angle: float, k: int) -> None:
    truth = group(2)
    # Alone, so that no mirror partner is nearer.
    known = np.zeros((2, 17), bool)
    known[:, k] = True
    assert (classify(moved(truth, similarity, angle), truth, known)[:, k] == JITTER).all()


@given(similarity=st.floats(0.86, 1), angle=st.floats(0, 6.28))
def test_the_distance_between_annotators_is_good(similarity: float, angle: float) -> None:
    truth = group(2)
    assert (classify(moved(truth, similarity, angle), truth) == GOOD).all()


@given(angle=st.floats(0, 6.28))
def test_a_keypoint_far_from_all_joints_is_a_miss(angle: float) -> None:
    truth = group(2)
    away = 3000 * np.array([np.cos(angle), np.sin(angle)], np.float32)
    assert (classify(truth + away, truth) == MISS).all()


def test_exchanged_left_and_right_are_inversions() -> None:
    truth = group(3)
    kinds = classify(truth[:, FLIP], truth)
    assert (kinds[:, PAIRED] == INVERSION).all()
    assert (kinds[:, ~PAIRED] == GOOD).all()


@pytest.mark.parametrize("mirrored", [False, True])
def test_joints_of_another_person_are_swaps(mirrored: bool) -> None:
    truth = group(3)
    neighbours = np.roll(truth, 1, axis=0)
    assert (classify(neighbours[:, FLIP] if mirrored else neighbours, truth) == SWAP).all()


def test_unlabelled_keypoints_are_no_mistakes() -> None:
    truth = group(2)
    known = np.zeros((2, 17), bool)
    assert (classify(truth, truth, known) == UNLABELLED).all()
    known[0, 9] = True  # a left wrist, answered at the right one, which nobody labelled
    kinds = classify(truth[:, FLIP], truth, known)
    assert kinds[0, 9] == MISS
    assert (np.delete(kinds.ravel(), 9) == UNLABELLED).all()


def test_left_and_right_in_one_place_are_good() -> None:
    truth = group(1)
    truth[:, 12] = truth[:, 11] + 2  # hips seen from the side
    assert (classify(truth[:, FLIP], truth)[:, 11:13] == GOOD).all()


def test_without_people_there_are_no_mistakes() -> None:
    assert classify(group(1)[:0], group(1)[:0]).shape == (0, 17)


@given(seed=st.integers(0, 1000), spread=st.floats(1, 400))
def test_shares_add_up(seed: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    truth = group(4)
    labelled = rng.random((4, 17)) < 0.7
    kinds = classify(truth + rng.normal(0, spread, truth.shape).astype(np.float32), truth, labelled)
    counted = error_analysis.counts(kinds)
    assert counted.shape == (17, len(KINDS))
    assert (counted.sum(axis=1) == labelled.sum(axis=0)).all()
    seen = labelled.any(axis=0)
    assert np.allclose(error_analysis.shares(counted).sum(axis=1), seen, atol=1e-6)


def test_similarity_is_the_term_of_oks() -> None:
    truth = group(3)
    answers = truth + np.random.default_rng(0).normal(0, 6, truth.shape).astype(np.float32)
    areas = np.array([9000, 24_000, 50_000], np.float32)
    own = error_analysis.similarity(answers, truth, areas[:, None], COCO17.sigma_array)
    assert np.allclose(own.mean(axis=1), np.diag(oks.oks(answers, truth, areas, COCO17.sigma_array)), atol=1e-6)


@given(
    inverted=st.sets(st.sampled_from([k for k in range(17) if PAIRED[k]])),
    unlabelled=st.sets(st.integers(0, 16)),
)
def test_inversions_are_counted_by_joint_group(inverted: set[int], unlabelled: set[int]) -> None:
    truth = group(1)
    answers = truth.copy()
    for k in inverted:
        answers[:, k] = truth[:, FLIP[k]]
    # The partner must be labelled, too, for a joint to be taken for it.
    known = np.array([[k not in unlabelled and FLIP[k] not in unlabelled for k in range(17)]])
    told = error_analysis.inversions(error_analysis.counts(classify(answers, truth, known)), COCO17)
    rows = {"all": PAIRED, "face": range(1, 5), "arms": range(5, 11), "legs": range(11, 17)}
    members = {name: np.arange(17)[PAIRED] if name == "all" else np.array(it) for name, it in rows.items()}
    expected = {name: [k in inverted for k in it if known[0, k]] for name, it in members.items()}
    assert told == pytest.approx({name: np.mean(it) for name, it in expected.items() if it})

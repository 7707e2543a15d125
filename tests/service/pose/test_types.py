"""People are selected, replaced and concatenated with everything that is known of them."""

import numpy as np

from service.pose.types import Poses


def people(count: int, first: float, *, covariances: bool) -> Poses:
    """People whose arrays all hold their number, counted from ``first``."""
    numbers = first + np.arange(count, dtype=np.float32)

    def filled(*shape: int) -> np.ndarray:
        return np.broadcast_to(numbers.reshape(-1, *[1] * len(shape)), (count, *shape)).copy()

    spread = filled(3, 2, 2) if covariances else None
    return Poses(filled(3, 2), filled(3), filled(4), numbers, covariances=spread)


def test_covariances_stay_with_their_people() -> None:
    some = people(4, 0, covariances=True)
    chosen = some.select(np.array([2, 0]))
    assert chosen.covariances is not None
    np.testing.assert_array_equal(chosen.covariances[:, 0, 0, 0], chosen.keypoints[:, 0, 0])
    mixed = some.replacing(np.array([False, True, False, True]), people(2, 10, covariances=True))
    assert mixed.covariances is not None
    np.testing.assert_array_equal(mixed.covariances[:, 0, 0, 0], [0, 10, 2, 11])
    np.testing.assert_array_equal(mixed.keypoints[:, 0, 0], [0, 10, 2, 11])


def test_an_image_without_people_takes_no_covariances_away() -> None:
    joined = Poses.concatenate([Poses.empty(3), people(2, 5, covariances=True)])
    assert joined.covariances is not None
    assert joined.covariances.shape == (2, 3, 2, 2)
    assert Poses.concatenate([Poses.empty(3), people(2, 5, covariances=False)]).covariances is None

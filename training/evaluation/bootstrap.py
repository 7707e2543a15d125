"""95 % confidence intervals of average precision by the bootstrap over pictures.

pycocotools has already matched every picture's predictions with its labels. The pictures are drawn again with
replacement (Efron and Tibshirani, 1993, chapter 13): each draw is a count of every picture, and the precisions are
computed anew with these counts as weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pycocotools.cocoeval import COCOeval

DRAWS = 400
PERSON = 1
"""Category id of people."""
PERCENTILES = (2.5, 97.5)


Interval = tuple[float, float]
"""Lower and upper bound of 95 % of the draws, 0..1."""


@dataclass(frozen=True, slots=True)
class MatchedDetections:
    """D detections on P pictures, best first, matched with labels by pycocotools at T thresholds of OKS or IoU.

    Attributes:
        pictures: int64 (D,), index of each detection's picture.
        hits: bool (T, D), whether it matches a person.
        counted: bool (T, D), False if it lies in a crowd or is of another size than those scored.
        people: int64 (P,), count of people in each picture.
        recalls: float64 (R,), recalls at which precision is evaluated.
    """

    pictures: NDArray[np.int64]
    hits: NDArray[np.bool_]
    counted: NDArray[np.bool_]
    people: NDArray[np.int64]
    recalls: NDArray[np.float64]

    @classmethod
    def of(cls, evaluation: COCOeval, size: str = "all") -> MatchedDetections:
        """Collect the matches of a finished evaluation, of people of one size."""
        parameters = evaluation.params
        per_size = len(parameters.imgIds)
        category = parameters.catIds.index(PERSON) if PERSON in parameters.catIds else 0
        begin = (category * len(parameters.areaRngLbl) + parameters.areaRngLbl.index(size)) * per_size
        found = evaluation.evalImgs[begin : begin + per_size]
        thresholds, most = len(parameters.iouThrs), parameters.maxDets[-1]
        known = [(i, it) for i, it in enumerate(found) if it is not None]
        counts = [min(len(it["dtScores"]), most) for _, it in known]
        scores = np.concatenate([np.zeros(0), *(np.asarray(it["dtScores"][:most]) for _, it in known)])
        order = np.argsort(-scores, kind="mergesort")  # as in pycocotools: equal scores keep the pictures' order

        def join(name: str) -> NDArray[np.bool_]:
            parts = [np.asarray(it[name])[:, :most].astype(bool) for _, it in known]
            return np.concatenate([np.zeros((thresholds, 0), bool), *parts], axis=1)[:, order]

        people = np.zeros(per_size, np.int64)
        for i, it in known:
            people[i] = np.count_nonzero(np.asarray(it["gtIgnore"]) == 0)
        owners = np.repeat(np.array([i for i, _ in known], np.int64), counts)[order]
        counted = ~join("dtIgnore")
        return cls(owners, join("dtMatches") & counted, counted, people, np.asarray(parameters.recThrs))

    def precisions(self, counts: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """Return the average precision (T,) at each threshold, with pictures weighted by counts (P,).

        It is NaN without people.
        """
        counts = np.ones(len(self.people), np.int64) if counts is None else counts
        total = int(self.people @ counts)
        if not total:
            return np.full(len(self.hits), np.nan)
        weights = counts[self.pictures]
        averages = np.zeros(len(self.hits))
        for t, (hits, counted) in enumerate(zip(self.hits, self.counted, strict=True)):
            places = np.flatnonzero(hits)
            found = weights[places].cumsum()
            precision = found / np.maximum((weights * counted).cumsum()[places], 1)
            envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
            averages[t] = envelope[np.searchsorted(found / total, self.recalls)].mean()
        return averages


def bootstrap(compared: MatchedDetections, draws: int = DRAWS) -> NDArray[np.float64]:
    """Return the average precision (draws, T) in each draw at each threshold. The draws are the same in every call."""
    count = len(compared.people)
    rng = np.random.default_rng(0)
    drawn = (np.bincount(rng.integers(0, count, count), minlength=count) for _ in range(draws))
    return np.stack([compared.precisions(counts) for counts in drawn])


def interval(figures: NDArray[np.float64]) -> Interval | None:
    """Return the interval of a figure's draws (N,); None if no draw contains people."""
    if np.isnan(figures).all():
        return None
    low, high = np.nanpercentile(figures, PERCENTILES)
    return float(low), float(high)

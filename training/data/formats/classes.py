"""Which classes of a labelled set are read as people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from training.data.coco import DatasetError
from training.data.formats.labelled_set import LabelFault

PERSON = "person"


class Classes:
    """Chooses the rows of some classes and counts what it left out.

    Without a wish, ``person`` is chosen where a class bears that name, else every class.
    """

    def __init__(self, origin: object, names: Mapping[Any, object], wanted: Sequence[str] = ()) -> None:
        """Choose.

        Args:
            origin: File of the labels.
            names: Of the classes that keypoints are labelled for, by number.
            wanted: Names or numbers to choose.

        Raises:
            DatasetError: A wanted class is not among the names.
        """
        self._origin = origin
        self._names = {number: str(name) for number, name in names.items()}
        for wish in wanted:
            if not any(self._is(number, wish) for number in self._names):
                known = ", ".join(f"{name} ({number})" for number, name in self._names.items())
                raise DatasetError(f"{origin}: --class: expected one of {known or 'no classes'}, got {wish!r}")
        wishes = wanted or [PERSON]
        found = {number for number in self._names if any(self._is(number, wish) for wish in wishes)}
        self._chosen = found or set(self._names)
        self._counts: Counter[Hashable] = Counter()

    def _is(self, number: object, wish: str) -> bool:
        return wish.strip().lower() == self._names[number].strip().lower() or wish == str(number)

    def has(self, number: object) -> bool:
        """Tell whether a class is chosen. A class without a name is: whoever reads it says what is wrong with it."""
        return number not in self._names or number in self._chosen

    def takes(self, number: object) -> bool:
        """Count a row and tell whether its class is chosen."""
        self._counts[number] += 1
        return self.has(number)

    @property
    def notes(self) -> list[LabelFault]:
        """What was left out, and what was read as one kind."""
        used = {number: count for number, count in self._counts.items() if number in self._names}
        left_out = self._told({number: count for number, count in used.items() if not self.has(number)})
        taken = {number: count for number, count in used.items() if self.has(number)}
        notes = []
        if left_out:
            notes.append(
                LabelFault("other classes", str(self._origin), f"{left_out} left out; --class NAME takes them")
            )
        if len(taken) > 1:
            what = f"{self._told(taken)} are all read as people; --class NAME takes one of them"
            notes.append(LabelFault("several classes", str(self._origin), what))
        return notes

    def _told(self, counts: Mapping[Any, int]) -> str:
        return ", ".join(f"{count:,} of {self._names[number]}" for number, count in sorted(counts.items()))

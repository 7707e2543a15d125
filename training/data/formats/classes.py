"""Which classes of a labelled set are read as people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from training.data.coco import DatasetError
from training.data.formats.labelled_set import LabelFault

PERSON = "person"


class Classes:
    """Chooses the labels of some classes and counts what it leaves out.

    By default the class ``person`` is chosen if there is one, else every class.
    """

    def __init__(self, origin: object, names: Mapping[Any, object], wanted: Sequence[str] = ()) -> None:
        """Choose.

        Args:
            origin: File of the labels, for messages.
            names: Names of the classes that keypoints are labelled for, by number.
            wanted: Names or numbers of the classes to choose.

        Raises:
            DatasetError: A wanted class is not among the names.
        """
        self._origin = origin
        self._names = {number: str(name) for number, name in names.items()}
        for name in wanted:
            if not any(self._is(number, name) for number in self._names):
                known = ", ".join(f"{known} ({number})" for number, known in self._names.items())
                raise DatasetError(f"{origin}: --class: expected one of {known or 'no classes'}, got {name!r}")
        names_to_choose = wanted or [PERSON]
        found = {number for number in self._names if any(self._is(number, name) for name in names_to_choose)}
        self._chosen = found or set(self._names)
        self._counts: Counter[Hashable] = Counter()

    def _is(self, number: object, name: str) -> bool:
        return name.strip().lower() == self._names[number].strip().lower() or name == str(number)

    def has(self, number: object) -> bool:
        """Return whether a class is chosen. A class without a name is, so that the reader reports it."""
        return number not in self._names or number in self._chosen

    def takes(self, number: object) -> bool:
        """Count a label and return whether its class is chosen."""
        self._counts[number] += 1
        return self.has(number)

    @property
    def notes(self) -> list[LabelFault]:
        """Notes on classes that were left out, and on several classes that were read as one."""
        used = {number: count for number, count in self._counts.items() if number in self._names}
        left_out = self._listed({number: count for number, count in used.items() if not self.has(number)})
        taken = {number: count for number, count in used.items() if self.has(number)}
        notes = []
        if left_out:
            notes.append(
                LabelFault("other classes", str(self._origin), f"{left_out} left out; --class NAME reads them")
            )
        if len(taken) > 1:
            what = f"{self._listed(taken)} are all read as people; --class NAME reads one of them"
            notes.append(LabelFault("several classes", str(self._origin), what))
        return notes

    def _listed(self, counts: Mapping[Any, int]) -> str:
        return ", ".join(f"{count:,} of {self._names[number]}" for number, count in sorted(counts.items()))

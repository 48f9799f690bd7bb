"""A planted defect: what is changed, and which tests have to fail for it."""

from dataclasses import dataclass
from pathlib import Path


class NotPlantable(Exception):
    """The defect's text does not occur exactly once: the code has changed, and the list has to follow."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One defect.

    Attributes:
        name: as it is called on the command line.
        file: below the repository's root.
        before: text of the file; it occurs once.
        after: what stands in its place.
        killers: node ids of the tests that have to fail, the fastest that can see it.
        breaks: what the defect would do to a user.
    """

    name: str
    file: str
    before: str
    after: str
    killers: tuple[str, ...]
    breaks: str

    def plant(self, root: Path) -> None:
        """Change the file below `root`.

        Raises:
            NotPlantable: the text is not there, or not once.
        """
        path = root / self.file
        text = path.read_text() if path.is_file() else ""
        found = text.count(self.before)
        if found != 1:
            raise NotPlantable(f"{self.name}: its text occurs {found} times in {self.file}; see tests/mutants")
        path.write_text(text.replace(self.before, self.after))
        for compiled in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
            compiled.unlink()  # Python compares whole seconds and sizes: the sound file's code must not win

"""What the checks of a run find: ok, or a warning or an error with its cure, of the run or of this machine alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum


class Status(str, Enum):
    """How bad a finding is."""

    OK = "ok"
    SKIPPED = "skipped"
    WARNING = "warning"
    MACHINE = "this machine"
    """Right in the run, and lacking here: the run may be meant for another machine."""
    ERROR = "error"


@dataclass(frozen=True)
class Finding:
    """One row of the table."""

    check: str
    status: Status
    message: str
    cure: str = ""

    def __str__(self) -> str:
        return f"{self.message}; {self.cure}" if self.cure else self.message


class Findings:
    """Collects findings; of the errors about one setting only the first is kept."""

    def __init__(self) -> None:
        self.all: list[Finding] = []
        self._check = ""
        self._settings: set[str] = set()

    def errors(self) -> list[Finding]:
        """What keeps the run from starting here, be it of the run or of this machine alone."""
        return [finding for finding in self.all if finding.status in (Status.ERROR, Status.MACHINE)]

    def warnings(self) -> list[Finding]:
        return [finding for finding in self.all if finding.status is Status.WARNING]

    def has_failed(self, check: str) -> bool:
        """Whether a check has found an error."""
        return any(error.check == check for error in self.errors())

    def has_error(self, *settings: str) -> bool:
        """Whether one of these settings is known to be wrong."""
        return bool(self._settings & set(settings))

    def require(self, condition: bool, name: str, value: object, rule: str, cure: str) -> bool:
        """An error where the condition fails, in the form of every setting: name, value, rule, cure."""
        if not condition and name not in self._settings:
            self._settings.add(name)
            self._add(Status.ERROR, f"{name}={value} must be {rule}", cure)
        return condition

    def require_here(self, condition: bool, name: str, value: object, rule: str, cure: str) -> bool:
        """The same of what this machine lacks; the run itself may be right."""
        if not condition and name not in self._settings:
            self._add(Status.MACHINE, f"{name}={value} must be {rule}", cure)
        return condition

    def advise(self, condition: bool, name: str, value: object, rule: str, cure: str) -> bool:
        """A warning where the condition fails."""
        if not condition and name not in self._settings:
            self._add(Status.WARNING, f"{name}={value} {rule}", cure)
        return condition

    def error(self, text: str) -> None:
        """An error that comes as one text, ``message; cure``."""
        message, _, cure = " ".join(text.split()).partition("; ")
        self._settings.add(message.partition("=")[0])
        if message in {said.message for said in self.all}:
            raise NotChecked("not checked: the errors above come first")
        self._add(Status.ERROR, message, cure)

    def warn(self, message: str, cure: str) -> None:
        self._add(Status.WARNING, message, cure)

    def note(self, text: str) -> None:
        """What was found in order; nothing beside an error of the same check."""
        if not self.has_failed(self._check):
            self._add(Status.OK, text)

    @contextmanager
    def of(self, check: str) -> Iterator[None]:
        """The check that the findings inside belong to; what it raises is a finding, never a traceback."""
        self._check, before = check, len(self.all)
        try:
            try:
                yield
            except (ValueError, OSError) as error:
                self.error(str(error))
        except NotChecked as error:
            self._add(Status.SKIPPED, str(error))
        except Exception as error:  # e.g. arithmetic on a setting that another check has refused
            text = f"{type(error).__name__}: {' '.join(str(error).split())}"
            if self.errors():
                self._add(Status.SKIPPED, "not checked: the errors above come first")
            else:
                self._add(Status.WARNING, f"could not be checked ({text})", "look into it before a long run")
        if len(self.all) == before:
            self.note("")

    def _add(self, status: Status, message: str, cure: str = "") -> None:
        self.all.append(Finding(self._check, status, message, cure))


class NotChecked(Exception):
    """A check that cannot be made here; the text says why."""

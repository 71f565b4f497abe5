"""Errors that a user can act on: what is wrong, and what to do. Knows no other part of geotrain."""


class GeotrainError(Exception):
    """A mistake or a state of the world that a user can mend. Shown as two lines, never as a stack trace.

    what: one sentence that names the field or the thing and says what is wrong.
    remedy: one sentence that says what to do.
    """

    exit_code = 1

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what if not remedy else f"{what}\n  {remedy}")
        self.what = what
        self.remedy = remedy


class ConfigError(GeotrainError):
    """A configuration field that is missing, of the wrong type or out of range."""

    exit_code = 2


class ViewError(GeotrainError):
    """The view can't be reached, or is not what this site relies on."""

    exit_code = 3


class DataError(GeotrainError):
    """A local dataset, or a row of the view, is not what the task declares."""

    exit_code = 4


class UpdateRefused(GeotrainError):
    """An update that must not enter the mean: damaged, not finite, of the wrong shape or of absurd size."""

    exit_code = 5


class SessionRefused(GeotrainError):
    """The coordinator does not take this agent: its site is unknown, or is already represented."""

    exit_code = 6


class JobFailed(GeotrainError):
    """A job that ended without its result; the reason says why."""

    exit_code = 7


class Fenced(GeotrainError):
    """A later leader has taken over: what a coordinator before it writes is refused. Nothing has failed by it."""

    exit_code = 9

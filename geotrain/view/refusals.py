"""Refusals of the cluster, by result code, in words that a user can act on. Makes no call."""

from geotrain.errors import ViewError

REASONS = {
    -15: ("the cluster did not answer", "try again when it does"),
    -10: ("no connection to the cluster", "try again when it can be reached"),
    8: ("the cluster is out of space", "delete what is not needed, or add storage"),
    9: ("no answer within the deadline", "look for an overloaded node, or raise view.deadline_s"),
    11: ("its partition is unavailable", "bring back the missing nodes of the roster"),
    13: ("the record is too big", "raise max-record-size of the namespace"),
    18: ("its storage is overloaded", "write when there is less to do, or give it faster storage"),
    20: ("the namespace does not exist", "correct view.namespace"),
    22: ("the cluster forbids it now", "look for stop-writes, clock skew or a TTL without nsup-period on its nodes"),
    60: ("the cluster has no such user", "correct view.user, or create the user in the cluster"),
    63: ("the user's password has expired", "give it another one, and write that into view.password_file"),
    65: ("the password is wrong", "correct it in view.password_file"),
    80: ("the cluster asks for a login", "set view.user and view.password_file"),
    81: ("the user may not do this", "give it the role read-write"),
    82: ("the user may not come from this address", "add the address to the allowlist of the user's roles"),
}


class Refusal(ViewError):
    """The cluster did not do what it was asked: not now, or not before an operator has mended it."""


class InDoubt(Refusal):
    """A write that was sent and not answered: it may have been applied, or still be."""


def reason(code: int | None, message: str | None = None) -> tuple[str, str]:
    """Returns why the cluster refused, and what to do."""
    return REASONS.get(code or 0, (message or "the cluster refused it", "see the log of the cluster's nodes"))


def refusal(doing: str, code: int | None, message: str | None = None, in_doubt: bool = False) -> ViewError:
    """Returns an error of the client in words that a user can act on."""
    what, remedy = reason(code, message)
    if in_doubt:
        what += "; it may have been applied all the same"
    return (InDoubt if in_doubt else Refusal)(f"{doing}: {what} (code {code})", remedy)

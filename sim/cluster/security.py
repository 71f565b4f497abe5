"""Who may use the cluster: logging in with a password, and the session tokens that prove it on other connections."""

import hmac
import secrets
import time
from collections.abc import Mapping

from geotrain.wire import admin
from geotrain.wire.admin import AdminField, Command
from geotrain.wire.codes import ResultCode

SESSION_S = 86_400


class Security:
    """The users of a cluster, and their sessions."""

    def __init__(self, passwords: Mapping[str, str]) -> None:
        """passwords: by user."""
        self._passwords = {user.encode(): password.encode() for user, password in passwords.items()}
        self._hashes = {user: admin.credential(password) for user, password in self._passwords.items()}
        self._sessions: dict[bytes, tuple[bytes, float]] = {}
        """By token: the user, and until when the session lasts."""

    @property
    def is_enabled(self) -> bool:
        """Whether anyone must log in."""
        return bool(self._passwords)

    def answer(self, body: bytes, *, is_known: bool) -> tuple[bytes, bool]:
        """The reply to an admin request, and whether its connection may be used from now on. Raises ProtocolError.

        is_known: whether it might be used until now, which only logging in and proving that one has can change.
        """
        _, command, fields = admin.decode(body)
        if not self.is_enabled:
            return admin.encode_reply(ResultCode.SECURITY_NOT_ENABLED), True
        user = fields.get(AdminField.USER, b"")
        if command == Command.LOGIN:
            return self._log_in(user, fields)
        if command == Command.AUTHENTICATE:
            code = self._authenticate(user, fields.get(AdminField.SESSION_TOKEN, b""))
            return admin.encode_reply(code), code == ResultCode.OK
        return admin.encode_reply(ResultCode.UNSUPPORTED), is_known

    def _log_in(self, user: bytes, fields: Mapping[int, bytes]) -> tuple[bytes, bool]:
        if user not in self._passwords:
            return admin.encode_reply(ResultCode.INVALID_USER), False
        credential, password = fields.get(AdminField.CREDENTIAL, b""), fields.get(AdminField.CLEAR_PASSWORD)
        if password is not None:
            is_known = hmac.compare_digest(password, self._passwords[user])
        else:
            is_known = hmac.compare_digest(credential, self._hashes[user])
        if not is_known:
            return admin.encode_reply(ResultCode.INVALID_CREDENTIAL), False
        token = secrets.token_bytes(16)
        now_s = time.monotonic()
        self._sessions = {key: session for key, session in self._sessions.items() if session[1] > now_s}
        self._sessions[token] = user, now_s + SESSION_S
        session = {AdminField.SESSION_TOKEN: token, AdminField.SESSION_TTL: SESSION_S.to_bytes(4, "big")}
        return admin.encode_reply(ResultCode.OK, session), True

    def _authenticate(self, user: bytes, token: bytes) -> ResultCode:
        owner, until_s = self._sessions.get(token, (b"", 0.0))
        if not owner or owner != user:
            return ResultCode.INVALID_CREDENTIAL
        return ResultCode.OK if time.monotonic() < until_s else ResultCode.EXPIRED_SESSION

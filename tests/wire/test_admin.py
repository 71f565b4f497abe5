import pytest

from geotrain.wire import admin
from geotrain.wire.admin import AdminField, Command
from geotrain.wire.codes import ProtocolError, ResultCode


@pytest.mark.parametrize(
    ("password", "expected"),
    [
        (b"correct horse", b"$2a$10$7EqJtq98hPqEX7fNZaFWoOlYcmdoqIJOfxYwKwVjSw/sCf.YI44ka"),
        (b"x" * 100, b"$2a$10$7EqJtq98hPqEX7fNZaFWoOj4pCMKJ2fyV1yI8DmffjnyvUcJMifGW"),
    ],
)
def test_passwords_are_hashed_as_clients_do_it_however_long_they_are(password: bytes, expected: bytes) -> None:
    assert admin.credential(password) == expected


def test_requests_and_replies_come_back_as_they_went() -> None:
    fields = {AdminField.USER: b"ewr", AdminField.SESSION_TOKEN: b"\0\xff"}
    assert admin.decode(admin.encode_request(Command.AUTHENTICATE, fields)) == (0, Command.AUTHENTICATE, fields)
    assert admin.decode(admin.encode_reply(ResultCode.EXPIRED_SESSION)) == (66, 0, {})


def test_a_message_that_is_cut_short_is_a_protocol_error() -> None:
    whole = admin.encode_request(Command.LOGIN, {AdminField.USER: b"ewr"})
    for num_bytes in range(len(whole)):
        with pytest.raises(ProtocolError):
            admin.decode(whole[:num_bytes])

"""The numbers of the protocol: result codes, flag bits, field types, operation codes, particle types."""

from enum import IntEnum
from typing import Final


class ProtocolError(ValueError):
    """Bytes that are not what the protocol says they must be."""


class ResultCode(IntEnum):
    """What a server answers in byte 5 of a message."""

    OK = 0
    SERVER = 1
    NOT_FOUND = 2
    GENERATION = 3
    PARAMETER = 4
    EXISTS = 5
    BIN_EXISTS = 6
    OUT_OF_SPACE = 8
    TIMEOUT = 9
    UNAVAILABLE = 11
    BIN_TYPE = 12
    TOO_BIG = 13
    UNSUPPORTED = 16
    BIN_NOT_FOUND = 17
    KEY_MISMATCH = 19
    NAMESPACE = 20
    BIN_NAME = 21
    FORBIDDEN = 22
    ELEMENT_NOT_FOUND = 23
    ELEMENT_EXISTS = 24
    ENTERPRISE_ONLY = 25
    OP_NOT_APPLICABLE = 26
    FILTERED_OUT = 27
    SECURITY_NOT_ENABLED = 52
    INVALID_USER = 60
    EXPIRED_PASSWORD = 63
    INVALID_CREDENTIAL = 65
    EXPIRED_SESSION = 66
    NOT_AUTHENTICATED = 80
    BLOCKED = 120
    VERSION_MISMATCH = 121
    TRANSACTION_EXPIRED = 122
    TOO_MANY_WRITES = 123
    TRANSACTION_COMMITTED = 124
    TRANSACTION_ABORTED = 125
    ALREADY_LOCKED = 126
    MONITOR_EXISTS = 127
    BATCH_MAX_REQUESTS = 151
    INDEX_FOUND = 200
    INDEX_NOT_FOUND = 201
    INDEX_MAX_COUNT = 206
    QUERY_ABORT = 210


INFO1_READ = 0x01
INFO1_GET_ALL = 0x02
INFO1_SHORT_QUERY = 0x04
INFO1_BATCH = 0x08
INFO1_NO_BIN_DATA = 0x20
INFO1_COMPRESS_RESPONSE = 0x80

INFO2_WRITE = 0x01
INFO2_DELETE = 0x02
INFO2_GENERATION_EQUAL = 0x04
INFO2_GENERATION_GREATER = 0x08
INFO2_DURABLE_DELETE = 0x10
INFO2_CREATE_ONLY = 0x20
INFO2_RESPOND_ALL_OPS = 0x80

INFO3_LAST = 0x01
INFO3_PARTITION_DONE = 0x04
INFO3_UPDATE_ONLY = 0x08
INFO3_CREATE_OR_REPLACE = 0x10
INFO3_REPLACE_ONLY = 0x20
INFO3_SC_READ_TYPE = 0x40
INFO3_SC_READ_RELAX = 0x80

INFO4_VERIFY_READ = 0x01
INFO4_ROLL_FORWARD = 0x02
INFO4_ROLL_BACK = 0x04
INFO4_ON_LOCKING_ONLY = 0x10


class Field:
    """The type of a message field."""

    NAMESPACE: Final = 0
    SET: Final = 1
    KEY: Final = 2
    RECORD_VERSION: Final = 3
    DIGEST: Final = 4
    TRANSACTION_ID: Final = 5
    TRANSACTION_DEADLINE: Final = 6
    TASK_ID: Final = 7
    SOCKET_TIMEOUT: Final = 9
    RECORDS_PER_SECOND: Final = 10
    PARTITION_IDS: Final = 11
    DIGESTS: Final = 12
    MAX_RECORDS: Final = 13
    BVALS: Final = 15
    INDEX_NAME: Final = 21
    INDEX_RANGE: Final = 22
    INDEX_CONTEXT: Final = 23
    INDEX_EXPRESSION: Final = 24
    INDEX_TYPE: Final = 26
    UDF_PACKAGE: Final = 30
    UDF_FUNCTION: Final = 31
    UDF_ARGUMENTS: Final = 32
    UDF_OPERATION: Final = 33
    BATCH: Final = 41
    FILTER: Final = 43


class OpCode:
    """What an operation does to its bin, or to its record."""

    READ: Final = 1
    WRITE: Final = 2
    CDT_READ: Final = 3
    CDT_MODIFY: Final = 4
    INCREMENT: Final = 5
    EXPRESSION_READ: Final = 7
    EXPRESSION_MODIFY: Final = 8
    APPEND: Final = 9
    PREPEND: Final = 10
    TOUCH: Final = 11
    BITS_READ: Final = 12
    BITS_MODIFY: Final = 13
    DELETE_ALL: Final = 14
    HLL_READ: Final = 15
    HLL_MODIFY: Final = 16


class Particle:
    """The type of a value on the wire."""

    NIL: Final = 0
    INTEGER: Final = 1
    FLOAT: Final = 2
    STRING: Final = 3
    BLOB: Final = 4
    BOOL: Final = 17
    HLL: Final = 18
    MAP: Final = 19
    LIST: Final = 20
    GEOJSON: Final = 23


MAX_BIN_NAME_BYTES = 15
DIGEST_BYTES = 20
EPOCH_S = 1_262_304_000  # 2010-01-01T00:00:00Z: void-times count from here
TTL_DEFAULT = 0  # times to live that are no number of seconds
TTL_NEVER = 0xFFFFFFFF
TTL_DONT_UPDATE = 0xFFFFFFFE

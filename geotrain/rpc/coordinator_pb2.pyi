from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FromAgent(_message.Message):
    __slots__ = ("hello", "progress", "prepared", "cut_report", "cut_rows", "statistics", "failed", "waiting")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    PREPARED_FIELD_NUMBER: _ClassVar[int]
    CUT_REPORT_FIELD_NUMBER: _ClassVar[int]
    CUT_ROWS_FIELD_NUMBER: _ClassVar[int]
    STATISTICS_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    progress: Progress
    prepared: Prepared
    cut_report: CutReport
    cut_rows: CutRows
    statistics: StatisticsReport
    failed: Failed
    waiting: Waiting
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., prepared: _Optional[_Union[Prepared, _Mapping]] = ..., cut_report: _Optional[_Union[CutReport, _Mapping]] = ..., cut_rows: _Optional[_Union[CutRows, _Mapping]] = ..., statistics: _Optional[_Union[StatisticsReport, _Mapping]] = ..., failed: _Optional[_Union[Failed, _Mapping]] = ..., waiting: _Optional[_Union[Waiting, _Mapping]] = ...) -> None: ...

class ToAgent(_message.Message):
    __slots__ = ("welcome", "prepare", "scan_cut", "list_cut_rows", "cut_decided", "report_statistics", "train", "localize", "round_committed", "job_ended", "job_paused")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    PREPARE_FIELD_NUMBER: _ClassVar[int]
    SCAN_CUT_FIELD_NUMBER: _ClassVar[int]
    LIST_CUT_ROWS_FIELD_NUMBER: _ClassVar[int]
    CUT_DECIDED_FIELD_NUMBER: _ClassVar[int]
    REPORT_STATISTICS_FIELD_NUMBER: _ClassVar[int]
    TRAIN_FIELD_NUMBER: _ClassVar[int]
    LOCALIZE_FIELD_NUMBER: _ClassVar[int]
    ROUND_COMMITTED_FIELD_NUMBER: _ClassVar[int]
    JOB_ENDED_FIELD_NUMBER: _ClassVar[int]
    JOB_PAUSED_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    prepare: Prepare
    scan_cut: ScanCut
    list_cut_rows: ListCutRows
    cut_decided: CutDecided
    report_statistics: ReportStatistics
    train: Train
    localize: Localize
    round_committed: RoundCommitted
    job_ended: JobEnded
    job_paused: JobPaused
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., prepare: _Optional[_Union[Prepare, _Mapping]] = ..., scan_cut: _Optional[_Union[ScanCut, _Mapping]] = ..., list_cut_rows: _Optional[_Union[ListCutRows, _Mapping]] = ..., cut_decided: _Optional[_Union[CutDecided, _Mapping]] = ..., report_statistics: _Optional[_Union[ReportStatistics, _Mapping]] = ..., train: _Optional[_Union[Train, _Mapping]] = ..., localize: _Optional[_Union[Localize, _Mapping]] = ..., round_committed: _Optional[_Union[RoundCommitted, _Mapping]] = ..., job_ended: _Optional[_Union[JobEnded, _Mapping]] = ..., job_paused: _Optional[_Union[JobPaused, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("site", "version", "instance", "held_jobs")
    SITE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    HELD_JOBS_FIELD_NUMBER: _ClassVar[int]
    site: str
    version: str
    instance: str
    held_jobs: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, site: _Optional[str] = ..., version: _Optional[str] = ..., instance: _Optional[str] = ..., held_jobs: _Optional[_Iterable[str]] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("heartbeat_s",)
    HEARTBEAT_S_FIELD_NUMBER: _ClassVar[int]
    heartbeat_s: float
    def __init__(self, heartbeat_s: _Optional[float] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("job", "round", "phase", "rows", "loss", "bytes_up", "bytes_down", "note")
    JOB_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    BYTES_UP_FIELD_NUMBER: _ClassVar[int]
    BYTES_DOWN_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    job: str
    round: int
    phase: str
    rows: int
    loss: float
    bytes_up: int
    bytes_down: int
    note: str
    def __init__(self, job: _Optional[str] = ..., round: _Optional[int] = ..., phase: _Optional[str] = ..., rows: _Optional[int] = ..., loss: _Optional[float] = ..., bytes_up: _Optional[int] = ..., bytes_down: _Optional[int] = ..., note: _Optional[str] = ...) -> None: ...

class Prepare(_message.Message):
    __slots__ = ("job", "task_json", "seed")
    JOB_FIELD_NUMBER: _ClassVar[int]
    TASK_JSON_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    job: str
    task_json: str
    seed: int
    def __init__(self, job: _Optional[str] = ..., task_json: _Optional[str] = ..., seed: _Optional[int] = ...) -> None: ...

class Prepared(_message.Message):
    __slots__ = ("job", "local_rows", "held", "cut_round", "cut_number")
    JOB_FIELD_NUMBER: _ClassVar[int]
    LOCAL_ROWS_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    CUT_ROUND_FIELD_NUMBER: _ClassVar[int]
    CUT_NUMBER_FIELD_NUMBER: _ClassVar[int]
    job: str
    local_rows: int
    held: Held
    cut_round: int
    cut_number: int
    def __init__(self, job: _Optional[str] = ..., local_rows: _Optional[int] = ..., held: _Optional[_Union[Held, _Mapping]] = ..., cut_round: _Optional[int] = ..., cut_number: _Optional[int] = ...) -> None: ...

class Waiting(_message.Message):
    __slots__ = ("job", "reason")
    JOB_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    job: str
    reason: str
    def __init__(self, job: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class Held(_message.Message):
    __slots__ = ("round", "base_version")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    BASE_VERSION_FIELD_NUMBER: _ClassVar[int]
    round: int
    base_version: int
    def __init__(self, round: _Optional[int] = ..., base_version: _Optional[int] = ...) -> None: ...

class ScanCut(_message.Message):
    __slots__ = ("job", "round", "until_ns", "number")
    JOB_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    UNTIL_NS_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    job: str
    round: int
    until_ns: int
    number: int
    def __init__(self, job: _Optional[str] = ..., round: _Optional[int] = ..., until_ns: _Optional[int] = ..., number: _Optional[int] = ...) -> None: ...

class SetFingerprints(_message.Message):
    __slots__ = ("set", "rows", "fingerprints")
    SET_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINTS_FIELD_NUMBER: _ClassVar[int]
    set: str
    rows: int
    fingerprints: bytes
    def __init__(self, set: _Optional[str] = ..., rows: _Optional[int] = ..., fingerprints: _Optional[bytes] = ...) -> None: ...

class CutReport(_message.Message):
    __slots__ = ("job", "round", "sets")
    JOB_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    SETS_FIELD_NUMBER: _ClassVar[int]
    job: str
    round: int
    sets: _containers.RepeatedCompositeFieldContainer[SetFingerprints]
    def __init__(self, job: _Optional[str] = ..., round: _Optional[int] = ..., sets: _Optional[_Iterable[_Union[SetFingerprints, _Mapping]]] = ...) -> None: ...

class SetPartitions(_message.Message):
    __slots__ = ("set", "partitions")
    SET_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    set: str
    partitions: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, set: _Optional[str] = ..., partitions: _Optional[_Iterable[int]] = ...) -> None: ...

class ListCutRows(_message.Message):
    __slots__ = ("job", "round", "sets")
    JOB_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    SETS_FIELD_NUMBER: _ClassVar[int]
    job: str
    round: int
    sets: _containers.RepeatedCompositeFieldContainer[SetPartitions]
    def __init__(self, job: _Optional[str] = ..., round: _Optional[int] = ..., sets: _Optional[_Iterable[_Union[SetPartitions, _Mapping]]] = ...) -> None: ...

class SetRows(_message.Message):
    __slots__ = ("set", "digests", "generations")
    SET_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    GENERATIONS_FIELD_NUMBER: _ClassVar[int]
    set: str
    digests: bytes
    generations: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, set: _Optional[str] = ..., digests: _Optional[bytes] = ..., generations: _Optional[_Iterable[int]] = ...) -> None: ...

class CutRows(_message.Message):
    __slots__ = ("job", "round", "sets")
    JOB_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    SETS_FIELD_NUMBER: _ClassVar[int]
    job: str
    round: int
    sets: _containers.RepeatedCompositeFieldContainer[SetRows]
    def __init__(self, job: _Optional[str] = ..., round: _Optional[int] = ..., sets: _Optional[_Iterable[_Union[SetRows, _Mapping]]] = ...) -> None: ...

class SetDigests(_message.Message):
    __slots__ = ("set", "digests")
    SET_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    set: str
    digests: bytes
    def __init__(self, set: _Optional[str] = ..., digests: _Optional[bytes] = ...) -> None: ...

class CutDecided(_message.Message):
    __slots__ = ("job", "round", "drop")
    JOB_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    DROP_FIELD_NUMBER: _ClassVar[int]
    job: str
    round: int
    drop: _containers.RepeatedCompositeFieldContainer[SetDigests]
    def __init__(self, job: _Optional[str] = ..., round: _Optional[int] = ..., drop: _Optional[_Iterable[_Union[SetDigests, _Mapping]]] = ...) -> None: ...

class ReportStatistics(_message.Message):
    __slots__ = ("job", "round")
    JOB_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    job: str
    round: int
    def __init__(self, job: _Optional[str] = ..., round: _Optional[int] = ...) -> None: ...

class StatisticsReport(_message.Message):
    __slots__ = ("job", "statistics_json")
    JOB_FIELD_NUMBER: _ClassVar[int]
    STATISTICS_JSON_FIELD_NUMBER: _ClassVar[int]
    job: str
    statistics_json: str
    def __init__(self, job: _Optional[str] = ..., statistics_json: _Optional[str] = ...) -> None: ...

class Train(_message.Message):
    __slots__ = ("job", "round", "base_version", "ahead_bytes")
    JOB_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    BASE_VERSION_FIELD_NUMBER: _ClassVar[int]
    AHEAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    job: str
    round: int
    base_version: int
    ahead_bytes: int
    def __init__(self, job: _Optional[str] = ..., round: _Optional[int] = ..., base_version: _Optional[int] = ..., ahead_bytes: _Optional[int] = ...) -> None: ...

class Localize(_message.Message):
    __slots__ = ("job", "base_version", "rounds", "ahead_bytes")
    JOB_FIELD_NUMBER: _ClassVar[int]
    BASE_VERSION_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    AHEAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    job: str
    base_version: int
    rounds: int
    ahead_bytes: int
    def __init__(self, job: _Optional[str] = ..., base_version: _Optional[int] = ..., rounds: _Optional[int] = ..., ahead_bytes: _Optional[int] = ...) -> None: ...

class RoundCommitted(_message.Message):
    __slots__ = ("job", "round", "version", "counted", "oldest", "reason")
    JOB_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    COUNTED_FIELD_NUMBER: _ClassVar[int]
    OLDEST_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    job: str
    round: int
    version: int
    counted: int
    oldest: int
    reason: str
    def __init__(self, job: _Optional[str] = ..., round: _Optional[int] = ..., version: _Optional[int] = ..., counted: _Optional[int] = ..., oldest: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class JobPaused(_message.Message):
    __slots__ = ("job", "reason")
    JOB_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    job: str
    reason: str
    def __init__(self, job: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class JobEnded(_message.Message):
    __slots__ = ("job", "status", "reason")
    JOB_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    job: str
    status: str
    reason: str
    def __init__(self, job: _Optional[str] = ..., status: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class Failed(_message.Message):
    __slots__ = ("job", "round", "reason", "asked")
    JOB_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ASKED_FIELD_NUMBER: _ClassVar[int]
    job: str
    round: int
    reason: str
    asked: str
    def __init__(self, job: _Optional[str] = ..., round: _Optional[int] = ..., reason: _Optional[str] = ..., asked: _Optional[str] = ...) -> None: ...

class UploadPart(_message.Message):
    __slots__ = ("header", "chunk")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    header: UpdateHeader
    chunk: Chunk
    def __init__(self, header: _Optional[_Union[UpdateHeader, _Mapping]] = ..., chunk: _Optional[_Union[Chunk, _Mapping]] = ...) -> None: ...

class UpdateHeader(_message.Message):
    __slots__ = ("job", "site", "round", "kind", "samples", "metrics", "num_bytes", "xxh3", "base_version", "cut_number", "ahead_bytes")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        DIFFERENCE: _ClassVar[UpdateHeader.Kind]
        LOCALIZED: _ClassVar[UpdateHeader.Kind]
    DIFFERENCE: UpdateHeader.Kind
    LOCALIZED: UpdateHeader.Kind
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    JOB_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    NUM_BYTES_FIELD_NUMBER: _ClassVar[int]
    XXH3_FIELD_NUMBER: _ClassVar[int]
    BASE_VERSION_FIELD_NUMBER: _ClassVar[int]
    CUT_NUMBER_FIELD_NUMBER: _ClassVar[int]
    AHEAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    job: str
    site: str
    round: int
    kind: UpdateHeader.Kind
    samples: int
    metrics: _containers.ScalarMap[str, float]
    num_bytes: int
    xxh3: bytes
    base_version: int
    cut_number: int
    ahead_bytes: int
    def __init__(self, job: _Optional[str] = ..., site: _Optional[str] = ..., round: _Optional[int] = ..., kind: _Optional[_Union[UpdateHeader.Kind, str]] = ..., samples: _Optional[int] = ..., metrics: _Optional[_Mapping[str, float]] = ..., num_bytes: _Optional[int] = ..., xxh3: _Optional[bytes] = ..., base_version: _Optional[int] = ..., cut_number: _Optional[int] = ..., ahead_bytes: _Optional[int] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("offset", "data")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    offset: int
    data: bytes
    def __init__(self, offset: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class UploadAnswer(_message.Message):
    __slots__ = ("credit", "receipt")
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    credit: UploadCredit
    receipt: UploadReceipt
    def __init__(self, credit: _Optional[_Union[UploadCredit, _Mapping]] = ..., receipt: _Optional[_Union[UploadReceipt, _Mapping]] = ...) -> None: ...

class UploadCredit(_message.Message):
    __slots__ = ("received", "until")
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    received: int
    until: int
    def __init__(self, received: _Optional[int] = ..., until: _Optional[int] = ...) -> None: ...

class UploadReceipt(_message.Message):
    __slots__ = ("accepted", "reason", "again")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    AGAIN_FIELD_NUMBER: _ClassVar[int]
    accepted: bool
    reason: str
    again: bool
    def __init__(self, accepted: _Optional[bool] = ..., reason: _Optional[str] = ..., again: _Optional[bool] = ...) -> None: ...

class LaunchRequest(_message.Message):
    __slots__ = ("job_json", "request_id")
    JOB_JSON_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    job_json: str
    request_id: str
    def __init__(self, job_json: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class LaunchReply(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: str
    def __init__(self, job: _Optional[str] = ...) -> None: ...

class FollowRequest(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: str
    def __init__(self, job: _Optional[str] = ...) -> None: ...

class ControlRequest(_message.Message):
    __slots__ = ("job", "action", "reason")
    class Action(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        PAUSE: _ClassVar[ControlRequest.Action]
        RESUME: _ClassVar[ControlRequest.Action]
        CANCEL: _ClassVar[ControlRequest.Action]
    PAUSE: ControlRequest.Action
    RESUME: ControlRequest.Action
    CANCEL: ControlRequest.Action
    JOB_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    job: str
    action: ControlRequest.Action
    reason: str
    def __init__(self, job: _Optional[str] = ..., action: _Optional[_Union[ControlRequest.Action, str]] = ..., reason: _Optional[str] = ...) -> None: ...

class ControlReply(_message.Message):
    __slots__ = ("status", "reason")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    status: str
    reason: str
    def __init__(self, status: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class JobEvent(_message.Message):
    __slots__ = ("time_s", "job", "started", "site", "cut", "round", "localized", "ended", "phase")
    TIME_S_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    CUT_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    LOCALIZED_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    time_s: float
    job: str
    started: JobStarted
    site: SiteEvent
    cut: CutEvent
    round: RoundEvent
    localized: LocalizedEvent
    ended: JobEnded
    phase: PhaseEvent
    def __init__(self, time_s: _Optional[float] = ..., job: _Optional[str] = ..., started: _Optional[_Union[JobStarted, _Mapping]] = ..., site: _Optional[_Union[SiteEvent, _Mapping]] = ..., cut: _Optional[_Union[CutEvent, _Mapping]] = ..., round: _Optional[_Union[RoundEvent, _Mapping]] = ..., localized: _Optional[_Union[LocalizedEvent, _Mapping]] = ..., ended: _Optional[_Union[JobEnded, _Mapping]] = ..., phase: _Optional[_Union[PhaseEvent, _Mapping]] = ...) -> None: ...

class PhaseEvent(_message.Message):
    __slots__ = ("round", "phase", "reason")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    round: int
    phase: str
    reason: str
    def __init__(self, round: _Optional[int] = ..., phase: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class JobStarted(_message.Message):
    __slots__ = ("sites", "rounds", "consistency", "racks")
    SITES_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    RACKS_FIELD_NUMBER: _ClassVar[int]
    sites: _containers.RepeatedScalarFieldContainer[str]
    rounds: int
    consistency: str
    racks: int
    def __init__(self, sites: _Optional[_Iterable[str]] = ..., rounds: _Optional[int] = ..., consistency: _Optional[str] = ..., racks: _Optional[int] = ...) -> None: ...

class SiteEvent(_message.Message):
    __slots__ = ("site", "progress")
    SITE_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    site: str
    progress: Progress
    def __init__(self, site: _Optional[str] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ...) -> None: ...

class CutEvent(_message.Message):
    __slots__ = ("round", "rows", "dropped", "equal")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    EQUAL_FIELD_NUMBER: _ClassVar[int]
    round: int
    rows: int
    dropped: int
    equal: bool
    def __init__(self, round: _Optional[int] = ..., rows: _Optional[int] = ..., dropped: _Optional[int] = ..., equal: _Optional[bool] = ...) -> None: ...

class RoundEvent(_message.Message):
    __slots__ = ("round", "seconds", "version", "bytes_up", "bytes_down", "loss", "reason")
    class LossEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    ROUND_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BYTES_UP_FIELD_NUMBER: _ClassVar[int]
    BYTES_DOWN_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    round: int
    seconds: float
    version: int
    bytes_up: int
    bytes_down: int
    loss: _containers.ScalarMap[str, float]
    reason: str
    def __init__(self, round: _Optional[int] = ..., seconds: _Optional[float] = ..., version: _Optional[int] = ..., bytes_up: _Optional[int] = ..., bytes_down: _Optional[int] = ..., loss: _Optional[_Mapping[str, float]] = ..., reason: _Optional[str] = ...) -> None: ...

class LocalizedEvent(_message.Message):
    __slots__ = ("site", "state", "rows", "metrics")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    SITE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    site: str
    state: str
    rows: int
    metrics: _containers.ScalarMap[str, float]
    def __init__(self, site: _Optional[str] = ..., state: _Optional[str] = ..., rows: _Optional[int] = ..., metrics: _Optional[_Mapping[str, float]] = ...) -> None: ...

"""What a training task is: columns, join, features, label, model, budget. Knows no store, no network, no model code."""

import json
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

from geotrain.tasks import checks


@dataclass(slots=True, kw_only=True)
class DatasetConfig:
    """Rows that never leave their site: files in the site's own folder.

    path: file, folder or glob pattern, relative to the site's data folder. Folders named `column=value` are columns;
        files and folders whose names start with _ or . are left out, unless the path names them.
    columns: the columns to read and the type of each: int64, float64, string, bool or timestamp.
    format: parquet, csv, json (an object a line), delta (a table's folder) or iceberg (a table's metadata file); auto:
        delta for a folder with a _delta_log, else as the file's name ends, parquet for any other.
    """

    path: str
    columns: dict[str, str]
    format: str = "auto"


@dataclass(slots=True, kw_only=True)
class ViewSetConfig:
    """A set of the view that the task reads.

    columns: the columns (bins) to read and the type of each: int64, float64, string, bool or timestamp.
    key: the column that is also the key of its record, int64 or string; joins by it need no shuffle. null: none is.
    """

    columns: dict[str, str]
    key: str | None = None


@dataclass(slots=True, kw_only=True)
class RowsConfig:
    """Which rows are the samples.

    dataset: the local dataset each of whose rows is one sample.
    time: its timestamp column: the moment at which the model is asked; nothing later is joined to the row.
    """

    dataset: str
    time: str


@dataclass(slots=True, kw_only=True)
class JoinStep:
    """One step of the join: it adds columns to the rows. No row ever meets what became known after the row's time.

    kind: equi (the source row with the same keys), latest (the newest of the source rows with the same keys that were
        known at the row's time) or window (an aggregate of the source rows that became known in the `within_s` seconds
        up to it).
    source: the local dataset or the set of the view to take from.
    by: keys: column of the rows -> column of the source; a null matches nothing; only equi must have some.
    columns: the new columns: new name -> column of the source.
    known_at: the source's timestamp column that says when a row became known, which may be later than the time that it
        is about; for latest and window.
    within_s: how far back to look, in seconds; for window, and for latest where old rows shall not count (null: they
        do).
    aggregate: count, sum, mean, min or max of what is not null; for window.
    age_s: name of one more new column: seconds from when the source row became known to the row's time; for latest.
    how: left keeps the rows that match nothing, with nulls in the new columns; inner drops them.
    plan: how rows and source meet. co_partitioned: local rows, kept on disk by partition, with the same partitions of a
        set. lookup: only the records whose keys the rows hold are read. broadcast: every task gets the whole source.
        shuffle: rows and source are both redistributed by their keys. auto: what seems fastest; in a job never lookup,
        since only sets that are read whole are proven to be the same at every site. co_partitioned and lookup need a
        set with a `key`, in `by`.
    """

    kind: str
    source: str
    by: dict[str, str] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)
    known_at: str | None = None
    within_s: float | None = None
    aggregate: str | None = None
    age_s: str | None = None
    how: str = "left"
    plan: str = "auto"

    def new_columns(self) -> list[str]:
        """The names that this step adds to the rows."""
        return [*self.columns, *([self.age_s] if self.age_s else [])]


@dataclass(slots=True, kw_only=True)
class FeatureConfig:
    """How one column of the joined rows enters the model.

    kind: numeric (standardised by the statistics of all sites) or categorical (an index into their common vocabulary).
    transform: what happens to a number first: none, or signed_log (sign(x) log(1 + |x|), for heavy tails).
    min_count: a category seen less often than this, over all sites together, counts as unknown and is not named.
    """

    kind: str = "numeric"
    transform: str = "none"
    min_count: int = 20


@dataclass(slots=True, kw_only=True)
class LabelConfig:
    """What the model learns to predict; rows in which the column is null are dropped.

    column: column of the rows' own dataset.
    above: the label is 1 where the column is above this number, else 0; null: the label is the number itself.
    """

    column: str
    above: float | None = None


@dataclass(slots=True, kw_only=True)
class SplitConfig:
    """Which rows train and which test, by the rows' time.

    test_from: ISO date or time; rows from then on test, earlier ones train.
    """

    test_from: str

    def moment(self) -> datetime:
        """The first moment of the test rows."""
        return datetime.fromisoformat(self.test_from)


@dataclass(slots=True, kw_only=True)
class TrainingConfig:
    """How a site trains: in one round, or when it adapts the global model to its own rows.

    optimizer: the optimizer inside the site: `_target_` and its arguments; it gets the parameters. Made anew each time.
    epochs: passes over the site's training rows.
    batch_size: rows a step, over all of the site's workers together.
    max_grad_norm: a gradient longer than this is cut to it.
    parameters: names of the parameters that are trained, as glob patterns; ["head.*"] leaves all but a head alone.
    """

    optimizer: dict[str, Any]
    epochs: int = 1
    batch_size: int = 1024
    max_grad_norm: float = 1.0
    parameters: list[str] = field(default_factory=lambda: ["*"])


@dataclass(slots=True, kw_only=True)
class TaskConfig:
    """A task: everything that a site needs to know to train, but its rows.

    name: the model's name in the view.
    local: the local datasets, by name.
    view: the sets of the view, by name.
    rows: which local dataset's rows are the samples.
    join: steps that add columns to the rows, in order.
    features: what enters the model: column of the joined rows -> how.
    label: what the model learns to predict.
    split: which rows train and which test.
    model: `_target_` and arguments of a torch module; it also gets num_numeric and cardinalities.
    loss: `_target_` and arguments of a torch loss; called with outputs and labels.
    metric: `_target_` and arguments of a function; called with labels and outputs, greater is better.
    training: what a site does in one round.
    localize: how a site adapts the global model to its own rows after the last round.
    """

    name: str
    local: dict[str, DatasetConfig]
    rows: RowsConfig
    features: dict[str, FeatureConfig]
    label: LabelConfig
    split: SplitConfig
    model: dict[str, Any]
    loss: dict[str, Any]
    metric: dict[str, Any]
    training: TrainingConfig
    localize: TrainingConfig
    view: dict[str, ViewSetConfig] = field(default_factory=dict)
    join: list[JoinStep] = field(default_factory=list)

    def __post_init__(self) -> None:
        checks.check(self)

    def numeric(self) -> list[str]:
        """The numeric features, in the order in which the model sees them."""
        return [name for name, feature in self.features.items() if feature.kind == "numeric"]

    def categorical(self) -> list[str]:
        """The categorical features, in the order in which the model sees them."""
        return [name for name, feature in self.features.items() if feature.kind == "categorical"]

    def view_columns(self) -> set[str]:
        """The columns of the joined rows that owe anything to the view."""
        shared: set[str] = set()
        for step in self.join:
            if step.source in self.view or shared.intersection(step.by):
                shared.update(step.new_columns())
        return shared

    def key_column(self, step: JoinStep) -> str | None:
        """The column of the samples' own dataset that holds the record keys of the step's source, where one does."""
        view_set = self.view.get(step.source)
        own = self.local[self.rows.dataset].columns
        ours = [ours for ours, theirs in step.by.items() if view_set and theirs == view_set.key and ours in own]
        return ours[0] if ours else None

    def proven(self) -> list[str]:
        """The sets that are read whole, so that their rows can be proven to be the same at every site."""
        looked_up = {step.source for step in self.join if step.plan == "lookup"}
        return [name for name in self.view if name not in looked_up]

    def without_view(self) -> "TaskConfig":
        """The same task as a site would have to do it alone: no sets of the view, and nothing that comes of them."""
        shared = self.view_columns()
        return replace(
            self,
            view={},
            join=[step for step in self.join if not shared.intersection(step.new_columns())],
            features={name: feature for name, feature in self.features.items() if name not in shared},
        )

    def to_json(self) -> str:
        """The task as it travels to the sites."""
        return json.dumps(asdict(self))

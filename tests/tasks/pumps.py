"""A second, tiny task, with nothing of flights in it: will a pump fail, by its readings, its type and recent alarms?"""

from copy import deepcopy
from functools import reduce
from typing import Any

from omegaconf import OmegaConf

from geotrain.tasks.config import TaskConfig

PUMPS: dict[str, Any] = {
    "name": "pumps",
    "local": {
        "readings": {
            "path": "readings*.parquet",
            "columns": {
                "at": "timestamp",
                "pump": "string",
                "kind": "string",
                "pressure": "float64",
                "is_new": "bool",
                "failures": "int64",
            },
        },
        "visits": {"path": "visits.parquet", "columns": {"pump": "string", "visited_at": "timestamp"}},
    },
    "view": {
        "kinds": {"columns": {"kind": "string", "maker": "string"}},
        "alarms": {"columns": {"maker": "string", "raised_at": "timestamp", "level": "float64"}},
    },
    "rows": {"dataset": "readings", "time": "at"},
    "join": [
        {
            "kind": "latest",
            "source": "visits",
            "by": {"pump": "pump"},
            "known_at": "visited_at",
            "within_s": 1e6,
            "age_s": "since_visit_s",
        },
        {"kind": "equi", "source": "kinds", "by": {"kind": "kind"}, "columns": {"maker": "maker"}},
        {
            "kind": "window",
            "source": "alarms",
            "by": {"maker": "maker"},
            "known_at": "raised_at",
            "within_s": 3600,
            "aggregate": "count",
            "columns": {"alarms_1h": "level"},
        },
    ],
    "features": {
        "pressure": {},
        "since_visit_s": {"transform": "signed_log"},
        "alarms_1h": {},
        "kind": {"kind": "categorical", "min_count": 2},
        "is_new": {"kind": "categorical", "min_count": 1},
    },
    "label": {"column": "failures", "above": 0},
    "split": {"test_from": "2024-02-01"},
    "model": {"_target_": "geotrain.tasks.model.TabularNet", "width": 8, "depth": 1},
    "loss": {"_target_": "torch.nn.BCEWithLogitsLoss"},
    "metric": {"_target_": "geotrain.tasks.metrics.roc_auc"},
    "training": {"optimizer": {"_target_": "torch.optim.AdamW", "lr": 0.05}, "epochs": 2, "batch_size": 32},
    "localize": {"optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1}, "parameters": ["head.*"]},
}


def pumps(changes: dict[str, Any] | None = None) -> TaskConfig:
    """The task; `changes` maps dotted paths, such as `join.0.by`, to what stands there instead."""
    config: Any = deepcopy(PUMPS)
    for path, value in (changes or {}).items():
        *parents, last = [int(name) if name.isdigit() else name for name in path.split(".")]
        reduce(lambda block, name: block[name], parents, config)[last] = value
    task = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(TaskConfig), config))
    assert isinstance(task, TaskConfig)
    return task

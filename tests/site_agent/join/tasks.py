"""A task of orders, to be joined with the accounts that the view has under their names."""

from typing import Any

from geotrain.tasks.config import TaskConfig
from tests.tasks.pumps import pumps


def orders(*steps: dict[str, Any], key: str = "account") -> TaskConfig:
    """The task with these steps; their source is `accounts` where they name none. key: of the set."""
    return pumps(
        {
            "local": {
                "orders": {
                    "path": "orders*.parquet",
                    "columns": {
                        "at": "timestamp",
                        "account": "string",
                        "amount": "float64",
                        "other": "string",
                        "count": "int64",
                    },
                },
                "rates": {"path": "rates.parquet", "columns": {"at": "timestamp", "rate": "float64"}},
            },
            "view": {
                "accounts": {
                    "key": key,
                    "columns": {
                        "account": "string",
                        "group": "string",
                        "limit": "int64",
                        "score": "float64",
                        "seen_at": "timestamp",
                    },
                },
                "groups": {"key": "group", "columns": {"group": "string", "size": "int64"}},
            },
            "rows": {"dataset": "orders", "time": "at"},
            "join": [{"source": "accounts", **step} for step in steps],
            "features": {"count": {}},
            "label": {"column": "amount"},
        }
    )


EQUI = {"kind": "equi", "by": {"account": "account"}, "columns": {"limit": "limit", "group": "group"}}
LATEST = {
    "kind": "latest",
    "by": {"account": "account"},
    "known_at": "seen_at",
    "columns": {"score": "score"},
    "age_s": "age_s",
}
WINDOW = {
    "kind": "window",
    "by": {"account": "account"},
    "known_at": "seen_at",
    "within_s": 3600.0,
    "aggregate": "max",
    "columns": {"most": "score"},
}

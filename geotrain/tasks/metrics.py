"""Metrics that a task can name; greater is better."""

import numpy as np
import numpy.typing as npt


def roc_auc(labels: npt.NDArray[np.float32], outputs: npt.NDArray[np.float32]) -> float:
    """The chance that a positive row scores above a negative one, ties counting half (Mann and Whitney 1947).

    labels, outputs: (n,); a label above 0 is positive. NaN where one of the classes is absent.
    """
    positive = labels > 0
    num_positive = int(positive.sum())
    num_negative = len(labels) - num_positive
    if num_positive == 0 or num_negative == 0:
        return float("nan")
    _, group, sizes = np.unique(outputs, return_inverse=True, return_counts=True)
    last_rank = np.cumsum(sizes)
    mean_rank = last_rank - (sizes - 1) / 2  # ranks count from 1; a group of ties shares its mean rank
    rank_sum = float(mean_rank[group][positive].sum())
    return (rank_sum - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative)

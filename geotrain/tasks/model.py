"""Builds the model that a task names, and offers one for tables. Knows no data and no training."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from geotrain.errors import ConfigError
from geotrain.tasks.config import TaskConfig
from geotrain.tasks.features import Encoding
from geotrain.tasks.targets import instantiate


def build_model(task: TaskConfig, encoding: Encoding, allowed: Sequence[str]) -> nn.Module:
    """Return the task's model with fresh parameters; torch's random generator decides which.

    The model is an ordinary module. It is made with num_numeric and cardinalities besides its own arguments, and turns
    the inputs that `geotrain.tasks.samples.encode` describes into one output a row.
    """
    model = instantiate(
        task.model,
        allowed,
        "task.model",
        num_numeric=len(task.numeric()),
        cardinalities=[encoding.cardinality(name) for name in task.categorical()],
    )
    if not isinstance(model, nn.Module):
        target = task.model["_target_"]
        raise ConfigError(f"task.model._target_: {target} makes no torch.nn.Module", "Name a module's class.")
    return model


class TabularNet(nn.Module):
    """A perceptron over numbers, marks of what is missing, and embedded categories.

    num_numeric: numeric features.
    cardinalities: number of indices of each categorical feature.
    width, depth: size and number of the hidden layers.
    embedding: most dimensions that a category gets.
    dropout: share of hidden units left out in training.
    """

    def __init__(
        self,
        num_numeric: int,
        cardinalities: Sequence[int],
        *,
        width: int = 128,
        depth: int = 2,
        embedding: int = 8,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        sizes = [min(embedding, (n + 1) // 2) for n in cardinalities]
        tables = [nn.Embedding(n, size) for n, size in zip(cardinalities, sizes, strict=True)]
        self.embeddings = nn.ModuleList(tables)
        size = 2 * num_numeric + sum(sizes)
        layers: list[nn.Module] = []
        for _ in range(depth):
            layers += [nn.Linear(size, width), nn.ReLU(), nn.Dropout(dropout)]
            size = width
        self.body = nn.Sequential(*layers)
        self._tables = tables
        self._linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
        self._dropout = dropout
        self.head = nn.Linear(size, 1)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the outputs (n,), for a classification as logits."""
        # By functions: for few rows, the calls of modules take longer than what they do.
        if len(inputs["categorical"]) == 1 and not self.training:
            return self._output_alone(inputs)
        categories = inputs["categorical"].unbind(1)
        embedded = [torch.embedding(table.weight, of) for table, of in zip(self._tables, categories, strict=True)]
        hidden = torch.cat([inputs["numeric"], inputs["missing"], *embedded], dim=1)
        for layer in self._linear:
            hidden = functional.linear(hidden, layer.weight, layer.bias).relu_()
            if self.training:
                hidden = functional.dropout(hidden, self._dropout)
        return functional.linear(hidden, self.head.weight, self.head.bias).squeeze(1)

    def _output_alone(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """`forward` for one row: vectors take less time than matrices of one row."""
        [places] = inputs["categorical"].tolist()
        embedded = [table.weight[at] for table, at in zip(self._tables, places, strict=True)]
        hidden = torch.cat([inputs["numeric"][0], inputs["missing"][0], *embedded])
        for layer in self._linear:
            hidden = torch.addmv(layer.bias, layer.weight, hidden).relu_()
        return torch.addmv(self.head.bias, self.head.weight, hidden)

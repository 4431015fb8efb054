"""Model cards: what a registered version is, from what, how good, for what, and how to load it."""

import inspect
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from jinja2 import Environment, StrictUndefined, Template
from torch import nn

from flows.settings import git_commit
from models import needs_table
from pipeline.datasets import references
from pipeline.evaluation import published
from pipeline.evaluation.scores import Comparison
from pipeline.images.metrics import METRICS, MIN_SIDE
from pipeline.networks.restorer import Pooling
from pipeline.recipes import Recipe
from pipeline.served.good_jpegs import GOOD_QF
from pipeline.training.job import TrainingResult
from storage.patches.versions import StoreVersion

MAX_LENGTH = 5000
"""Characters that MLflow's databases hold in a description."""
CUT = "\n\n(cut here: the registry holds no longer card)"


def model_card(
    *,
    name: str,
    recipe: Recipe,
    network: nn.Module,
    version: StoreVersion,
    result: TrainingResult,
    scores: Mapping[str, Comparison],
) -> str:
    """Return the description of a model version, Markdown, at most MAX_LENGTH characters.

    Where it would be longer, the published rows are left out of the scores; then its end is cut.

    Args:
        name: the registered model's.
        recipe: what it was trained by.
        network: what is registered.
        version: the patches that it was trained on.
        result: how the training went.
        scores: by dataset.
    """
    kind = type(network)
    module = inspect.getmodule(kind)
    facts = {
        "name": name,
        "recipe": recipe,
        "version": version,
        "result": result,
        "rescaled": recipe.patches.degradation == "rescaled",
        "quality": _quality(recipe),
        "summary": _first_line(inspect.getdoc(kind) or kind.__name__),
        "origin": _first_line((module and module.__doc__) or kind.__name__),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "field": getattr(network, "receptive_field", None),
        "pools": isinstance(network, Pooling),
        "takes_table": needs_table(network),
        "commit": git_commit(),
        "images": ", ".join(
            f"{c.restored.label}: {c.restored.rows[0].images}" for c in scores.values()
        ),
        "good_qf": GOOD_QF,
        "min_side": MIN_SIDE,
        "uri": f"models:/{name}@champion",
        "licence": references.parse(version.dataset).dataset,
    }
    for with_published in (True, False):
        rows = list(_rows(recipe, scores, with_published=with_published))
        card = _template().render(facts, rows=rows, with_published=with_published)
        if len(card) <= MAX_LENGTH:
            return card
    return card[: MAX_LENGTH - len(CUT)] + CUT


def _quality(recipe: Recipe) -> str:
    qfs = recipe.qfs
    if not recipe.blind:
        return f"quality factor {qfs[0]}"
    if len(qfs) <= 6:
        return f"quality factors {', '.join(map(str, qfs))}"
    return f"quality factors {qfs[0]} to {qfs[-1]} ({len(qfs)} of them)"


def _rows(
    recipe: Recipe, scores: Mapping[str, Comparison], *, with_published: bool
) -> Iterator[tuple[str, int, str, list[str]]]:
    """Yield set, quality factor, whose row it is, and the metrics, empty where there is none."""
    for comparison in scores.values():
        for qf in recipe.evaluation_qfs:
            row = comparison.restored.row(qf)
            lines = [("JPEG", comparison.jpeg.row(qf).metrics), ("**this**", row.metrics)]
            if with_published:
                lines += published.printed_rows(recipe.architecture, row)
            for who, values in lines:
                cells = [
                    f"{values[metric]:.{known.digits}f}" if metric in values else ""
                    for metric, known in METRICS.items()
                ]
                yield row.label, qf, who, cells


def _first_line(text: str) -> str:
    return text.partition("\n")[0]


@cache
def _template() -> Template:
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(Path(__file__).with_name("model_card.md").read_text("utf-8"))

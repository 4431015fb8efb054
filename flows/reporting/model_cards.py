"""Model cards: what a registered version is, from what, how good, for what, and how to load it."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass

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
RESCALED_NOTE = (
    "Scored on images that were reduced before their JPEG (degradation `rescaled`): not comparable "
    "with results of the papers' standard protocol."
)
CUT = "\n\n(cut here: the registry holds no longer card)"
CELLS = ("psnr", "ssim", "ssim_gaussian", "psnr_b")


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """Everything that a card tells of one version."""

    name: str
    """The registered model's."""
    recipe: Recipe
    network: nn.Module
    version: StoreVersion
    """The patches that it was trained on."""
    result: TrainingResult
    scores: Mapping[str, Comparison]
    """By dataset."""


def model_card(facts: CardFacts) -> str:
    """Return the description of a model version, Markdown, at most MAX_LENGTH characters.

    Where it would be longer, the published rows are left out of the scores; then its end is cut.
    """
    card = _card(facts, with_published=True)
    if len(card) > MAX_LENGTH:
        card = _card(facts, with_published=False)
    return card if len(card) <= MAX_LENGTH else card[: MAX_LENGTH - len(CUT)] + CUT


def _card(facts: CardFacts, *, with_published: bool) -> str:
    sections = {
        "What it is": _what(facts),
        "Trained on": _training(facts),
        "Scores": _scores(facts, with_published=with_published),
        "Limits": _limits(facts),
        "How to load": _loading(facts),
        "Licence": _licence(facts.version.dataset),
    }
    return "\n\n".join(
        [f"# {facts.name}", _purpose(facts.recipe)]
        + [f"## {title}\n\n{text}" for title, text in sections.items()]
    )


def _purpose(recipe: Recipe) -> str:
    rescaled = recipe.patches.degradation == "rescaled"
    inputs = "rescaled and recompressed photos" if rescaled else "JPEGs"
    return f"**{recipe.architecture}** removes artifacts of {inputs} of {_quality(recipe)}."


def _quality(recipe: Recipe) -> str:
    qfs = recipe.qfs
    if not recipe.blind:
        return f"quality factor {qfs[0]}"
    if len(qfs) <= 6:
        return f"quality factors {', '.join(map(str, qfs))}"
    return f"quality factors {qfs[0]} to {qfs[-1]} ({len(qfs)} of them)"


def _what(facts: CardFacts) -> str:
    kind, network = type(facts.network), facts.network
    parameters = sum(parameter.numel() for parameter in network.parameters())
    module = inspect.getmodule(kind)
    field = getattr(network, "receptive_field", None)
    seen = "" if field is None else f", receptive field {field}x{field} pixels"
    if isinstance(network, Pooling):
        seen += " and the mean of some features over the whole image"
    return _list(
        (inspect.getdoc(kind) or kind.__name__).partition("\n")[0],
        f"{parameters:,} parameters{seen}.",
        f"From: {((module and module.__doc__) or kind.__name__).partition(chr(10))[0]}",
        f"Recipe `{facts.recipe.name}`: {facts.recipe.source}",
        f"Code: commit `{git_commit()}`.",
    )


def _training(facts: CardFacts) -> str:
    version, spec, result = facts.version, facts.version.spec, facts.result
    return _list(
        f"Dataset `{version.dataset}`, fingerprint `{version.dataset_fingerprint}`.",
        f"Patch store `{version.name}`: {version.rows:,} patches of {spec.side}x{spec.side} at "
        f"stride {spec.stride}, degradation `{spec.degradation}`.",
        f"{_quality(facts.recipe).capitalize()}; luma rule `{spec.luma}`.",
        f"{result.steps:,} steps in {result.seconds:,.0f} s.",
        *(
            f"{part.steps:,} of them in {part.precision} on {part.processor}."
            for part in result.parts
        ),
    )


def _scores(facts: CardFacts, *, with_published: bool) -> str:
    recipe = facts.recipe
    rescaled = recipe.patches.degradation == "rescaled"
    heading = "| set | QF | | PSNR dB | SSIM | SSIM gaussian | PSNR-B dB |"
    rows = [
        _row(row.label, qf, who, values)
        for comparison in facts.scores.values()
        for qf in recipe.evaluation_qfs
        for row in [comparison.restored.row(qf)]
        for who, values in [
            ("JPEG", comparison.jpeg.row(qf).metrics),
            ("**this**", row.metrics),
            *(published.printed_rows(recipe.architecture, row) if with_published else []),
        ]
    ]
    images = [f"{c.restored.label}: {c.restored.rows[0].images}" for c in facts.scores.values()]
    notes = [f"Luma, means over the images ({', '.join(images)})."]
    notes += [RESCALED_NOTE] if rescaled else []
    notes += [] if with_published else ["Papers' rows are in `qfactory evaluate`."]
    return "\n".join([" ".join(notes), "", heading, "|---" * 7 + "|", *rows])


def _row(label: str, qf: int, who: str, values: Mapping[str, float]) -> str:
    cells = [f"{values[name]:.{METRICS[name].digits}f}" if name in values else "" for name in CELLS]
    return f"| {label} | {qf} | {who} | {' | '.join(cells)} |"


def _limits(facts: CardFacts) -> str:
    recipe = facts.recipe
    others = (
        "At other quality factors it is not tried."
        if recipe.blind
        else "At other quality factors it gains less and may do harm (CAS-CNN, Fig. 4): take the "
        "network of the nearest one, or a blind one."
    )
    memory = "" if not isinstance(facts.network, Pooling) else " It sees a whole image at once."
    table = []
    if needs_table(facts.network):
        default = "arrays must bring it" if recipe.blind else f"QF {recipe.qfs[0]}'s is the default"
        table = [f"It takes the JPEG's quantisation table: photographs have theirs, {default}."]
    return _list(
        f"For JPEGs of {_quality(recipe)}. {others}",
        f"A photograph of QF {GOOD_QF + 1} and above is good already and is left as it is.",
        "Luma only: chroma stays as the JPEG has it.",
        "Trained and scored on studio-range luma (MATLAB `rgb2ycbcr`, 16 to 235); a photograph's "
        "luma is full-range and is given to it as it is.",
        f"Any height and width; arrays from {MIN_SIDE}x{MIN_SIDE}.{memory}",
        *table,
    )


def _loading(facts: CardFacts) -> str:
    uri = f"models:/{facts.name}@champion"
    table = ", table" if needs_table(facts.network) else ""
    about = "; table: (N, 8, 8) float32" if table else ""
    return "\n".join(
        [
            "No project code and no pickle; the packages are in the model's `requirements.txt`.",
            "",
            "```python",
            f'png = mlflow.pyfunc.load_model("{uri}").predict(jpeg)  # bytes to bytes',
            f'network = mlflow.pytorch.load_model("{uri}")',
            f"restored = network(x{table})  # x: (N, 1, H, W) float32 in [0, 1]{about}",
            "```",
            "",
            f"`mlflow models serve -m {uri}` answers over HTTP. The file `onnx/model.onnx` of the "
            "model's folder is the same network (tag `onnx`: where, or why not). Tags `sha256:` "
            "hold each file's digest.",
        ]
    )


def _licence(dataset: str) -> str:
    known = references.parse(dataset).dataset
    if known is None:
        return f"Trained on `{dataset}`: the licence of these images is their owner's to tell."
    return f"Trained on `{known.name}`: {known.licence}."


def _list(*items: str) -> str:
    return "\n".join(f"- {item}" for item in items)

"""The types of flow and command parameters: a bad value is refused before anything runs.

Prefect's server refuses what the JSON schema does not allow, when a run is asked for; the message
is the schema's `enum` or `pattern`. What a schema cannot tell is checked when the run begins.
"""

from collections.abc import Callable, Sequence
from typing import Annotated

from cyclopts import Parameter
from pydantic import AfterValidator, Field, JsonValue

from flows.planning.recipe_graph import matching
from pipeline.datasets import references
from pipeline.networks.devices import PrecisionChoice as PrecisionChoice
from pipeline.recipes import RECIPES, get_recipe
from pipeline.recipes.comparisons import COMPARISONS, get_comparison
from pipeline.training.job import parse_seconds
from storage.patches.schema import Degradation as Degradation


def _checked(check: Callable[[str], object]) -> AfterValidator:
    def validate(value: str) -> str:
        check(value)
        return value

    return AfterValidator(validate)


def _no_doubles(values: list[int]) -> list[int]:
    doubles = sorted({value for value in values if values.count(value) > 1})
    if doubles:
        raise ValueError(f"given twice: {', '.join(map(str, doubles))}")
    return values


def _one_of(names: Sequence[str], *, unless: str, then: str = "") -> dict[str, JsonValue]:
    """Return a schema: one of the names, or a text that `unless` matches, which must match `then`.

    `if` and `else` rather than one pattern: a refused value is then told with the names.
    """
    return {
        "if": {"pattern": unless},
        "then": {"pattern": then},
        "else": {"enum": [*names]},
        "examples": [*names],
    }


def _references() -> dict[str, JsonValue]:
    splits = {name: dataset.splits for name, dataset in references.DATASETS.items()}
    single = [*splits]
    single += [f"{name}:{split}" for name, known in splits.items() for split in known]
    several = (
        rf"{name}:({'|'.join(known)})(\+({'|'.join(known)}))+"
        for name, known in splits.items()
        if len(known) > 1
    )
    return _one_of(single, unless=r"^folder:|\+", then=f"^(folder:.+|{'|'.join(several)})$")


Reference = Annotated[
    str,
    _checked(references.parse),
    Field(
        description="A dataset: NAME, NAME:SPLIT+SPLIT or folder:PATH",
        json_schema_extra=_references(),
    ),
]
References = Annotated[list[Reference], Field(min_length=1)]
RecipeName = Annotated[
    str, _checked(get_recipe), Field(json_schema_extra={"enum": [*sorted(RECIPES)]})
]
ComparisonName = Annotated[
    str, _checked(get_comparison), Field(json_schema_extra={"enum": [*sorted(COMPARISONS)]})
]
RecipePattern = Annotated[
    str,
    _checked(matching),
    Field(
        description="A recipe's name, or a glob such as 'arcnn-*' in quotes",
        json_schema_extra=_one_of(sorted(RECIPES), unless=r"[*?\[]"),
    ),
]
RecipePatterns = Annotated[list[RecipePattern], Field(min_length=1)]
StopAfter = Annotated[
    str,
    _checked(parse_seconds),
    Field(
        description="Stop with a checkpoint after so long: 90s, 9m, 1.5h, 7d",
        json_schema_extra={"pattern": r"^\s*[0-9]+(\.[0-9]+)?[smhd]?\s*$"},
    ),
    Parameter(name="--for"),
]
Side = Annotated[
    int,
    Field(ge=32, le=224, multiple_of=8, description="Patch side in pixels"),
]
Stride = Annotated[int, Field(ge=1, description="Pixels between patch corners")]
QualityFactor = Annotated[int, Field(ge=1, le=100, description="JPEG quality factor")]
QualityFactors = Annotated[
    list[QualityFactor],
    AfterValidator(_no_doubles),
    Field(min_length=1, json_schema_extra={"uniqueItems": True}),
]
Steps = Annotated[int, Field(ge=1, description="Optimiser steps in all; fewer for a trial")]
ShardMib = Annotated[int, Field(ge=1, le=1024, description="MiB of pixels a shard")]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Name = Annotated[str, Field(min_length=1, pattern=r"^[\w.-][\w. -]*$", description="A name")]
Workers = Annotated[int, Field(ge=1, description="Training workers")]
Accelerator = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][\w.-]*$",
        description="What trainings compute on: auto, cpu, gpu, or a type of GPU such as A100",
    ),
]
GpusPerWorker = Annotated[
    float, Field(gt=0, description="GPUs of a training worker; a share of one packs small networks")
]
Threads = Annotated[int, Field(ge=1, description="CPU threads of a training worker")]

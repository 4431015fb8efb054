"""The types of flow and command parameters: a bad value is refused before anything runs."""

from collections.abc import Callable
from typing import Annotated

from cyclopts import Parameter
from pydantic import AfterValidator, Field

from flows.recipe_graph import matching
from pipeline import datasets
from pipeline.precision import PrecisionChoice
from pipeline.recipes import RECIPES, get_recipe
from pipeline.recipes.comparisons import COMPARISONS, get_comparison
from pipeline.training import parse_seconds
from storage.schema import Degradation

__all__ = [
    "ComparisonName",
    "Degradation",
    "Name",
    "PrecisionChoice",
    "QualityFactor",
    "QualityFactors",
    "RecipeName",
    "RecipePattern",
    "RecipePatterns",
    "Reference",
    "References",
    "Share",
    "Side",
    "Steps",
    "StopAfter",
    "Stride",
    "Threads",
    "Workers",
]


def _checked(check: Callable[[str], object]) -> AfterValidator:
    def validate(value: str) -> str:
        check(value)
        return value

    return AfterValidator(validate)


Reference = Annotated[
    str,
    _checked(datasets.parse),
    Field(description="A dataset: NAME, NAME:SPLIT+SPLIT or folder:PATH"),
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
        json_schema_extra={
            "pattern": f"^({'|'.join(sorted(RECIPES))}|.*[*?\\[].*)$",
            "examples": [*sorted(RECIPES)],
        },
    ),
]
"""Prefect's server checks the JSON schema: it refuses an unknown name with the pattern, which lists
the known ones. What a glob matches is checked here."""
RecipePatterns = Annotated[list[RecipePattern], Field(min_length=1)]
StopAfter = Annotated[
    str,
    _checked(parse_seconds),
    Field(description="Stop with a checkpoint after so long: 90s, 9m, 1.5h"),
    Parameter(name="--for"),
]
Side = Annotated[
    int,
    Field(ge=32, le=224, multiple_of=8, description="Patch side in pixels"),
]
Stride = Annotated[int, Field(ge=1, description="Pixels between patch corners")]
QualityFactor = Annotated[int, Field(ge=1, le=100, description="JPEG quality factor")]
QualityFactors = Annotated[list[QualityFactor], Field(min_length=1)]
Steps = Annotated[int, Field(ge=1, description="Optimiser steps in all; fewer for a trial")]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Name = Annotated[str, Field(min_length=1, pattern=r"^[\w.-][\w. -]*$", description="A name")]
Workers = Annotated[int, Field(ge=1, description="Training workers, a GPU each if there are some")]
Threads = Annotated[int, Field(ge=1, description="CPU threads of a training worker")]

"""The types of flow and command parameters: a bad value is refused before anything runs."""

from collections.abc import Callable
from typing import Annotated

from pydantic import AfterValidator, Field

from pipeline import datasets
from pipeline.recipes import RECIPES, get_recipe
from storage.schema import Degradation

__all__ = [
    "Degradation",
    "Name",
    "QualityFactor",
    "QualityFactors",
    "RecipeName",
    "RecipeNames",
    "Reference",
    "References",
    "Share",
    "Side",
    "Steps",
    "Stride",
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
RecipeNames = Annotated[list[RecipeName], Field(min_length=1)]
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

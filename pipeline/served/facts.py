"""What a registered program no longer says of itself: beside it as JSON, and as tags."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ProgramFacts:
    """What is known of a program; it is written beside the program as JSON."""

    receptive_field: int | None
    """See Tiling; None for a network that must see the whole image."""
    multiple: int
    """See Tiling."""
    needs_table: bool
    """Whether its second input is the JPEG's quantisation table."""
    default_table: list[list[int]] | None
    """8 rows of 8, for arrays that come without one; None where there is no such table."""
    bfloat16_loss_db: float | None = None
    """PSNR that it loses by computing in bfloat16; None where nobody measured it."""

    @property
    def tags(self) -> dict[str, str]:
        """The facts as tags of a registered version, but for the table; unknown ones are no tag."""
        tags = {"needs_table": str(self.needs_table)}
        if self.receptive_field is not None:
            tags |= {"receptive_field": str(self.receptive_field), "multiple": str(self.multiple)}
        if self.bfloat16_loss_db is not None:
            tags["bfloat16_loss_db"] = f"{self.bfloat16_loss_db:.5f}"
        return tags


def facts_in(tags: Mapping[str, str]) -> ProgramFacts:
    """Read `ProgramFacts.tags` back; versions without `needs_table` have their table built in."""
    field, loss = tags.get("receptive_field"), tags.get("bfloat16_loss_db")
    return ProgramFacts(
        receptive_field=int(field) if field else None,
        multiple=int(tags.get("multiple") or 1),
        needs_table=tags.get("needs_table") == str(True),
        default_table=None,
        bfloat16_loss_db=float(loss) if loss else None,
    )

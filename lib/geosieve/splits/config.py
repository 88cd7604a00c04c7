"""Configuration of `build_splits`: the splits, and the rules that leave images out of each."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from geosieve.geo.s2 import MAX_LEVEL
from geosieve.images.read import ImagesInput
from geosieve.job.publishing import JobConfig
from geosieve.labels.read import LabelsInput
from geosieve.runtime.config import Config

LEFT_OUT = "left_out"
"""Value of the column `split` for images that are in no split."""
NO_SPLIT = "none"
"""Key of the report's counts for images that were drawn for no split."""
PERCEPTUAL_HASH = "perceptual_hash"
"""The column of `groups` in which values that differ by few bits count as equal, too."""
_DEFAULT_BITS = 4

_HALF_EARTH_KM = 20_015  # no two points of the Earth are farther apart

Share = Annotated[float, Field(gt=0, le=1)]
Km = Annotated[float, Field(gt=0, le=_HALF_EARTH_KM)]


def fraction(share: float) -> Fraction:
    """The share exactly as written: 0.1 becomes 1/10, not the nearest binary number."""
    return Fraction(str(share))


class Cap(Config):
    """Limits the share of regions of a partition in a split. Shares refer to the size of the split after the cap."""

    partition: str
    shares: dict[str, Share] = Field(min_length=1, description="largest share of the split, by region name")


class Balance(Config):
    """The same number of images in every region of a partition."""

    partition: str
    regions: list[str] = Field(
        [], description="names of the regions to keep; images of others are left out; all if empty"
    )
    images: int | None = Field(
        None, ge=1, description="number of images per region; by default that of the smallest region"
    )


class Split(Config):
    """A split: which images are drawn for it, and the rules that leave some of them out.

    It gets either all images of its `sources`, or a `share` (above 0, at most 1) of the images whose source no split
    names. Distances are great-circle distances in km. ValueError if both or neither of `sources` and `share` are
    given, if there are both a cap and a balance, or if the name is reserved.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    sources: list[str] = []
    share: Share | None = None
    known_group: bool = Field(
        False,
        description="leave out images that have no value in any column of groups; a perceptual_hash does not count, "
        "because it names nobody",
    )
    apart_km: Km | None = Field(
        None, description="leave out images within this distance of an image of an earlier split"
    )
    spacing_km: Km | None = Field(None, description="of images within this distance of each other, keep only one")
    cap: Cap | None = None
    balance: Balance | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Split:
        if bool(self.sources) == (self.share is not None):
            raise ValueError(f"split {self.name}: give either sources or a share")
        if self.cap is not None and self.balance is not None:
            raise ValueError(f"split {self.name}: a cap and a balance contradict each other")
        if self.name in (LEFT_OUT, NO_SPLIT):
            raise ValueError(f"split {self.name}: this name stands for the images that are in no split")
        return self

    @property
    def partition(self) -> str | None:
        """The partition of the cap or balance; None if the split has neither."""
        rule = self.cap or self.balance
        return rule.partition if rule is not None else None


def rule_partitions(splits: Iterable[Split]) -> list[str]:
    """The partitions of the splits' caps and balances, sorted by name."""
    return sorted({split.partition for split in splits if split.partition is not None})


class Cells(Config):
    """Draw whole S2 cells. The images of a split then form compact areas, so `apart_km` leaves out few neighbours."""

    s2_level: int = Field(ge=0, le=MAX_LEVEL)


class SplitConfig(JobConfig):
    """Configuration of `build_splits`. If two splits conflict, the one listed first keeps its images.

    ValueError if a split or source occurs twice, the shares sum to more than 1, labels are missing for a cap or
    balance, no groups are given although images are drawn by group or a split requires a known group, or bits are given
    although near duplicates are no group.
    """

    name: str = Field(
        pattern=r"^[a-z][a-z0-9_]*$", description="name of the set of splits; the tables' partition column split_set"
    )
    seed: int = Field(ge=0, lt=1 << 31)
    images: ImagesInput
    labels: LabelsInput | None = None
    groups: list[Literal["author", "sequence", "content_sha256", "perceptual_hash"]] = Field(
        ["author", "sequence"],
        description="images that share a value in one of these columns, directly or through others, stay together; "
        "of perceptual_hash, also values that differ by few bits (near duplicates)",
    )
    near_duplicate_bits: int | None = Field(
        None,
        ge=0,
        le=8,
        description="most bits of 64 in which the perceptual hashes of near duplicates differ; only with "
        f"perceptual_hash in groups, and then by default {_DEFAULT_BITS}",
    )
    draw: Literal["group", "image"] | Cells = Field(
        "group", description="the unit of the draw: whole groups, single images, or cells"
    )
    splits: list[Split] = Field(
        min_length=1, description="in order of precedence: list first the splits that must not leak"
    )

    @model_validator(mode="before")
    @classmethod
    def _with_default_bits(cls, given: Any) -> Any:
        """Fill in the default where it has a meaning, so that the effective configuration is complete."""
        if not isinstance(given, dict) or given.get("near_duplicate_bits") is not None:
            return given
        groups = given.get("groups")
        wanted = isinstance(groups, list) and PERCEPTUAL_HASH in groups
        return {**given, "near_duplicate_bits": _DEFAULT_BITS} if wanted else given

    @model_validator(mode="after")
    def _consistent(self) -> SplitConfig:
        names = [split.name for split in self.splits]
        if len(set(names)) < len(names):
            raise ValueError(f"splits: a name stands twice in {names}")
        sources = [source for split in self.splits for source in split.sources]
        if len(set(sources)) < len(sources):
            raise ValueError(f"splits: a source stands twice in {sources}")
        total = sum(fraction(split.share) for split in self.splits if split.share is not None)
        if total > 1:
            raise ValueError(f"splits: the shares sum to {float(total)}, more than 1")
        if self.partitions and self.labels is None:
            raise ValueError("labels: needed for the cap or balance of a split")
        if not self.groups and (self.draw == "group" or any(split.known_group for split in self.splits)):
            raise ValueError("groups: name at least one, or draw images or cells and ask for no known group")
        if set(self.groups) == {PERCEPTUAL_HASH} and any(split.known_group for split in self.splits):
            raise ValueError(f"known_group: name a column of groups beside {PERCEPTUAL_HASH}, which names nobody")
        if self.near_duplicate_bits is not None and PERCEPTUAL_HASH not in self.groups:
            raise ValueError(
                f"near_duplicate_bits: needs {PERCEPTUAL_HASH} in groups, otherwise no hashes are compared"
            )
        return self

    @property
    def partitions(self) -> list[str]:
        """The partitions that caps and balances use, sorted by name."""
        return rule_partitions(self.splits)

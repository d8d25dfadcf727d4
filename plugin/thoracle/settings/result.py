"""Settings of the model, and of what is made of its answer."""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic import model_validator as validator

from thoracle.settings.section import Illustrated, Pictured, Section


class Classify(Section):
    """The model."""

    bundle: Path | None = Field(
        None,
        description="Folder of a MONAI bundle. A bundle is code: only ever name a folder that you trust. Unset: the shipped one.",
    )
    digest: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{64}$",
        description="Digest the bundle must have (`thoracle check` prints it). Required with bundle.",
    )
    threads: int = Field(
        1,
        ge=0,
        le=256,
        description="Processor threads of the networks; 0 takes one per core. On two cores, more than 1 read no image sooner, and took several times the processor time beside other work (docs/benchmarks.md).",
    )
    runtime: Literal["auto", "torch", "openvino"] = Field(
        "auto",
        description="What runs the networks: torch, the reference; openvino, faster; auto uses openvino where it is installed (`pip install thoracle[openvino]`).",
    )
    cache_folder: Path | None = Field(
        None,
        description="Where networks converted for OpenVINO are kept, so that later starts are fast: about 30 MB. Nobody else may write there. Unset: CacheDirectory of the systemd unit, else `$XDG_CACHE_HOME/thoracle` or `~/.cache/thoracle`.",
    )

    @validator(mode="after")
    def _bundle_needs_digest(self) -> "Classify":
        if self.bundle is not None and self.digest is None:
            raise ValueError("found a bundle without a digest, required: `digest` beside `bundle`")
        return self


class Report(Section):
    """What is made of a result. The structured report (sr) always is."""

    institution_name: str = Field(
        "",
        max_length=64,
        description="Institution Name (0008,0080) of our objects; empty leaves it out.",
    )
    series_number: int = Field(
        9001,
        ge=1,
        le=99990,
        description="Series Number of the report, high so that it sorts last; sc, pr and ko have the next ones.",
    )
    sc: Pictured = Field(
        ("positive", "indeterminate", "negative"),
        description="Outcomes (positive, indeterminate, negative, rejected) of images that get a Secondary Capture: the result in words below the radiograph, and a heat map where it is positive.",
    )
    pr: Illustrated = Field(
        ("positive",),
        description="Outcomes (positive, indeterminate, negative) of images that get a presentation state, which outlines the salient region.",
    )
    ko: Illustrated = Field(
        ("positive",), description="Outcomes of images that a Key Object Selection names."
    )
    memory_megabytes: int = Field(
        2048, ge=512, description="Address space of the child that builds results, megabytes."
    )
    timeout_seconds: float = Field(
        120,
        gt=0,
        le=3600,
        description="Time for the result of one study, seconds. A study that takes longer has failed.",
    )

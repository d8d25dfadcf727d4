"""The content tree of a report: TID 1500, with TID 1501 groups for each image that was analysed.

Every group has coordinates, below its measurement (TID 300, TID 320). Viewers that are made with
dcmjs or Cornerstone3D, such as OHIF, show a black picture in place of a report in which one group
has none. What is not analysed is therefore told in the Qualitative Evaluations; and where nothing
was analysed, there is no measurement report but a narrative one (narrative.py).

The coordinates of a region are no "Image Region" of a TID 1410 group: where there is exactly one
of these in a report, PixelMed takes all groups for TID 1410, and finds errors in the others.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from highdicom import sr
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes as standard
from pydicom.sr.coding import Code
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    SecondaryCaptureImageStorage,
)

from thoracle.errors import ReportError
from thoracle.records import BundleIdentity, Finding, Outcome, Reading, Region
from thoracle.report import codes, sentences
from thoracle.report.header import Instance
from thoracle.report.identity import NAME, derived_uid, device_uid
from thoracle.report.regions import frame
from thoracle.wording import MAPS

MODALITIES = {
    ComputedRadiographyImageStorage: standard.cid29.ComputedRadiography,
    DigitalXRayImageStorageForPresentation: standard.cid29.DigitalRadiography,
    DigitalXRayImageStorageForProcessing: standard.cid29.DigitalRadiography,
    SecondaryCaptureImageStorage: standard.cid32.Other,
}


@dataclass(frozen=True, slots=True)
class Illustration:
    """What shows where the result of an image comes from."""

    regions: tuple[Region, ...]
    """Outlines on the image; may be empty."""
    key_image: Instance | None = None
    """The Secondary Capture of its result."""
    presentation: Instance | None = None
    """The presentation state that outlines the regions on the image."""

    def objects(self) -> list[Instance]:
        """Return the objects of ours that it consists of."""
        return [made for made in (self.key_image, self.presentation) if made is not None]


def tree(
    sources: Sequence[Dataset],
    readings: Sequence[Reading],
    bundle: BundleIdentity,
    conclusion: str,
    illustrations: Mapping[str, Illustration],
    key_objects: Sequence[Instance],
) -> Dataset:
    """Return the root content item for sources and their readings in the same order.

    ``illustrations`` are by SOP Instance UID of the image. At least one image was analysed.
    """
    groups: list[sr.MeasurementsAndQualitativeEvaluations] = []
    for number, (source, reading) in enumerate(zip(sources, readings, strict=True), 1):
        if reading.probability is None:
            continue
        groups.append(_measurement_group(number, source, reading, bundle))
        if reading.sop_instance_uid in illustrations:
            regions = illustrations[reading.sop_instance_uid].regions
            groups += _region_groups(number, reading, regions, bundle)
    report = sr.MeasurementReport(
        observation_context=observation_context(bundle),
        procedure_reported=codes.IMAGING_PROCEDURE,
        imaging_measurements=groups,
        title=codes.IMAGING_MEASUREMENT_REPORT,
        language_of_content_item_and_descendants=language(),
    )
    root: Dataset = report[0]
    _narrow_procedure(root)
    # highdicom's own library demands attributes that a CR need not have, and it has no class for
    # the evaluations.
    root.ContentSequence.insert(-1, _image_library(sources))
    root.ContentSequence.append(_qualitative_evaluations(sources, readings, bundle, conclusion))
    if leaves := [*_key_images(sources, illustrations), *map(_key_object, key_objects)]:
        root.ContentSequence.append(container(codes.KEY_IMAGES, leaves))
    return separate(root)


def _narrow_procedure(root: Dataset) -> None:
    """Say that the procedure was one of the chest.

    The context group of TID 1500 row 4 (CID 100) has no radiography of it; PixelMed takes a code
    that is not there for an error.
    """
    (procedure,) = (item for item in root.ContentSequence if item.name == codes.PROCEDURE_REPORTED)
    region = sr.CodeContentItem(codes.TARGET_REGION, codes.CHEST, "HAS CONCEPT MOD")
    procedure.ContentSequence = sr.ContentSequence([region])


def separate(root: Dataset) -> Dataset:
    """Return a content tree in which each item stands by itself (PS3.3 C.18.8).

    highdicom says that items follow each other like the words of a sentence.
    """
    for item in (root, *root.ContentSequence):
        if item.ValueType == "CONTAINER":
            item.ContinuityOfContent = "SEPARATE"
            if item is not root:
                separate(item)
    return root


def algorithm_parameters(bundle: BundleIdentity) -> list[str]:
    """Return the Algorithm Parameters (TID 4019): what turns a picture into an outcome.

    No standard concept names a classifier's threshold or calibration.
    """
    decision = bundle.decision
    return [
        f"bundle_sha256={bundle.digest}",
        f"decision_threshold={decision.threshold}",
        f"indeterminate_from={decision.lower}",
        f"indeterminate_below={decision.upper}",
        f"calibration={bundle.calibration}",
    ]


def language() -> sr.LanguageOfContentItemAndDescendants:
    """Return in which language the text is (TID 1204)."""
    return sr.LanguageOfContentItemAndDescendants(sr.CodedConcept.from_code(codes.ENGLISH))


def observation_context(bundle: BundleIdentity) -> sr.ObservationContext:
    """Return who observed (TID 1001): a device, not a person."""
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=device_uid(bundle.digest),
        name=NAME,
        manufacturer_name=NAME,
        model_name=bundle.name,
        serial_number=bundle.digest[:16],
    )
    return sr.ObservationContext(
        observer_device_context=sr.ObserverContext(
            observer_type=codes.DEVICE, observer_identifying_attributes=device
        )
    )


def _measurement_group(
    number: int, source: Dataset, reading: Reading, bundle: BundleIdentity
) -> sr.MeasurementsAndQualitativeEvaluations:
    """TID 1501 for one image: the result, and where the model looked."""
    image = (reading.sop_class_uid, reading.sop_instance_uid)
    found = codes.concept(bundle.finding.code)
    assert reading.probability is not None
    return _group(
        image,
        derived_uid("tracking", bundle.digest, reading.sop_instance_uid),
        f"{bundle.finding.name} classification, image {number}",
        _algorithm(bundle, algorithm_parameters(bundle)),
        sr.Measurement(
            name=codes.PROBABILITY,
            value=sentences.percentage(reading.probability),
            unit=codes.PERCENT,
            referenced_coordinates=[_coordinates(_looked_at(source, reading), image)],
        ),
        sentences.label_in_viewer(reading, bundle.finding),
        # A negative with the item "Finding: (its name)" is flattened to just that by some readers.
        finding_type=found if reading.outcome is Outcome.POSITIVE else None,
        qualitative_evaluations=evaluations(reading, bundle.finding),
    )


def _looked_at(source: Dataset, reading: Reading) -> tuple[tuple[float, float], ...]:
    """Return the outline of what the model looked at; what is recorded of an image has no size."""
    box = reading.lung_box
    if source.get("Rows") and source.get("Columns"):
        return frame(box, int(source.Rows), int(source.Columns))
    if box is None:
        raise ReportError("Rows, Columns: found none in a source, required: both, or a lung box")
    return frame(box, math.ceil(box.bottom), math.ceil(box.right))


def _region_groups(
    number: int, reading: Reading, regions: Sequence[Region], bundle: BundleIdentity
) -> list[sr.MeasurementsAndQualitativeEvaluations]:
    """TID 1501 for each salient region: what the network used, and so no finding of disease."""
    image = (reading.sop_class_uid, reading.sop_instance_uid)
    return [
        _group(
            image,
            derived_uid("region", bundle.digest, image[1], str(place)),
            f"Saliency region {place}, image {number}",
            _algorithm(bundle, None),
            sr.Measurement(
                name=codes.SALIENCY[bundle.finding.saliency],
                value=round(region.saliency, 4),
                unit=codes.NO_UNITS,
                derivation=codes.MEAN,
                referenced_coordinates=[_coordinates(region.outline, image)],
            ),
            MAPS[bundle.finding.saliency].region,
            finding_type=codes.SELECTED_REGION,
        )
        for place, region in enumerate(regions, 1)
    ]


def _group(
    image: tuple[str, str],
    tracking_uid: str,
    tracking_identifier: str,
    algorithm: sr.AlgorithmIdentification,
    measurement: sr.Measurement,
    comment: str,
    **content: Any,
) -> sr.MeasurementsAndQualitativeEvaluations:
    """TID 1501 with one measurement, and a comment that viewers write beside its coordinates."""
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=tracking_uid, identifier=tracking_identifier),
        algorithm_id=algorithm,
        finding_sites=[sr.FindingSite(anatomic_location=codes.LUNG)],
        measurements=[measurement],
        source_images=[sr.SourceImageForMeasurementGroup(*image)],
        **content,
    )
    # A qualitative evaluation as text, for which highdicom has no argument.
    group[0].ContentSequence.append(sr.TextContentItem(codes.COMMENT, comment, "CONTAINS"))
    return group


def _coordinates(
    outline: tuple[tuple[float, float], ...], image: tuple[str, str]
) -> sr.CoordinatesForMeasurement:
    """TID 320: a closed line on an image."""
    return sr.CoordinatesForMeasurement(
        graphic_type=sr.GraphicTypeValues.POLYLINE,
        graphic_data=np.array(outline),
        source_image=sr.SourceImageForRegion(*image),
    )


def _algorithm(
    bundle: BundleIdentity, parameters: Sequence[str] | None
) -> sr.AlgorithmIdentification:
    """TID 4019."""
    return sr.AlgorithmIdentification(
        name=bundle.name,
        version=bundle.version,
        family=codes.ARTIFICIAL_INTELLIGENCE,
        parameters=parameters,
    )


def evaluations(reading: Reading, finding: Finding) -> list[sr.QualitativeEvaluation]:
    """Return what is said of an image in codes: the outcome, and why there is none."""
    said = finding.outcomes.of(reading.outcome).code
    pairs = [(codes.concept(finding.code), codes.concept(said))]
    if reading.reason in codes.QUALITY_REASONS:
        pairs.append((codes.QUALITY_ASSESSMENT, codes.UNUSABLE))
    if reading.reason is not None:
        pairs.append((codes.NO_RESULT_REASON, codes.concept(reading.reason.code)))
    return [sr.QualitativeEvaluation(name=name, value=value) for name, value in pairs]


def _image_library(sources: Sequence[Dataset]) -> sr.ContainerContentItem:
    """TID 1600, where viewers look up the images that a report is about."""
    images = []
    for source in sources:
        image = sr.ImageContentItem(
            codes.SOURCE, source.SOPClassUID, source.SOPInstanceUID, relationship_type="CONTAINS"
        )
        if source.SOPClassUID in MODALITIES:
            image.ContentSequence = sr.ContentSequence(
                [
                    sr.CodeContentItem(
                        codes.MODALITY, MODALITIES[source.SOPClassUID], "HAS ACQ CONTEXT"
                    )
                ]
            )
        images.append(image)
    group = container(codes.IMAGE_LIBRARY_GROUP, images)
    return container(codes.IMAGE_LIBRARY, [group])


def _qualitative_evaluations(
    sources: Sequence[Dataset],
    readings: Sequence[Reading],
    bundle: BundleIdentity,
    conclusion: str,
) -> sr.ContainerContentItem:
    """TID 1500 row 12: the conclusion, then what is to be said of single images."""
    items: list[Dataset] = [sr.TextContentItem(codes.CONCLUSION, conclusion, "CONTAINS")]
    for number, (source, reading) in enumerate(zip(sources, readings, strict=True), 1):
        items += remarks(number, source, reading, bundle, several=len(readings) > 1)
        if reading.probability is None:
            items += unanalysed(source, reading, bundle.finding)
    return container(codes.QUALITATIVE_EVALUATIONS, items)


def remarks(
    number: int, source: Dataset, reading: Reading, bundle: BundleIdentity, *, several: bool
) -> list[sr.TextContentItem]:
    """Return what is to be said of one image of a study, and its result where it has several."""
    label = sentences.label(number, source.get("InstanceNumber"), source.get("ViewPosition"))
    said = [sentences.finding(reading, bundle)] if several else []
    said += [reading.detail] if reading.detail else []
    said += [f"Limitation: {limitation}" for limitation in reading.limitations]
    return [sr.TextContentItem(codes.COMMENT, f"{label}: {one}", "CONTAINS") for one in said]


def unanalysed(source: Dataset, reading: Reading, finding: Finding) -> list[Dataset]:
    """Return why an image was not analysed, in codes that refer to it."""
    items = [evaluation[0] for evaluation in evaluations(reading, finding)]
    for item in items:
        image = sr.ImageContentItem(
            codes.SOURCE,
            source.SOPClassUID,
            source.SOPInstanceUID,
            relationship_type="INFERRED FROM",
        )
        item.ContentSequence = sr.ContentSequence([image])
    return items


def _key_images(
    sources: Sequence[Dataset], illustrations: Mapping[str, Illustration]
) -> list[sr.ImageContentItem]:
    """Return what a viewer is to show: heat maps, and images under their presentation states.

    TID 1500 is extensible. The Image Library is no place for them: it has what was read.
    """
    images = []
    for source in sources:
        found = illustrations.get(source.SOPInstanceUID, Illustration(()))
        if found.key_image:
            images.append(_illustration(*found.key_image[:2]))
        if found.presentation:
            shown = _illustration(source.SOPClassUID, source.SOPInstanceUID)
            # PS3.3 Table C.18.4-1; highdicom has no argument for it.
            state = Dataset()
            state.ReferencedSOPClassUID = found.presentation.sop_class_uid
            state.ReferencedSOPInstanceUID = found.presentation.sop_instance_uid
            shown.ReferencedSOPSequence[0].ReferencedSOPSequence = [state]
            images.append(shown)
    return images


def _illustration(sop_class_uid: str, sop_instance_uid: str) -> sr.ImageContentItem:
    return sr.ImageContentItem(
        codes.ILLUSTRATION_OF_ROI, sop_class_uid, sop_instance_uid, relationship_type="CONTAINS"
    )


def _key_object(instance: Instance) -> sr.CompositeContentItem:
    """Return a leaf of the tree of results (IHE AIR): our key object selection."""
    return sr.CompositeContentItem(codes.OF_INTEREST, *instance[:2], relationship_type="CONTAINS")


def container(name: Code, items: Sequence[Any]) -> sr.ContainerContentItem:
    """Return a container with these items."""
    made = sr.ContainerContentItem(name, relationship_type="CONTAINS")
    made.ContentSequence = sr.ContentSequence(items)
    return made

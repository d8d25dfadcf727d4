"""The content tree of a report: TID 1500, with one TID 1501 group for each image.

An image that is illustrated has one TID 1410 group for each salient region, too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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

from thoracle.records import BundleIdentity, Outcome, Reading, Region
from thoracle.report import codes, sentences
from thoracle.report.header import Instance
from thoracle.report.identity import NAME, derived_uid, device_uid

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
    """The Secondary Capture with the heat map."""
    presentation: Instance | None = None
    """The presentation state that outlines the regions on the image."""

    def objects(self) -> list[Instance]:
        """Return the objects of ours that it consists of."""
        return [made for made in (self.key_image, self.presentation) if made is not None]


_Group = (
    sr.MeasurementsAndQualitativeEvaluations | sr.PlanarROIMeasurementsAndQualitativeEvaluations
)


def tree(
    sources: Sequence[Dataset],
    readings: Sequence[Reading],
    bundle: BundleIdentity,
    conclusion: str,
    illustrations: Mapping[str, Illustration],
) -> Dataset:
    """Return the root content item for sources and their readings in the same order.

    ``illustrations`` are by SOP Instance UID of the image.
    """
    groups: list[_Group] = []
    for number, reading in enumerate(readings, 1):
        groups.append(_measurement_group(number, reading, bundle))
        if reading.sop_instance_uid in illustrations:
            regions = illustrations[reading.sop_instance_uid].regions
            groups += _region_groups(number, reading, regions, bundle)
    report = sr.MeasurementReport(
        observation_context=observation_context(bundle),
        procedure_reported=codes.PLAIN_XRAY_OF_CHEST,
        imaging_measurements=groups,
        title=codes.IMAGING_MEASUREMENT_REPORT,
        language_of_content_item_and_descendants=language(),
    )
    root: Dataset = report[0]
    # highdicom's own library demands attributes that a CR need not have, and it has no class for
    # the evaluations.
    root.ContentSequence.insert(-1, _image_library(sources))
    root.ContentSequence.append(_qualitative_evaluations(sources, readings, bundle, conclusion))
    if images := _key_images(sources, illustrations):
        root.ContentSequence.append(_container(codes.KEY_IMAGES, images))
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
    number: int, reading: Reading, bundle: BundleIdentity
) -> sr.MeasurementsAndQualitativeEvaluations:
    """TID 1501 for one image."""
    analysed = reading.probability is not None
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=derived_uid("tracking", bundle.digest, reading.sop_instance_uid),
            identifier=f"COVID-19 classification, image {number}",
        ),
        algorithm_id=_algorithm(bundle, algorithm_parameters(bundle)),
        # A negative with the item "Finding: COVID-19" is flattened to just that by some readers.
        finding_type=codes.COVID_19 if reading.outcome is Outcome.POSITIVE else None,
        finding_sites=[sr.FindingSite(anatomic_location=codes.LUNG)] if analysed else None,
        measurements=_measurements(reading),
        qualitative_evaluations=_evaluations(reading),
        source_images=[
            sr.SourceImageForMeasurementGroup(reading.sop_class_uid, reading.sop_instance_uid)
        ],
    )


def _region_groups(
    number: int, reading: Reading, regions: Sequence[Region], bundle: BundleIdentity
) -> list[sr.PlanarROIMeasurementsAndQualitativeEvaluations]:
    """TID 1410 for each salient region: what the network used, and so no finding of disease."""
    image = (reading.sop_class_uid, reading.sop_instance_uid)
    return [
        sr.PlanarROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=sr.TrackingIdentifier(
                uid=derived_uid("region", bundle.digest, image[1], str(place)),
                identifier=f"Saliency region {place}, image {number}",
            ),
            referenced_region=sr.ImageRegion(
                graphic_type=sr.GraphicTypeValues.POLYLINE,
                graphic_data=np.array(region.outline),
                source_image=sr.SourceImageForRegion(*image),
            ),
            finding_type=codes.SELECTED_REGION,
            algorithm_id=_algorithm(bundle, None),
            finding_sites=[sr.FindingSite(anatomic_location=codes.LUNG)],
            measurements=[
                sr.Measurement(
                    name=codes.CLASS_ACTIVATION,
                    value=round(region.saliency, 4),
                    unit=codes.NO_UNITS,
                    derivation=codes.MEAN,
                )
            ],
        )
        for place, region in enumerate(regions, 1)
    ]


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


def _measurements(reading: Reading) -> list[sr.Measurement] | None:
    if reading.probability is None:
        return None
    value = sentences.percentage(reading.probability)
    return [sr.Measurement(name=codes.PROBABILITY, value=value, unit=codes.PERCENT)]


def _evaluations(reading: Reading) -> list[sr.QualitativeEvaluation]:
    pairs = [(codes.COVID_19, codes.EVALUATIONS[reading.outcome])]
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
    group = _container(codes.IMAGE_LIBRARY_GROUP, images)
    return _container(codes.IMAGE_LIBRARY, [group])


def _qualitative_evaluations(
    sources: Sequence[Dataset],
    readings: Sequence[Reading],
    bundle: BundleIdentity,
    conclusion: str,
) -> sr.ContainerContentItem:
    """TID 1500 row 12: the conclusion, then what is to be said of single images."""
    texts = [(codes.CONCLUSION, conclusion)]
    for number, (source, reading) in enumerate(zip(sources, readings, strict=True), 1):
        label = sentences.label(number, source.get("InstanceNumber"), source.get("ViewPosition"))
        remarks = [sentences.finding(reading, bundle.decision)] if len(readings) > 1 else []
        remarks += [reading.detail] if reading.detail else []
        remarks += [f"Limitation: {limitation}" for limitation in reading.limitations]
        texts += [(codes.COMMENT, f"{label}: {remark}") for remark in remarks]
    return _container(
        codes.QUALITATIVE_EVALUATIONS,
        [sr.TextContentItem(name, text, "CONTAINS") for name, text in texts],
    )


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


def _container(name: Code, items: Sequence[sr.ContentItem]) -> sr.ContainerContentItem:
    container = sr.ContainerContentItem(name, relationship_type="CONTAINS")
    container.ContentSequence = sr.ContentSequence(items)
    return container

"""Studies put through the store as the pipeline does, without a gateway: rows, and no objects."""

from typing import Any

from pydicom.uid import ComputedRadiographyImageStorage
from sqlalchemy import Engine

from sources import BUNDLE
from thoracle.records import Kind, Outcome, Reading, Reason
from thoracle.store import bundles
from thoracle.study import analyses, instances, reading_list
from thoracle.study.instances import Description, Received
from thoracle.study.results import AnalysisKey, ResultObject

DIGEST = BUNDLE.digest


def received(study: str, number: int = 1, **changes: Any) -> Received:
    values: dict[str, Any] = {
        "sop_class_uid": ComputedRadiographyImageStorage,
        "sop_instance_uid": f"{study}.{number}",
        "study_instance_uid": study,
        "series_instance_uid": f"{study}.0",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "patient_id": "P7",
        "issuer_of_patient_id": "2.16.840.1",
        "accession_number": "A7",
        "priority": 100,
        "path": f"images/{study}.{number}",
        "size": 1,
        "sha256": "0" * 64,
        "calling_ae_title": "PACS",
        "peer_address": "127.0.0.1",
        "description": Description("Doe^Jo", "CR", "Chest", "20261122", "184529"),
    }
    return Received(**values | changes)


def concluded(database: Engine, study: str, *readings: Reading | None, **changes: Any) -> None:
    """Put a study through the store as the pipeline does; ``None`` is an analysis that failed."""
    key = AnalysisKey(study, 1, DIGEST)
    with database.begin() as connection:
        for number in range(1, max(len(readings), 1) + 1):
            image = received(study, number, **changes)
            instances.lock_study(connection, image)
            reading_list.arrive(connection, image)
            instances.add(connection, image)
        bundles.remember(connection, BUNDLE)
        analyses.plan(connection, study, DIGEST, BUNDLE.finding.key, "by hand")
        said = [one for one in readings if one is not None]
        if said:
            made = ResultObject(f"{study}.9", "1.2", f"{study}.8", Kind.SR, "results/x", "0" * 64)
            analyses.conclude(connection, key, BUNDLE, said, [made], "by hand")
        elif readings:
            analyses.fail(connection, key, Reason.SOFTWARE_FAILURE, "no", "by hand")


def said(study: str, outcome: Outcome, number: int = 1, **values: Any) -> Reading:
    return Reading(ComputedRadiographyImageStorage, f"{study}.{number}", outcome, **values)

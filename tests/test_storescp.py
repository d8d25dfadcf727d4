"""The listener, asked over the wire: who may send what, and every answer that it gives."""

import contextlib
import re
import socket

import numpy as np
import pytest
from pydicom.config import disable_value_validation
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from gateway import Gateway
from ledger import events, eventually, files, residue, rows
from radiographs import gradient, radiograph
from sender import CR_EXPLICIT, Answer, NotAnswered, Sender, encoded, small
from thoracle.receive.negotiation import IMAGE_STORAGE, TRANSFER_SYNTAXES
from thoracle.receive.storescp import STATUSES

SUCCESS, OUT_OF_RESOURCES, MISMATCH, CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xA900, 0xC000
PAIRS = [(sop_class, syntax) for sop_class in IMAGE_STORAGE for syntax in TRANSFER_SYNTAXES]


# ---- negotiation -------------------------------------------------------------------------------


def test_each_image_class_is_taken_in_each_transfer_syntax(gateway: Gateway) -> None:
    study = generate_uid()
    with Sender(gateway.port, PAIRS) as sender:
        assert sender.accepted == {(str(one), str(two)) for one, two in PAIRS}
        for sop_class, syntax in PAIRS:
            ds = small(SOPClassUID=sop_class, StudyInstanceUID=study)
            ds.file_meta.TransferSyntaxUID = syntax
            if syntax.is_encapsulated:  # what is inside is for the decoder to judge, later
                ds.PixelData = encapsulate([b"compressed"])
                ds["PixelData"].is_undefined_length = True
            elif not syntax.is_little_endian:
                ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
            assert sender.store(ds) == Answer(SUCCESS, ""), syntax.name
    stored = rows(gateway, "SELECT * FROM instance WHERE study_instance_uid = ?", study)
    assert {(row["sop_class_uid"], row["transfer_syntax_uid"]) for row in stored} == set(PAIRS)


def test_other_images_and_secondary_capture_are_declined_but_not_their_association(
    gateway: Gateway,
) -> None:
    others = [
        (CTImageStorage, ExplicitVRLittleEndian),
        (SecondaryCaptureImageStorage, ExplicitVRLittleEndian),
    ]
    with Sender(gateway.port, [*CR_EXPLICIT, *others]) as sender:
        assert sender.accepted == set(CR_EXPLICIT)
        assert sender.store(small()).status == SUCCESS


@pytest.mark.parametrize(
    ("calling", "called"),
    [("SENDER", "OTHER"), ("STRANGER", "THORACLE"), ("SENDER", "thoracle")],
    ids=["another name", "a caller who is not listed", "our name in small letters"],
)
def test_strangers_are_rejected_and_audited(gateway: Gateway, calling: str, called: str) -> None:
    statement = (
        "SELECT * FROM audit_event WHERE event = 'association refused' "
        "AND calling_ae_title = ? AND called_ae_title = ?"
    )
    with pytest.raises(NotAnswered), Sender(gateway.port, calling=calling, called=called):
        pass
    (row,) = eventually(lambda: rows(gateway, statement, calling, called), 10)
    assert row["network_address"] == "127.0.0.1"
    assert row["event_outcome"] == 4


# ---- statuses ----------------------------------------------------------------------------------


def _success(sender: Sender) -> Answer:
    return sender.store(small(SOPInstanceUID="2.25.4000"))


def _too_large(sender: Sender) -> Answer:
    return sender.store(radiograph(gradient(1100, 1000)))


def _without_pixels(sender: Sender) -> Answer:
    ds = small()
    del ds.PixelData
    return sender.store(ds)


def _cut_short(sender: Sender) -> Answer:
    ds = small()
    return sender.store_bytes(encoded(ds, ExplicitVRLittleEndian)[:-9], sop_instance="2.25.4001")


PROVOCATIONS = {
    _success: (SUCCESS, ""),
    _too_large: (OUT_OF_RESOURCES, "object larger than receive.maximum_object_megabytes"),
    _without_pixels: (MISMATCH, "no Pixel Data (7FE0,0010)"),
    _cut_short: (CANNOT_UNDERSTAND, "(7FE0,0010) ends at byte"),
}


def test_every_status_of_the_table_is_answered_over_the_wire(gateway: Gateway) -> None:
    answered = set()
    with Sender(gateway.port, calling="ECHOSCU") as sender:
        answer = sender.store(small())
        assert answer.comment == "receive.store_ae_titles does not name this AE title"
        answered.add(answer.status)
    with Sender(gateway.port) as sender:
        for provoke, (status, comment) in PROVOCATIONS.items():
            answer = provoke(sender)
            assert answer.status == status, provoke
            assert answer.comment.startswith(comment)
            assert bool(comment) == bool(answer.comment)
            answered.add(answer.status)
    assert answered == {status.code for status in STATUSES}


def test_a_refusal_is_audited_with_its_status_and_leaves_nothing(gateway: Gateway) -> None:
    with Sender(gateway.port) as sender:
        assert _cut_short(sender).status == CANNOT_UNDERSTAND
    row = events(gateway, "instance refused", "2.25.4001")[-1]
    assert (row["status"], row["calling_ae_title"], row["event_outcome"]) == ("0xC000", "SENDER", 8)
    assert residue(gateway) == []


def test_the_error_comment_is_never_longer_than_the_standard_allows(gateway: Gateway) -> None:
    ds = small(StudyInstanceUID="2.25.5")
    with Sender(gateway.port) as sender:
        data_set = encoded(ds, ExplicitVRLittleEndian)
        comments = [
            sender.store_bytes(data_set[:cut], sop_instance=ds.SOPInstanceUID).comment
            for cut in range(0, len(data_set), 50)
        ]
    assert all(0 < len(comment) <= 64 for comment in comments)


def test_an_object_whose_header_cannot_be_converted_leaves_nothing(gateway: Gateway) -> None:
    ds = small(SOPInstanceUID="2.25.4100")
    whole = encoded(ds, ExplicitVRLittleEndian)
    hostile = whole.replace(b"\x10\x00\x20\x00LO", b"\x10\x00\x20\x00FD")  # Patient ID as number
    assert hostile != whole
    with Sender(gateway.port) as sender:
        assert sender.store_bytes(hostile, sop_instance="2.25.4100").status == CANNOT_UNDERSTAND
    assert residue(gateway) == []


# ---- what reaches the disk ---------------------------------------------------------------------


# The gateway ignores pydicom's warnings, which quote values (log.py).
@pytest.mark.filterwarnings("ignore:.*value.*UI:UserWarning")
@pytest.mark.parametrize(
    "uid",
    ["../../x", "/tmp/x", "1.2\x00.3", "1." * 32 + "1", "1.2\\3.4", "", "x" * 300, None],
    ids=repr,
)
def test_no_uid_becomes_a_file_name(gateway: Gateway, uid: str | None) -> None:
    ds = small()
    if uid is not None:
        with disable_value_validation():
            ds.SOPInstanceUID = ds.StudyInstanceUID = uid
    try:
        with Sender(gateway.port) as sender:
            answer = sender.store_bytes(encoded(ds, ExplicitVRLittleEndian), sop_instance=uid)
            assert answer.status in (MISMATCH, CANNOT_UNDERSTAND)
    except NotAnswered:
        pass  # pynetdicom aborts on a command that it cannot parse
    assert gateway.answers()
    eventually(lambda: residue(gateway) == [], 10)
    ours = re.compile(r"[0-9a-f]{2}/[0-9a-f]{32}\.dcm")
    folder = gateway.data_folder / "images"
    assert all(ours.fullmatch(str(path.relative_to(folder))) for path in files(gateway, "images"))


def test_an_association_that_breaks_off_within_an_object_leaves_nothing(gateway: Gateway) -> None:
    ds = radiograph(gradient())
    with Sender(gateway.port) as sender:
        sender.abort_within(ds, 100_000)
    eventually(lambda: residue(gateway) == [], 10)
    assert events(gateway, "instance stored", ds.SOPInstanceUID) == []


def test_messages_that_cannot_be_parsed_do_not_use_up_the_associations(gateway: Gateway) -> None:
    for _ in range(15):
        with pytest.raises(NotAnswered), Sender(gateway.port) as sender:
            sender.store_bytes(b"", sop_instance="")
    eventually(gateway.answers, 20)


def test_a_sender_may_use_several_contexts_of_one_class(gateway: Gateway) -> None:
    uid = CR_EXPLICIT[0][0]
    pairs = [(uid, str(UID(syntax))) for syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian)]
    with Sender(gateway.port, pairs) as sender:
        for _, syntax in pairs:
            ds = small()
            ds.file_meta.TransferSyntaxUID = UID(syntax)
            assert sender.store(ds).status == SUCCESS


def test_a_pdu_longer_than_announced_ends_its_connection_at_once(gateway: Gateway) -> None:
    """Believed, a length of 4 GiB would swallow all that is sent, and the memory with it."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as peer:
        peer.sendall(b"\x01\x00\xff\xff\xff\xff" + b"x" * 1000)
        with contextlib.suppress(ConnectionResetError):
            assert peer.recv(1) == b""
    eventually(gateway.answers, 20)


def test_connections_that_ask_for_nothing_do_not_use_up_the_associations(
    gateway: Gateway,
) -> None:
    """Health probes and port scans connect and close; sixty at once are more than the limit."""
    for _ in range(60):
        socket.create_connection(("127.0.0.1", gateway.port), timeout=10).close()
    eventually(gateway.answers, 40)  # the ACSE timeout is 60 s

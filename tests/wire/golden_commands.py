"""Command sets that other implementations sent, byte for byte, and what they say (PS3.7 Annex E).

Taken from the wire between DCMTK 3.6.7 (echoscu, storescu, findscu, movescu), its dcmqrscp and storescp, and Orthanc
1.10.1, and from what pynetdicom 3.0.4 makes of its primitives. No codec of ours has written any of them.
"""

from __future__ import annotations

from pacs.wire.command import CommandValue

_CT = "1.2.840.10008.5.1.4.1.1.2"
_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
_COMMITMENT = "1.2.840.10008.1.20.1"

GOLDEN: dict[str, tuple[str, dict[str, CommandValue]]] = {
    "C-ECHO-RQ of echoscu": (
        """
        0000000004000000 38000000  0000020012000000 312e322e3834302e31303030382e312e3100
        0000000102000000 3000  0000100102000000 0100  0000000802000000 0101
        """,
        {
            "AffectedSOPClassUID": "1.2.840.10008.1.1",
            "CommandField": 0x0030,
            "MessageID": 1,
            "CommandDataSetType": 0x0101,
        },
    ),
    "C-ECHO-RSP of Orthanc": (
        """
        0000000004000000 42000000  0000020012000000 312e322e3834302e31303030382e312e3100
        0000000102000000 3080  0000200102000000 0100  0000000802000000 0101  0000000902000000 0000
        """,
        {
            "AffectedSOPClassUID": "1.2.840.10008.1.1",
            "CommandField": 0x8030,
            "MessageIDBeingRespondedTo": 1,
            "CommandDataSetType": 0x0101,
            "Status": 0x0000,
        },
    ),
    "C-STORE-RQ of storescu": (
        """
        0000000004000000 60000000
        000002001a000000 312e322e3834302e31303030382e352e312e342e312e312e3200  0000000102000000 0100
        0000100102000000 0100  0000000702000000 0000  0000000802000000 0100
        000000100e000000 322e32352e313030312e312e3100
        """,
        {
            "AffectedSOPClassUID": _CT,
            "CommandField": 0x0001,
            "MessageID": 1,
            "Priority": 0,
            "CommandDataSetType": 0x0001,
            "AffectedSOPInstanceUID": "2.25.1001.1.1",
        },
    ),
    "C-STORE-RQ of a C-MOVE of dcmqrscp": (
        """
        0000000004000000 7a000000
        000002001a000000 312e322e3834302e31303030382e352e312e342e312e312e3200  0000000102000000 0100
        0000100102000000 0100  0000000702000000 0000  0000000802000000 0100
        000000100e000000 322e32352e313030312e312e3100  0000301008000000 5445535453435520
        0000311002000000 0100
        """,
        {
            "AffectedSOPClassUID": _CT,
            "CommandField": 0x0001,
            "MessageID": 1,
            "Priority": 0,
            "CommandDataSetType": 0x0001,
            "AffectedSOPInstanceUID": "2.25.1001.1.1",
            "MoveOriginatorApplicationEntityTitle": "TESTSCU",
            "MoveOriginatorMessageID": 1,
        },
    ),
    "C-STORE-RSP of storescp": (
        """
        0000000004000000 60000000
        000002001a000000 312e322e3834302e31303030382e352e312e342e312e312e3200  0000000102000000 0180
        0000200102000000 0100  0000000802000000 0101  0000000902000000 0000
        000000100e000000 322e32352e313030312e312e3100
        """,
        {
            "AffectedSOPClassUID": _CT,
            "CommandField": 0x8001,
            "MessageIDBeingRespondedTo": 1,
            "CommandDataSetType": 0x0101,
            "Status": 0x0000,
            "AffectedSOPInstanceUID": "2.25.1001.1.1",
        },
    ),
    "C-FIND-RQ of findscu": (
        """
        0000000004000000 4c000000
        000002001c000000 312e322e3834302e31303030382e352e312e342e312e322e322e3100
        0000000102000000 2000  0000100102000000 0100  0000000702000000 0000  0000000802000000 0100
        """,
        {
            "AffectedSOPClassUID": _FIND,
            "CommandField": 0x0020,
            "MessageID": 1,
            "Priority": 0,
            "CommandDataSetType": 0x0001,
        },
    ),
    "pending C-FIND-RSP of dcmqrscp": (
        """
        0000000004000000 4c000000
        000002001c000000 312e322e3834302e31303030382e352e312e342e312e322e322e3100
        0000000102000000 2080  0000200102000000 0100  0000000802000000 0100  0000000902000000 00ff
        """,
        {
            "AffectedSOPClassUID": _FIND,
            "CommandField": 0x8020,
            "MessageIDBeingRespondedTo": 1,
            "CommandDataSetType": 0x0001,
            "Status": 0xFF00,
        },
    ),
    "final C-FIND-RSP of Orthanc": (
        """
        0000000004000000 4c000000
        000002001c000000 312e322e3834302e31303030382e352e312e342e312e322e322e3100
        0000000102000000 2080  0000200102000000 0100  0000000802000000 0101  0000000902000000 0000
        """,
        {
            "AffectedSOPClassUID": _FIND,
            "CommandField": 0x8020,
            "MessageIDBeingRespondedTo": 1,
            "CommandDataSetType": 0x0101,
            "Status": 0x0000,
        },
    ),
    "C-MOVE-RQ of movescu": (
        """
        0000000004000000 5c000000
        000002001c000000 312e322e3834302e31303030382e352e312e342e312e322e322e3200
        0000000102000000 2100  0000100102000000 0100  0000000608000000 5245534541524348
        0000000702000000 0000  0000000802000000 0100
        """,
        {
            "AffectedSOPClassUID": _MOVE,
            "CommandField": 0x0021,
            "MessageID": 1,
            "MoveDestination": "RESEARCH",
            "Priority": 0,
            "CommandDataSetType": 0x0001,
        },
    ),
    "pending C-MOVE-RSP of dcmqrscp": (
        """
        0000000004000000 74000000
        000002001c000000 312e322e3834302e31303030382e352e312e342e312e322e322e3200
        0000000102000000 2180  0000200102000000 0100  0000000802000000 0101  0000000902000000 00ff
        0000201002000000 0000  0000211002000000 0100  0000221002000000 0000  0000231002000000 0000
        """,
        {
            "AffectedSOPClassUID": _MOVE,
            "CommandField": 0x8021,
            "MessageIDBeingRespondedTo": 1,
            "CommandDataSetType": 0x0101,
            "Status": 0xFF00,
            "NumberOfRemainingSuboperations": 0,
            "NumberOfCompletedSuboperations": 1,
            "NumberOfFailedSuboperations": 0,
            "NumberOfWarningSuboperations": 0,
        },
    ),
    "final C-MOVE-RSP of dcmqrscp": (
        """
        0000000004000000 6a000000
        000002001c000000 312e322e3834302e31303030382e352e312e342e312e322e322e3200
        0000000102000000 2180  0000200102000000 0100  0000000802000000 0101  0000000902000000 0000
        0000211002000000 0100  0000221002000000 0000  0000231002000000 0000
        """,
        {
            "AffectedSOPClassUID": _MOVE,
            "CommandField": 0x8021,
            "MessageIDBeingRespondedTo": 1,
            "CommandDataSetType": 0x0101,
            "Status": 0x0000,
            "NumberOfCompletedSuboperations": 1,
            "NumberOfFailedSuboperations": 0,
            "NumberOfWarningSuboperations": 0,
        },
    ),
    "C-MOVE-RSP of dcmqrscp, destination unknown": (
        """
        0000000004000000 6a000000
        000002001c000000 312e322e3834302e31303030382e352e312e342e312e322e322e3200
        0000000102000000 2180  0000200102000000 0100  0000000802000000 0101  0000000902000000 01a8
        0000211002000000 0000  0000221002000000 0000  0000231002000000 0000
        """,
        {
            "AffectedSOPClassUID": _MOVE,
            "CommandField": 0x8021,
            "MessageIDBeingRespondedTo": 1,
            "CommandDataSetType": 0x0101,
            "Status": 0xA801,
            "NumberOfCompletedSuboperations": 0,
            "NumberOfFailedSuboperations": 0,
            "NumberOfWarningSuboperations": 0,
        },
    ),
    "failed C-MOVE-RSP of Orthanc": (
        """
        0000000004000000 6a000000
        000002001c000000 312e322e3834302e31303030382e352e312e342e312e322e322e3200
        0000000102000000 2180  0000200102000000 0100  0000000802000000 0101  0000000902000000 00c0
        0000211002000000 0000  0000221002000000 0000  0000231002000000 0000
        """,
        {
            "AffectedSOPClassUID": _MOVE,
            "CommandField": 0x8021,
            "MessageIDBeingRespondedTo": 1,
            "CommandDataSetType": 0x0101,
            "Status": 0xC000,
            "NumberOfCompletedSuboperations": 0,
            "NumberOfFailedSuboperations": 0,
            "NumberOfWarningSuboperations": 0,
        },
    ),
    "C-FIND-RSP of pynetdicom with a comment": (
        """
        0000000004000000 72000000
        000002001c000000 312e322e3834302e31303030382e352e312e342e312e322e322e3100
        0000000102000000 2080  0000200102000000 0700  0000000802000000 0101  0000000902000000 00a9
        0000010908000000 0800520020000d00  000002090e000000 4c6576656c206d697373696e6720
        """,
        {
            "AffectedSOPClassUID": _FIND,
            "CommandField": 0x8020,
            "MessageIDBeingRespondedTo": 7,
            "CommandDataSetType": 0x0101,
            "Status": 0xA900,
            "OffendingElement": (0x00080052, 0x0020000D),
            "ErrorComment": "Level missing",
        },
    ),
    "C-CANCEL-RQ of pynetdicom": (
        """
        0000000004000000 1e000000  0000000102000000 ff0f  0000200102000000 0700
        0000000802000000 0101
        """,
        {
            "CommandField": 0x0FFF,
            "MessageIDBeingRespondedTo": 7,
            "CommandDataSetType": 0x0101,
        },
    ),
    "N-ACTION-RQ of pynetdicom": (
        """
        0000000004000000 62000000  0000030014000000 312e322e3834302e31303030382e312e32302e31
        0000000102000000 3001  0000100102000000 ffff  0000000802000000 0100
        0000011016000000 312e322e3834302e31303030382e312e32302e312e31  0000081002000000 0100
        """,
        {
            "RequestedSOPClassUID": _COMMITMENT,
            "CommandField": 0x0130,
            "MessageID": 65535,
            "CommandDataSetType": 0x0001,
            "RequestedSOPInstanceUID": "1.2.840.10008.1.20.1.1",
            "ActionTypeID": 1,
        },
    ),
    "N-EVENT-REPORT-RQ of pynetdicom": (
        """
        0000000004000000 62000000  0000020014000000 312e322e3834302e31303030382e312e32302e31
        0000000102000000 0001  0000100102000000 0100  0000000802000000 0100
        0000001016000000 312e322e3834302e31303030382e312e32302e312e31  0000021002000000 0200
        """,
        {
            "AffectedSOPClassUID": _COMMITMENT,
            "CommandField": 0x0100,
            "MessageID": 1,
            "CommandDataSetType": 0x0001,
            "AffectedSOPInstanceUID": "1.2.840.10008.1.20.1.1",
            "EventTypeID": 2,
        },
    ),
    "N-GET-RQ of pynetdicom": (
        """
        0000000004000000 6a000000  0000030016000000 312e322e3834302e31303030382e352e312e312e3136
        0000000102000000 1001  0000100102000000 0300  0000000802000000 0101
        0000011016000000 312e322e3834302e31303030382e352e312e312e3137
        0000051008000000 1020100010203000
        """,
        {
            "RequestedSOPClassUID": "1.2.840.10008.5.1.1.16",
            "CommandField": 0x0110,
            "MessageID": 3,
            "CommandDataSetType": 0x0101,
            "RequestedSOPInstanceUID": "1.2.840.10008.5.1.1.17",
            "AttributeIdentifierList": (0x20100010, 0x20100030),
        },
    ),
}

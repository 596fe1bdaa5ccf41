"""How a project tests its own SCU against a real archive; replace ``my_scu`` with your code.

Run it with ``pip install mini-pacs pytest`` and ``pytest``.
"""

import my_scu

from pacs.conformance.scu.judge import judge
from pacs.conformance.scu.rules import Rule


def test_what_is_sent_is_stored(pacs_archive):
    my_scu.send(pacs_archive.peer, my_scu.an_instance("4711"))
    assert [stored.PatientID for stored in pacs_archive.instances()] == ["4711"]


def test_query_finds_the_study(pacs_archive):
    pacs_archive.store(my_scu.an_instance("4711"), my_scu.an_instance("4712"))
    found = my_scu.find_studies(pacs_archive.peer, patient_id="4712")
    assert len(found) == 1


def test_move_survives_a_refusing_destination(pacs_archive, pacs_destination):
    pacs_archive.register(pacs_destination.ae_title, pacs_destination.port)
    instance = my_scu.an_instance("4711")
    pacs_archive.store(instance, my_scu.an_instance("4711", instance.StudyInstanceUID))
    pacs_destination.behaviour = lambda number, request: 0xA700 if number == 0 else 0x0000

    outcome = my_scu.move_study(
        pacs_archive.peer, instance.StudyInstanceUID, pacs_destination.ae_title
    )

    assert outcome.status == 0xB000
    assert (outcome.completed, outcome.failed) == (1, 1)
    assert [one.data_set.PatientID for one in pacs_destination.received] == ["4711", "4711"]


def test_a_refusal_of_the_archive_is_reported(pacs_scp):
    pacs_scp.rules.add(Rule(service="C-MOVE", status=0xA801, comment="no such destination"))
    outcome = my_scu.move_study((pacs_scp.host, pacs_scp.port, "ANY"), "1.2.3", "NOBODY")
    assert outcome.status == 0xA801
    assert judge(pacs_scp.sessions).is_conformant

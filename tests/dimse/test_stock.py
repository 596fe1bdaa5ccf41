"""The archive on a stock AE: the example, and what the contract of pynetdicom's handlers asks for.

Most of what is asked of the archive is asked of it there too: the parameter ``stock-sqlite`` of the other tests.
"""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.presentation import build_context, build_role
from pynetdicom.sop_class import ModalityPerformedProcedureStep

from tests.factories import make_instance
from tests.peers import (
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    association,
    identifier,
    responses,
)

_EXAMPLE = Path(__file__).parents[2] / "examples" / "own_ae" / "archive_with_mpps.py"


def test_the_example_archives_and_takes_procedure_steps_on_one_association(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    serving = runpy.run_path(str(_EXAMPLE))["serving"]
    instance = make_instance(PatientID="P-1")
    image = build_context(instance.SOPClassUID, instance.file_meta.TransferSyntaxUID)
    roles = build_role(instance.SOPClassUID, scu_role=True, scp_role=True)
    received: list[Dataset] = []

    def take(event: Any) -> int:
        received.append(event.dataset)
        return 0x0000

    with serving(tmp_path, port=0) as server:
        running: Any = SimpleNamespace(port=int(server.server_address[1]))
        contexts = (image, STUDY_ROOT_FIND, STUDY_ROOT_GET, ModalityPerformedProcedureStep)
        with association(
            running, *contexts, items=[roles], bound=[(evt.EVT_C_STORE, take)]
        ) as assoc:
            assert assoc.send_c_store(instance).Status == 0x0000
            step = Dataset()
            step.PerformedProcedureStepID = "PPS-7"
            created, _ = assoc.send_n_create(step, ModalityPerformedProcedureStep, "1.2.3")
            assert created.Status == 0x0000
            keys = identifier("STUDY", PatientID="P-1", StudyInstanceUID="")
            found = responses(assoc.send_c_find(keys, STUDY_ROOT_FIND))
            assert [one.status for one in found] == [0xFF00, 0x0000]
            wanted = identifier("STUDY", StudyInstanceUID=instance.StudyInstanceUID)
            final = responses(assoc.send_c_get(wanted, STUDY_ROOT_GET))[-1]

    assert (final.status, final.counts[1:]) == (0x0000, (1, 0, 0))
    assert [one.SOPInstanceUID for one in received] == [instance.SOPInstanceUID]
    assert "performed: PPS-7" in capsys.readouterr().out

"""A refused request is logged and recorded with the Query/Retrieve Level that it named."""

from __future__ import annotations

import logging

import pytest

from tests.dimse.retrieving import Getter, recorded, study_query
from tests.peers import STUDY_ROOT_FIND, association, responses
from tests.serving import Serve, engine_on_sqlite


@engine_on_sqlite
def test_refused_find_is_logged_with_its_level(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    query = study_query()
    query.StudyDate = "20240301-20240229"
    with (
        caplog.at_level(logging.INFO, "pacs.dimse.find_scp"),
        association(serve(), STUDY_ROOT_FIND) as assoc,
    ):
        assert responses(assoc.send_c_find(query, STUDY_ROOT_FIND))[-1].status == 0xA900

    assert "C-FIND STUDY: 0 matches" in caplog.text


@engine_on_sqlite
def test_refused_get_is_recorded_with_its_level(serve: Serve) -> None:
    running = serve()
    query = study_query()
    query.StudyInstanceUID = "1.2.*"

    assert Getter().retrieve(running, query).final.status == 0xA900

    record, _ = recorded(running)
    assert record.request.level == "STUDY"

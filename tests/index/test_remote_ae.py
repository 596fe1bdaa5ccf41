from __future__ import annotations

from dataclasses import replace

import pytest

from pacs.errors import InvalidSetting
from pacs.index.index import Index
from pacs.index.remote_ae import valid_ae_title
from pacs.model.remote_ae import RemoteAE, Service

RESEARCH = RemoteAE(
    title="RESEARCH",
    host="10.0.0.7",
    port=104,
    services=frozenset({Service.ECHO, Service.MOVE}),
    destinations=frozenset({"RESEARCH", "TEACHING"}),
    tls=True,
    parallel_associations=2,
    description="third floor",
)


def test_add_then_list_is_the_same_by_title(index: Index) -> None:
    minimal = RemoteAE(title="A", host="::1", port=11112)

    index.remote_aes.add(RESEARCH)
    index.remote_aes.add(minimal)

    assert index.remote_aes.all() == [minimal, RESEARCH]


def test_add_same_title_replaces(index: Index) -> None:
    index.remote_aes.add(RESEARCH)

    index.remote_aes.add(replace(RESEARCH, title=" RESEARCH", port=11112, destinations=frozenset()))

    assert index.remote_aes.all() == [replace(RESEARCH, port=11112, destinations=frozenset())]


def test_remove_tells_whether_there_was_one(index: Index) -> None:
    index.remote_aes.add(RESEARCH)

    assert index.remote_aes.remove("RESEARCH") is True
    assert index.remote_aes.remove("RESEARCH") is False
    assert index.remote_aes.all() == []


@pytest.mark.parametrize("title", ["", " ", " " * 16, "X" * 17, "A\\B", "A\nB", "Ä", "A\0", "\x7f"])
def test_valid_ae_title_refuses_what_is_none(title: str) -> None:
    with pytest.raises(InvalidSetting):
        valid_ae_title(title)


@pytest.mark.parametrize("title", ["A", "X" * 16, " A B ", "[a-z]^~!", "@"])
def test_valid_ae_title_accepts_and_strips(title: str) -> None:
    assert valid_ae_title(title) == title.strip()


@pytest.mark.parametrize(
    "change",
    [
        {"title": "A\\B"},
        {"host": " "},
        {"host": "a b"},
        {"port": 0},
        {"port": 65_536},
        {"parallel_associations": 0},
        {"destinations": frozenset({"A\\B"})},
    ],
    ids=str,
)
def test_add_refuses_unusable_values(index: Index, change: dict) -> None:
    with pytest.raises(InvalidSetting):
        index.remote_aes.add(replace(RESEARCH, **change))

    assert index.remote_aes.all() == []

from __future__ import annotations

import os
import stat
from pathlib import Path

from pacs.index.index import Index
from pacs.model.remote_ae import RemoteAE


def test_files_of_a_new_index_are_closed_to_others_in_any_process(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        index = Index.open(f"sqlite:///{tmp_path / 'index.sqlite'}")
        index.remote_aes.add(RemoteAE(title="X", host="10.0.0.7", port=104))
    finally:
        os.umask(umask)

    made = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    index.close()
    assert made == dict.fromkeys(("index.sqlite", "index.sqlite-wal", "index.sqlite-shm"), 0o640)

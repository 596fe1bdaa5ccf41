"""What senders sent, what was acknowledged, and so what the archive may and must hold."""

from __future__ import annotations

import hashlib
import math
import random
import threading
import time
from dataclasses import dataclass, field

from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom.dsutils import encode
from pynetdicom.presentation import build_context

from pacs.dimse.ae import Options, make_ae
from pacs.wire.association import EngineAssociation
from tests.factories import add, make_instance

SUCCESS = 0x0000
_SMALLEST_BYTES, _LARGEST_BYTES = 3_000, 600_000
_STUDIES = 4
_SERIES_OF_A_STUDY = 2
_PATIENTS = 3


@dataclass(slots=True)
class Sending:
    """One C-STORE of one version of a SOP Instance; times by the monotonic clock."""

    digest: str
    began_at: float
    #: When it was answered, or the first moment at which it can no longer take effect.
    ended_at: float = math.inf
    is_acknowledged: bool = False


@dataclass(slots=True)
class Instance:
    """One SOP Instance and all that was sent under its UID."""

    uid: str
    study_uid: str
    series_uid: str
    patient_id: str
    sendings: list[Sending] = field(default_factory=list)

    @property
    def is_acknowledged(self) -> bool:
        """Whether the archive must have it."""
        return any(sending.is_acknowledged for sending in self.sendings)

    def allowed_digests(self) -> set[str]:
        """The versions that may be the stored one.

        A version may not, if another one was acknowledged that was sent only after it had ended.
        """
        began = [s.began_at for s in self.sendings if s.is_acknowledged]
        newest = max(began, default=-math.inf)
        return {sending.digest for sending in self.sendings if sending.ended_at >= newest}


class Ledger:
    """The truth that a restarted archive is held against; shared by the sending threads."""

    def __init__(self, seed: int) -> None:
        self.instances: dict[str, Instance] = {}
        #: Digests of everything that was ever sent.
        self.digests: set[str] = set()
        self.statuses: set[int] = set()
        self.acknowledged = 0
        self._order: list[Instance] = []
        self._changed = threading.Condition()
        self._prefix = f"2.25.{random.Random(seed).getrandbits(64)}"

    def choose(self, rng: random.Random) -> Instance:
        """An instance to send: mostly a new one, sometimes one that was sent before."""
        with self._changed:
            if self._order and rng.random() < 0.3:
                return rng.choice(self._order[-60:])
            study = rng.randrange(_STUDIES)
            if rng.random() < 0.3:
                # As radiography does: a study for each image.
                study = _STUDIES + len(self._order)
            series = rng.randrange(_SERIES_OF_A_STUDY)
            instance = Instance(
                uid=f"{self._prefix}.{study}.{series}.{len(self._order) + 1}",
                study_uid=f"{self._prefix}.{study}",
                series_uid=f"{self._prefix}.{study}.{series}",
                patient_id=f"P-{study % _PATIENTS}",
            )
            self._order.append(instance)
            self.instances[instance.uid] = instance
            return instance

    def begin(self, instance: Instance, digest: str) -> Sending:
        """Note that a version is about to be sent."""
        sending = Sending(digest, time.monotonic())
        with self._changed:
            self.digests.add(digest)
            instance.sendings.append(sending)
            self._changed.notify_all()
        return sending

    def answer(self, sending: Sending, status: int) -> None:
        """Note the status that came back."""
        with self._changed:
            self.statuses.add(status)
            sending.ended_at = time.monotonic()
            if status == SUCCESS:
                sending.is_acknowledged = True
                self.acknowledged += 1
            self._changed.notify_all()

    def wait_for(self, acknowledgements: int, timeout_seconds: float) -> bool:
        """Wait until so many C-STOREs are acknowledged in all."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self.acknowledged >= acknowledgements, timeout_seconds
            )

    def end_unanswered(self) -> None:
        """The archive was killed and has been restarted: what was not answered cannot happen any more."""
        now = time.monotonic()
        for instance in self._order:
            for sending in instance.sendings:
                sending.ended_at = min(sending.ended_at, now)


class Sender(threading.Thread):
    """One association that sends instances until it is lost."""

    def __init__(self, ledger: Ledger, port: int, seed: int) -> None:
        super().__init__(name=f"sender {seed}", daemon=True)
        self._ledger = ledger
        self._port = port
        self._rng = random.Random(seed)

    def run(self) -> None:
        """Associate and send."""
        ae = make_ae(Options(ae_title="SENDER", dimse_timeout_seconds=30))
        contexts = [build_context(CTImageStorage, ExplicitVRLittleEndian)]
        assoc = ae.associate("127.0.0.1", self._port, contexts=contexts, ae_title="PACS")
        try:
            while assoc.is_usable:
                self._send(assoc)
        finally:
            assoc.release()  # of a lost association: closes the socket

    def _send(self, assoc: EngineAssociation) -> None:
        instance = self._ledger.choose(self._rng)
        data_set = self._data_set(instance)
        sent = encode(data_set, is_implicit_vr=False, is_little_endian=True)
        assert sent is not None
        sending = self._ledger.begin(instance, hashlib.sha256(sent).hexdigest())
        response = assoc.send_c_store(data_set)
        if "Status" in response:
            self._ledger.answer(sending, int(response.Status))

    def _data_set(self, instance: Instance) -> Dataset:
        rng = self._rng
        size = round(math.exp(rng.uniform(math.log(_SMALLEST_BYTES), math.log(_LARGEST_BYTES))))
        data_set = make_instance(
            SOPInstanceUID=instance.uid,
            StudyInstanceUID=instance.study_uid,
            SeriesInstanceUID=instance.series_uid,
            FrameOfReferenceUID=instance.study_uid,
            PatientID=instance.patient_id,
        )
        if rng.random() < 0.2:
            # A later instance may change what is known of its study.
            add(data_set, "StudyDescription", f"Version {rng.randrange(1000)}")
        # Now and then what was sent before, to the byte.
        is_repeat = rng.random() < 0.2
        data_set["PixelData"].value = (
            bytes(_SMALLEST_BYTES) if is_repeat else rng.randbytes(size // 2 * 2)
        )
        return data_set

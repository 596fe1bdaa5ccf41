"""How many of the associations one host, one calling AE, and those that are not registered may have."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pacs.dimse.access import Rights

#: A default share is never smaller: a modality may well open four at a time.
_SMALLEST_SHARE = 8


@dataclass(frozen=True, slots=True)
class Shares:
    """The policy, for all processes of an archive together.

    The share of a host is for those who are not registered: a router calls for many modalities, from one address. A
    registered AE that calls from its own host has the share of its AE only, and takes nothing of the host's.
    """

    maximum: int
    #: Of one host, and of one calling AE; zero is half of the maximum.
    per_host: int = 0
    per_ae: int = 0

    def refusal(self, rights: Rights, others: Iterable[Rights], processes: int = 1) -> str | None:
        """Why somebody with these rights gets no association beside ``others``; None if there is no reason.

        Each of several processes has its part of every share: a new association goes to the least busy one.
        """
        others = list(others)
        limits = (
            (
                f"host {rights.host} has its share",
                0
                if rights.is_registered
                else sum(one.host == rights.host and not one.is_registered for one in others),
                self.per_host or self._half,
            ),
            (
                f"AE {rights.calling_ae} has its share",
                sum(one.calling_ae == rights.calling_ae for one in others),
                self.per_ae or self._half,
            ),
            # A tenth is kept for registered AEs.
            (
                "what is left is for registered AEs",
                0 if rights.is_registered else len(others),
                self.maximum - self.maximum // 10,
            ),
        )
        for why, count, limit in limits:
            if count >= -(-limit // processes):
                return why
        return None

    @property
    def _half(self) -> int:
        return max(self.maximum // 2, min(self.maximum, _SMALLEST_SHARE))

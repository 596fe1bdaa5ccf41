"""The DIMSE edge as the settings want it: network options, handlers, remote AEs, TLS, and what goes on beside."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from pacs.archive.archive import Archive
from pacs.archive.lease_keeper import LeaseKeeper
from pacs.archive.log_replay import replay_abandoned
from pacs.config import Settings
from pacs.dicom.query.query_options import QueryOptions
from pacs.dimse.access import AccessPolicy
from pacs.dimse.ae import Options, handlers, make_ae, sink_opener
from pacs.dimse.association_recorder import AssociationRecorder
from pacs.dimse.commitment_delivery import CommitmentDelivery, RetryPolicy
from pacs.dimse.remote import RemoteAEs
from pacs.dimse.retrieve_responses import PendingCadence
from pacs.dimse.transcode import Conversions
from pacs.reloading import Reloading, Running, tls_options_of
from pacs.remotes import configured_remotes
from pacs.wire.ae import EngineAE, EngineServer
from pacs.wire.tls import TLSOptions, acceptor_context, requestor_context


def options_of(settings: Settings) -> Options:
    """What of the settings concerns the network."""
    return Options(
        ae_title=settings.ae_title,
        require_called_ae_title=settings.require_called_ae_title,
        maximum_associations=settings.maximum_associations,
        maximum_associations_per_host=settings.maximum_associations_per_host,
        maximum_associations_per_ae=settings.maximum_associations_per_ae,
        maximum_pdu_bytes=settings.maximum_pdu_bytes,
        acse_timeout_seconds=settings.acse_timeout_seconds,
        dimse_timeout_seconds=settings.dimse_timeout_seconds,
        network_timeout_seconds=settings.network_timeout_seconds,
        connect_timeout_seconds=settings.connect_timeout_seconds,
        find_limit=settings.find_limit,
        find_header_limit=settings.find_header_limit,
        retrieve_limit=settings.retrieve_limit,
        match_unknown=settings.match_unknown,
        timezone=settings.timezone,
        extended_negotiation=QueryOptions.of(settings.extended_negotiation),
        destination_retries=settings.destination_retries,
        conversions=Conversions(
            settings.conversion_limit_bytes, settings.conversion_timeout_seconds
        ),
        pending=PendingCadence(
            settings.pending_interval_responses, settings.pending_interval_seconds
        ),
        commitment=RetryPolicy(settings.commitment_retries, settings.commitment_retry_seconds),
        tls=tls_options_of(settings),
    )


def retrieve_options_of(settings: Settings, archive: Archive) -> Options:
    """As ``options_of``, for who sends instances: the scratch files of conversions are in the spool."""
    options, spool = options_of(settings), archive.storage.spool
    conversions = replace(
        options.conversions,
        scratch_directory=spool.scratch_directory,
        take_room=spool.take_room,
    )
    return replace(options, conversions=conversions)


@dataclass(frozen=True, slots=True)
class Scp:
    """The DIMSE edge over an open archive, ready for connections."""

    ae: EngineAE
    options: Options
    remotes: RemoteAEs
    access: AccessPolicy
    handlers: list[tuple[Any, Any, list[Any]]]
    open_sink: Any
    #: Not started.
    commitments: CommitmentDelivery
    #: None if associations are not recorded.
    recorder: AssociationRecorder | None
    leases: LeaseKeeper

    def start(self) -> None:
        """Start what goes on beside the associations."""
        self.leases.start()
        self.commitments.start()
        if self.recorder is not None:
            self.recorder.start()

    def reloading(self, settings: Settings, server: EngineServer) -> Reloading:
        """What takes over other certificates and remote AEs."""
        return Reloading(settings, Running(self.ae, server, self.remotes, configured_remotes))

    def stop(self) -> None:
        """End that, when they are over."""
        self.commitments.stop()
        if self.recorder is not None:
            self.recorder.stop()
        self.leases.stop()


def make_scp(settings: Settings, archive: Archive) -> Scp:
    """Build the DIMSE edge.

    Raises:
        InvalidSetting: a file that TLS needs cannot be used.
    """
    options = retrieve_options_of(settings, archive)
    remotes = RemoteAEs(archive.index, configured_remotes(settings), options.tls)
    access = AccessPolicy(
        remotes,
        allow_any=settings.allow_any,
        verify_calling_host=settings.verify_calling_host,
    )
    ae = make_ae(options)
    commitments = CommitmentDelivery(archive, remotes, ae, options.commitment)
    bound = handlers(archive, remotes, access, options, commitments)
    _set_up_tls(settings, ae, options.tls)
    recorder = _recorder(settings, archive)
    if recorder is not None:
        ae.on_association_over = recorder.note
    leases = LeaseKeeper(
        archive.index,
        settings.lease_seconds,
        on_swept=lambda _: commitments.look_now(),
        take_over=lambda: replay_abandoned(archive),
    )
    return Scp(
        ae, options, remotes, access, bound, sink_opener(archive), commitments, recorder, leases
    )


def _recorder(settings: Settings, archive: Archive) -> AssociationRecorder | None:
    if settings.record_associations == "none":
        return None
    return AssociationRecorder(
        archive.index,
        only_problems=settings.record_associations == "problems",
        keep=settings.association_records,
    )


def _set_up_tls(settings: Settings, ae: EngineAE, options: TLSOptions) -> None:
    if options.certificate is not None or options.ca is not None:
        requestor_context(options)  # so that a bad file is reported now, not by the first C-MOVE
    if settings.tls == "off":
        return
    ae.ssl_context = acceptor_context(options)
    ae.requires_tls = settings.tls == "required"

"""Which of pynetdicom's own tests do not apply to our engine, and why.

Reasons are of two kinds: the test looks at a part that is not ours or not there, or it wants a behaviour that ours
deliberately does not have. The second kind is in docs/design.md as well.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

_STOCK_CLASS = "tests a class of pynetdicom that the engine uses unchanged, without an association"
_SERVICE = "a service that this archive does not offer as SCP"
#: Test modules left out as a whole.
LEFT_OUT = {
    "test_assoc_user": _STOCK_CLASS,
    "test_cli": "tests pynetdicom's command-line applications",
    "test_dimse_c": _STOCK_CLASS,
    "test_dimse_msg": "tests DIMSEMessage, which the engine replaces (tests/wire/test_command.py)",
    "test_dimse_n": _STOCK_CLASS,
    "test_dimse_provider": "tests the queue of DIMSEServiceProvider, which the engine replaces",
    "test_dsutils": _STOCK_CLASS,
    "test_environment": _STOCK_CLASS,
    "test_events": _STOCK_CLASS,
    "test_fsm": "drives the stock DUL thread step by step; the state machine itself is used unchanged",
    "test_logging": "tests the log handlers that print every PDU, which the engine turns off",
    "test_pdu": _STOCK_CLASS,
    "test_pdu_items": _STOCK_CLASS,
    "test_presentation": _STOCK_CLASS,
    "test_primitives": _STOCK_CLASS,
    "test_service_class": _STOCK_CLASS,
    "test_service_n": _SERVICE,
    "test_service_non_patient": _SERVICE,
    "test_service_relevant_patient": _SERVICE,
    "test_service_substance_admin": _SERVICE,
    "test_sop": _STOCK_CLASS,
    "test_status": _STOCK_CLASS,
    "test_timer": _STOCK_CLASS,
    "test_transport": "tests AssociationSocket and AssociationServer, which the engine replaces",
    "test_utils": _STOCK_CLASS,
    "test_validators": _STOCK_CLASS,
}
#: Test modules that run, by the role that is ours.
APPLIED = {
    "test_acse": ("acceptor", "requestor"),
    "test_ae": ("acceptor", "requestor"),
    "test_assoc": ("acceptor", "requestor"),
    # The SCPs of the DIMSE-N services and of the stock query loops are not ours.
    "test_assoc_n": ("requestor",),
    "test_dul": ("acceptor",),
    "test_service_qr": ("acceptor",),
    "test_service_storage": ("acceptor", "requestor"),
    "test_service_verification": ("acceptor", "requestor"),
}

_CODES = "a handler that fails is answered C000 with an Error Comment; stock has a code for each way of failing"
_STREAMED = "the engine's C-GET and C-MOVE handlers return what is to be retrieved; stock handlers yield data sets"
_OTHER_SOP_CLASS = (
    "an operation that the SOP Class has not is answered 0211; stock aborts or has a service for it"
)
_AT_ONCE = (
    "sleeps or asserts right after an act of the other thread; ours does not wait 0.1 s in abort()"
)
_NO_THREAD = (
    "a requestor without a thread notices what its peer does when it next uses the association"
)
_NEXT_WAIT = (
    "a time-out changed on the AE holds for new associations, on the association from its next wait"
)
_LOG_TEXT = "looks for a line of pynetdicom's log"
_ARGUMENTS = (
    "checks of arguments that AE.associate of the engine leaves to its callers' type checker"
)

#: (module, role or *, test pattern) -> reason.
DESELECTED: dict[tuple[str, str, str], str] = {
    ("test_acse", "requestor", "TestEventHandlingRequestor.test_acse_recv_ap_abort"): _NO_THREAD,
    (
        "test_ae",
        "*",
        "TestAEGoodAssociation.test_connection_timeout",
    ): "connects to a host on the internet",
    ("test_ae", "*", "TestAEGoodAssociation.test_association_timeouts"): _NEXT_WAIT,
    ("test_ae", "requestor", "TestAEGoodTimeoutSetters.test_active_*"): _NEXT_WAIT,
    ("test_ae", "requestor", "TestAEBadAssociation.test_invalid_*_raises"): _ARGUMENTS,
    ("test_ae", "requestor", "TestAEPresentationSCU.test_associate_context_raises"): _ARGUMENTS,
    ("test_assoc", "*", "TestAssociation.test_peer_aborts_assoc"): _AT_ONCE,
    ("test_assoc", "requestor", "TestAssociation.test_peer_releases_assoc"): _NO_THREAD,
    ("test_assoc", "acceptor", "TestAssociation.test_peer_rejects_assoc"): (
        "a stock requestor reports an abort when the rejection is there before it looks at its socket"
    ),
    ("test_assoc", "acceptor", "TestAssociation.test_invalid_context"): _LOG_TEXT,
    ("test_assoc", "acceptor", "*.test_run_accept_scp_not_implemented"): _OTHER_SOP_CLASS,
    ("test_assoc", "*", "TestAssociationSendCEcho.test_network_timeout_acceptor"): _NEXT_WAIT,
    ("test_assoc", "*", "TestAssociationSendCEcho.test_network_timeout_release"): (
        "network_timeout_response: an idle association is always aborted"
    ),
    (
        "test_assoc",
        "requestor",
        "TestAssociationSendCEcho.test_network_timeout_requestor",
    ): _NO_THREAD,
    (
        "test_assoc",
        "requestor",
        "TestAssociationSendCEcho.test_changing_network_timeout",
    ): _NEXT_WAIT,
    ("test_assoc", "requestor", "TestAssociationSendCStore.test_using_filepath_chunks"): (
        "STORE_SEND_CHUNKED_DATASET: the engine streams stored instances in its own way"
    ),
    ("test_assoc", "acceptor", "TestAssociationSendCFind.test_query_uid_private"): _LOG_TEXT,
    ("test_assoc", "acceptor", "TestAssociationSendCFind.test_repository_query"): _OTHER_SOP_CLASS,
    ("test_assoc", "acceptor", "TestAssociationSendCGet.*"): _STREAMED,
    ("test_assoc", "acceptor", "TestAssociationSendCMove.*"): _STREAMED,
    ("test_assoc", "acceptor", "TestEventHandlingAcceptor.test_requested_raises"): (
        "a request whose handler fails is rejected; stock accepts it"
    ),
    ("test_assoc", "acceptor", "TestGetValidContext.test_ups_push_action"): _SERVICE,
    ("test_assoc", "requestor", "TestEventHandlingAcceptor.test_release_local"): _NO_THREAD,
    ("test_assoc", "requestor", "TestEventHandlingRequestor.test_*_remote"): _NO_THREAD,
    ("test_service_qr", "acceptor", "TestQRGetServiceClass.*"): _STREAMED,
    ("test_service_qr", "acceptor", "TestQRMoveServiceClass.*"): _STREAMED,
    ("test_service_qr", "acceptor", "TestQRFindServiceClass.test_handler_status_*"): _CODES,
    ("test_service_qr", "acceptor", "TestQRFindServiceClass.test_handler_exception_*"): _CODES,
    ("test_service_qr", "acceptor", "TestQRFindServiceClass.test_handler_no_yield"): _CODES,
    ("test_service_qr", "acceptor", "TestQRFindServiceClass.test_handler_bad_identifier"): (
        "Pending without an Identifier is against the handler contract; ours sends what it is given"
    ),
    ("test_service_qr", "acceptor", "TestQRFindServiceClass.test_scp_cancelled"): (
        "sends a C-CANCEL on a presentation context that was not accepted, for which ours aborts (PS3.8 9.3.1)"
    ),
    ("test_service_qr", "acceptor", "TestQRFindServiceClass.test_register"): _OTHER_SOP_CLASS,
    ("test_service_qr", "acceptor", "TestQRCompositeInstanceWithoutBulk.*"): _SERVICE,
    ("test_service_qr", "acceptor", "TestBasicWorklistServiceClass.*"): _SERVICE,
    (
        "test_service_qr",
        "acceptor",
        "TestQRFindServiceClass.test_repository_query",
    ): _OTHER_SOP_CLASS,
    ("test_service_storage", "acceptor", "*.test_scp_handler_no_status"): _CODES,
    ("test_service_storage", "acceptor", "*.test_scp_handler_exception*"): _CODES,
    ("test_service_storage", "acceptor", "*.test_scp_handler_dataset_path"): (
        "STORE_RECV_CHUNKED_DATASET: the engine spools in its own way (open_sink)"
    ),
    ("test_service_verification", "acceptor", "*.test_scp_handler_*no_status"): _CODES,
    ("test_service_verification", "acceptor", "*.test_scp_handler_exception"): (
        "an exception in a C-ECHO handler is answered C000; stock answers Success"
    ),
    ("test_service_verification", "requestor", "*.test_timeout"): _LOG_TEXT,
    ("test_service_verification", "requestor", "*.test_abort"): _LOG_TEXT,
    ("test_service_verification", "requestor", "*.test_disconnection"): _LOG_TEXT,
    ("test_service_verification", "requestor", "*.test_dimse_network_timeout"): _LOG_TEXT,
}


def reason_to_deselect(module: str, test: str, role: str) -> str:
    """Why a test of an applied module does not apply to the role; empty if it does."""
    for (of_module, of_role, pattern), reason in DESELECTED.items():
        if of_module == module and of_role in (role, "*") and fnmatchcase(test, pattern):
            return reason
    return ""

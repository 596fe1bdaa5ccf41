"""pynetdicom with a synchronous Upper Layer: the one place that reaches into its private parts.

Theory of operation. Stock pynetdicom runs two polling threads for an association. Here the association's own
thread does everything: it blocks in ``recv`` until a PDU is there, hands ACSE PDUs to pynetdicom's own state
machine, and parses P-DATA in place (``dul.py``). Data set fragments of a C-STORE go straight to the spool,
those of other messages into a bounded buffer (``dimse.py``); command sets are read and written by
``command.py``. What is served is not known here: an application entity is given what makes the services of each
association (``interfaces.py``; ours are ``pacs.dimse.services``).

Kept from pynetdicom: AE, association negotiation, the state machine, event handlers, primitives, TLS.
Replaced by subclasses: socket reading and writing, the DUL's thread, DIMSE message coding, the service
loops (by those of ``Services``), and the classes that name each other (server, request handler, ``AE.associate``).

``tests/wire/test_private_names.py`` fails when a pynetdicom release moves what this rests on.
"""

"""What an SCU sends on its association, sorted: requests, cancels, and answers to C-STOREs of a C-GET."""

from __future__ import annotations

from collections import deque

from pacs.conformance.wire.association import Association
from pacs.conformance.wire.message import CommandField, Message


class Inbox:
    """Takes the messages of an SCU whenever they come.

    A request waits its turn; a C-CANCEL counts for the request it names, being served or waiting. What is held
    against the SCU is said in words.
    """

    def __init__(self, association: Association) -> None:
        self._association = association
        self._serving: Message | None = None
        self._waiting: deque[Message] = deque()
        self._cancelled: set[int] = set()
        #: The requests and C-CANCELs that came, in order.
        self.requests: list[Message] = []
        #: Requests that came before the final response to the one before.
        self.too_early: list[str] = []
        #: C-STOREs sent in a C-GET, each with the response to it.
        self.answered: list[tuple[Message, Message]] = []
        #: Responses to nothing that was asked.
        self.unasked: list[str] = []

    def next_request(self) -> Message:
        """The next request in order, from here on the one being served.

        Raises:
            AssociationEnded: there is none, and none will come.
        """
        if self._serving is not None:
            self._cancelled.discard(self._serving.message_id or 0)
            self._serving = None
        while not self._waiting:
            self._take()
        self._serving = self._waiting.popleft()
        return self._serving

    def is_cancelled(self) -> bool:
        """Whether a C-CANCEL of the request being served has come (PS3.7 9.3.2.3).

        Raises:
            AssociationEnded: the SCU ended it instead.
        """
        self.take_all()
        return self._serving is not None and self._serving.message_id in self._cancelled

    def take_all(self) -> None:
        """Take what has come, without waiting for more.

        Raises:
            AssociationEnded: the SCU ended it.
        """
        while self._association.has_input():
            self._take()

    def response_to(self, sub_operation: Message) -> Message:
        """Wait for the response to a C-STORE that was sent in a C-GET (PS3.4 C.4.3.3).

        Raises:
            AssociationEnded: the SCU ended it instead, or is silent.
        """
        while True:
            response = self._take(sub_operation)
            if response is not None:
                self.answered.append((sub_operation, response))
                return response

    def _take(self, awaited: Message | None = None) -> Message | None:
        """Take one message: it is returned if it is the response awaited, else put where it belongs."""
        message = self._association.receive()
        if message.is_response:
            if awaited is not None and message.responds_to == awaited.message_id:
                return message
            self.unasked.append(f"{message.name} to Message ID {message.responds_to}")
            return None
        self.requests.append(message)
        if message.command.get("CommandField") == CommandField.C_CANCEL_RQ:
            self._cancel(message)
            return None
        if self._serving is not None:
            self.too_early.append(f"{message.name} during {self._serving.name}")
        self._waiting.append(message)
        return None

    def _cancel(self, message: Message) -> None:
        """A C-CANCEL of a request that is over, or was never made, cancels nothing."""
        outstanding = [*self._waiting, self._serving] if self._serving else self._waiting
        number = message.responds_to
        if number is not None and number in {one.message_id for one in outstanding if one}:
            self._cancelled.add(number)

"""Requests and their responses: the asking half and the answering half."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import attrs

from catga.codecs import WireType, read_envelope, write_envelope
from catga.engine.kept import KeptResponses, Response
from catga.engine.publishing import Publisher, receipt_or_raise
from catga.engine.wording import words_of
from catga.errors import (
    CatgaError,
    CodecError,
    ConfigurationError,
    DecodeError,
    NoResponders,
    PayloadTooLarge,
    RemoteError,
    RequestTimeout,
    TransportError,
)
from catga.ground.clock import Clock, Timer
from catga.ground.ids import new_message_id
from catga.ground.tasks import TaskOwner
from catga.model.envelope import Envelope
from catga.model.qos import QualityOfService
from catga.model.subject import Kind, Subject, parse_subject
from catga.spi import (
    Codec,
    Completion,
    Delivery,
    Outgoing,
    Receipt,
    Source,
    Subscription,
    Transport,
)

__all__ = ["Requester", "Responder"]

_log = logging.getLogger("catga")
_RESPONSE = "catga.response"
_ERROR = "catga.error"
_POLL = 5.0
_PAUSE = 0.5
_BATCH = 1000
_NOBODY = (None, 0.0)
_RECORD_ROOM = 1024
"""Bytes that a broker's headers around a kept response may take."""


@attrs.frozen
class _RemoteFailure:
    """What travels when a handler failed."""

    error: str
    message: str


class Responder:
    """Sends what a request's handler returned, or how it failed, to whoever asked."""

    def __init__(
        self,
        publisher: Publisher,
        codec: Codec,
        clock: Clock,
        service: str,
        limit: Callable[[], int | None],
    ) -> None:
        self._publisher = publisher
        self._codec = codec
        self._clock = clock
        self._service = service
        self._limit = limit

    def respond(
        self, wire: WireType, request: Envelope, response: Any, error: BaseException | None
    ) -> None:
        """Hand the response over; the requester's own deadline guards against its loss.

        What cannot be written, or is over the broker's limit, is told instead of the response.
        """
        subject = _reply_subject(request)
        if subject is None:
            _log.warning("the request %s carries no usable reply address", request.id)
            return
        if error is None:
            try:
                data = wire.encode_response(response)
            except CatgaError as failure:
                error = failure
        if error is not None:
            self._publisher.post(self._failure(subject, request, error))
            return
        self._publisher.post(
            self._outgoing(subject, request, _RESPONSE, data),
            otherwise=lambda refused: self._failure(subject, request, refused),
        )

    def answer(self, wire: WireType, request: Envelope, response: Any) -> Outgoing | None:
        """Return the response as it will be sent, to be kept before that.

        What cannot be written, or is too large to be kept, is told instead of the response.
        """
        subject = _reply_subject(request)
        if subject is None:
            _log.warning("the request %s carries no usable reply address", request.id)
            return None
        try:
            data = wire.encode_response(response)
        except CatgaError as failure:
            return self._failure(subject, request, failure)
        outgoing, limit = self._outgoing(subject, request, _RESPONSE, data), self._limit()
        if limit is not None and len(outgoing.body) + _RECORD_ROOM > limit:
            refused = PayloadTooLarge(len(outgoing.body) + _RECORD_ROOM, limit)
            return self._failure(subject, request, refused)
        return outgoing

    def send(self, outgoing: Outgoing) -> None:
        """Hand a response over that is kept by now."""
        self._publisher.post(outgoing)

    def failure(self, request: Envelope, error: BaseException) -> Outgoing | None:
        """Return how it failed as it will be told, to be kept before that; None: nobody asked."""
        subject = _reply_subject(request) if request.reply_to else None
        return None if subject is None else self._failure(subject, request, error)

    def again(self, request: Envelope, body: bytes) -> Outgoing | None:
        """Return what was kept, as it will be told to who asks now; None: nobody asked."""
        subject = _reply_subject(request) if request.reply_to else None
        if subject is None:
            return None
        return Outgoing(subject, body, new_message_id(), QualityOfService.AT_MOST_ONCE)

    def told(self, body: bytes) -> RemoteError | None:
        """Return the error that a kept failure tells of; None when it cannot be read."""
        try:
            return _read_failure(self._codec, read_envelope(body))
        except CodecError:
            return None

    def _failure(self, subject: Subject, request: Envelope, error: BaseException) -> Outgoing:
        failure = _RemoteFailure(type(error).__name__, words_of(error))
        return self._outgoing(subject, request, _ERROR, self._codec.encode(failure))

    def _outgoing(self, subject: Subject, request: Envelope, kind: str, data: bytes) -> Outgoing:
        envelope = Envelope(
            id=new_message_id(),
            type=kind,
            source=self._service,
            time=self._clock.now(),
            data=data,
            qos=QualityOfService.AT_MOST_ONCE,
            correlation_id=request.id,
        )
        return Outgoing(
            subject, write_envelope(envelope), envelope.id, QualityOfService.AT_MOST_ONCE
        )


def _read_failure(codec: Codec, envelope: Envelope) -> RemoteError:
    failure = codec.decode(envelope.data, _RemoteFailure)
    return RemoteError(failure.error, failure.message)


def _reply_subject(request: Envelope) -> Subject | None:
    try:
        subject = parse_subject(request.reply_to or "")
    except ConfigurationError:
        return None
    return subject if subject.kind is Kind.REPLY else None


class Requester:
    """Waits for the responses to this bus's requests on one reply subscription."""

    def __init__(
        self,
        transport: Transport,
        codec: Codec,
        clock: Clock,
        tasks: TaskOwner,
        namespace: str,
        instance: str,
    ) -> None:
        self._transport = transport
        self._codec = codec
        self._clock = clock
        self._tasks = tasks
        self._namespace = namespace
        self._instance = instance
        self._tokens = itertools.count(1)
        self._waiting: dict[str, tuple[Response, float]] = {}
        self._alarm: Timer | None = None
        self._alarm_at = math.inf
        self._kept = KeptResponses(transport, clock, tasks, self._read)
        self._subscription: Subscription | None = None
        self._starting = asyncio.Lock()
        self._closed = False

    async def start(self) -> None:
        """Open the reply subscription, once, when the first request is made."""
        if self._subscription is not None:
            return
        async with self._starting:
            if self._subscription is None:
                self._subscription = await self._transport.subscribe(
                    Source(namespace=self._namespace, group=self._instance, reply=True)
                )
                self._tasks.spawn(self._listen(self._subscription), "listen for responses")

    async def ask(
        self,
        publisher: Publisher,
        make: Callable[[Subject], Awaitable[Outgoing]],
        seconds: float,
    ) -> bytes:
        """Publish the request that `make` builds for a reply address; return the response's data.

        Raises what making and publishing raise, `RemoteError`, `NoResponders`, `DecodeError`, and
        `RequestTimeout` after `seconds`.
        """
        await self.start()
        token = str(next(self._tokens))
        response: Response = asyncio.get_running_loop().create_future()
        due = self._clock.monotonic() + seconds
        self._waiting[token] = response, due
        if due < self._alarm_at:
            self._wake_at(due, seconds)
        try:
            outgoing = await make(Subject(self._namespace, Kind.REPLY, token, self._instance))
            receipt = await _publish(publisher, outgoing, response)
            if receipt is not None and outgoing.qos is QualityOfService.EXACTLY_ONCE:
                key = _key_of(outgoing)
                self._kept.look_for(key, response, seconds, repeated=receipt.duplicate)
            data = await response
            if data is None:
                raise RequestTimeout(_timeout_words(outgoing, receipt, seconds))
            return data
        finally:
            self._waiting.pop(token, None)
            self._kept.forget(response)
            if not response.cancel() and not response.cancelled():
                response.exception()  # looked at, also when publishing itself failed

    def _wake_at(self, due: float, seconds: float) -> None:
        """Have one timer for the request that ends first: what is answered leaves it alone."""
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = due
        self._alarm = self._clock.call_later(seconds, self._expire)

    def _expire(self) -> None:
        """Tell those whose time is over, and wait for the next."""
        now = self._clock.monotonic()
        self._alarm, self._alarm_at = None, math.inf
        for response, due in self._waiting.values():
            if due <= now and not response.done():
                response.set_result(None)
            elif due < self._alarm_at and not response.done():
                self._alarm_at = due
        if self._alarm_at < math.inf:
            self._wake_at(self._alarm_at, self._alarm_at - now)

    async def close(self) -> None:
        """Fail what still waits."""
        self._closed = True
        if self._alarm is not None:
            self._alarm.cancel()
        for future, _ in self._waiting.values():
            if not future.done():
                future.set_exception(TransportError("the bus was closed while a request waited"))
        self._waiting.clear()
        if self._subscription is not None:
            await self._subscription.close()

    async def _listen(self, subscription: Subscription) -> None:
        while not self._closed:  # a closed subscription answers at once, and would for ever
            try:
                deliveries = await subscription.receive(_BATCH, _POLL)
            except TransportError as error:
                _log.warning("listening for responses failed: %s", error)
                await self._clock.sleep(_PAUSE)
                continue
            for delivery in deliveries:
                self._arrived(delivery)

    def _arrived(self, delivery: Delivery) -> None:
        future, _ = self._waiting.pop(delivery.subject.type, _NOBODY)
        if future is None or future.done():
            return  # too late, or a second response
        if delivery.no_responders:
            future.set_exception(NoResponders("nobody listens for this request"))
            return
        self._read(future, delivery.body, delivery.headers)

    def _read(
        self,
        future: Response,
        body: bytes,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Answer who waits with a response as it was sent, or as it was kept."""
        if future.done():
            return
        try:
            envelope = read_envelope(body, headers)
            if envelope.type == _ERROR:
                future.set_exception(_read_failure(self._codec, envelope))
            elif envelope.type == _RESPONSE:
                future.set_result(envelope.data)
            else:
                raise DecodeError(f"a {envelope.type!r} came as a response")
        except CodecError as error:
            future.set_exception(error)


async def _publish(publisher: Publisher, outgoing: Outgoing, response: Response) -> Receipt | None:
    """Publish a request for as long as its response is waited for; None when that ended first."""
    publishing = publisher.publish(outgoing)
    if outgoing.qos > QualityOfService.AT_MOST_ONCE:
        publishing = asyncio.ensure_future(publishing)
        try:
            await asyncio.wait((publishing, response), return_when=asyncio.FIRST_COMPLETED)
            if not publishing.done():
                return None
        finally:
            publishing.cancel()
    return receipt_or_raise(await publishing)


def _key_of(request: Outgoing) -> Completion:
    """Return the record under which the group that answers keeps its response."""
    subject = request.subject
    return Completion(subject.namespace, subject.group, subject.type, request.message_id)


def _timeout_words(outgoing: Outgoing, receipt: Receipt | None, seconds: float) -> str:
    subject = outgoing.subject
    words = f"{subject.group!r} did not answer {subject.type} within {seconds:g} s"
    if outgoing.qos is QualityOfService.AT_MOST_ONCE:
        return words
    if receipt is None:
        return f"{words}; the outcome is unknown: the server did not even say that it is stored"
    if receipt.duplicate:
        return f"{words}; this request had been stored before, and no response to it is kept yet"
    return f"{words}; the outcome is unknown: the request is stored and may still be handled"

"""What is stored from outside may say in its headers what else only the server says."""

from __future__ import annotations

import asyncio

import pytest
from nats_kit import opened

from catga.spi import Completion, EffectKey, Found, Kind, QualityOfService, Subject
from catga_nats.inbox import record_subject
from catga_nats.testing import NatsServer
from catga_nats.transactions import effect_subject

TWICE = QualityOfService.EXACTLY_ONCE
_SPOOFS = (
    {"Status": "200"},
    {"Status": "204", "Nats-Num-Pending": "0"},
    {"Status": "404"},
    {"Status": "503", "Description": "No Responders"},
    {"Nats-Sequence": "1"},
)


def test_a_letter_is_read_whatever_its_headers_say_and_so_are_those_behind_it(
    server: NatsServer,
) -> None:
    async def law() -> None:
        async with opened(server.url) as here:
            await here.prepare(here.source())
            js = here.client.jetstream()
            subject = Subject(here.namespace, Kind.DEAD, "Order", "billing")
            for number, headers in enumerate((None, *_SPOOFS, None)):
                await js.publish(subject.text, b"%d" % number, headers=headers)
            store = here.transport.dead_letters
            assert store is not None
            found = await store.read(subject)
            bodies = [b"%d" % number for number in range(len(_SPOOFS) + 2)]
            assert [letter.body for letter in found] == bodies
            assert [int(letter.sequence) for letter in found] == [*range(1, len(bodies) + 1)]

    asyncio.run(law())


@pytest.mark.parametrize("headers", _SPOOFS, ids=str)
def test_a_record_and_a_key_are_found_whatever_their_headers_say(
    server: NatsServer, headers: dict[str, str]
) -> None:
    async def law() -> None:
        async with opened(server.url) as here:
            await here.prepare(here.source(), qos=TWICE)
            js = here.client.jetstream()
            record = Completion(here.namespace, "billing", "Order", "id")
            await js.publish(record_subject(record), b"response", headers=headers)
            inbox, effects = here.transport.inbox, here.transport.effects
            assert inbox is not None
            assert await inbox.responses([record]) == [b"response"]
            if effects is not None:
                key = EffectKey(here.namespace, "billing", "Order", "key")
                await js.publish(effect_subject(key), b"value", headers=headers)
                assert await effects.read([key]) == [Found(b"value", "1")]

    asyncio.run(law())

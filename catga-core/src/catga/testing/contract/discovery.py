"""Discovery: who is there is the same to everybody, an id has one owner, a lease has one end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable

import attrs

from catga.engine.discovery import Discovery
from catga.errors import CapabilityError, ConfigurationError, LeaseLost, NodeTaken, TransportError
from catga.ground.ids import new_instance
from catga.model.capability import Capability
from catga.model.node import Node, NodeRecord
from catga.spi import Mode
from catga.testing.contract.nodes import LASTING, ending, listed, member, node, until_done
from catga.testing.harness import Ability, law
from catga.testing.raising import raises
from catga.testing.stage import Stage

__all__ = ["DiscoveryContract"]

_NODES = [Capability.DISCOVERY]


class DiscoveryContract:
    """Laws of registering, of leases, and of what `nodes()` shows."""

    @law()
    async def test_discovery_is_there_or_refused(self, stage: Stage) -> None:
        """Nodes: a bus that cannot be one refuses to start; it does not run unseen."""
        bus = stage.bus(consume=False, node=True)
        if Capability.DISCOVERY in stage.anchor.capabilities:
            async with stage.running(bus):
                (found,) = await stage.wait(bus.discovery.nodes())
                assert (found.id, found.service) == (getattr(bus.discovery.node, "id", ""), "law")
            return
        with raises(CapabilityError):
            stage.anchor.node_store(stage.namespace, LASTING, Mode.CREATE)
        with raises(CapabilityError, naming=Capability.DISCOVERY.value):
            async with stage.running(bus):
                pass
        looking = stage.bus(consume=False)
        async with stage.running(looking):
            with raises(CapabilityError, naming=Capability.DISCOVERY.value):
                _ = looking.discovery

    @law(needs=_NODES)
    async def test_the_view_is_the_same_in_every_process(self, stage: Stage) -> None:
        """Nodes: every reader sees every node, as it described itself, with the same times."""
        described = node("one", address="http://10.0.0.1:80", load=0.5, metadata={"zone": "b"})
        members = [member(stage, await stage.transport()) for _ in range(3)]
        await stage.wait(members[0].register(described))
        await stage.wait(members[1].register(node("two", metadata={"city": "Zürich"})))
        views = [await stage.wait(each.nodes()) for each in members]
        assert views[0] == views[1] == views[2]
        one, two = views[0]
        assert (one.id, two.id, two.metadata) == ("one", "two", {"city": "Zürich"})
        assert one == attrs.evolve(described, started=one.started, last_seen=one.last_seen)
        assert abs((one.last_seen - stage.clock.now()).total_seconds()) < 60.0
        await stage.wait(members[0].heartbeat(load=0.75, metadata={"zone": "c"}))
        (one, _) = await stage.wait(members[2].nodes())
        assert (one.load, one.metadata) == (0.75, {"zone": "c"})

    @law(needs=_NODES)
    async def test_a_newcomer_sees_who_registered_before(self, stage: Stage) -> None:
        """Nodes: what exists is loaded; nobody has to be there when others come."""
        first = member(stage, await stage.transport())
        assert await stage.wait(first.nodes()) == ()
        names = [f"n-{number:02}" for number in range(40)]
        for name in names:
            await stage.wait(member(stage, stage.anchor).register(node(name)))
        newcomer = member(stage, await stage.transport())
        assert await stage.wait(listed(newcomer)) == names == await stage.wait(listed(first))

    @law(needs=[*_NODES, Ability.RESTART])
    async def test_nodes_are_seen_after_a_restart_of_the_broker(self, stage: Stage) -> None:
        """Nodes: a killed and restarted broker knows who registered before; they go on."""
        transport = await stage.transport()
        members = [member(stage, transport) for _ in range(3)]
        for number, each in enumerate(members):
            await stage.wait(each.register(node(f"n-{number}")))
        before = await stage.wait(members[0].nodes())
        assert stage.harness.restart is not None
        await stage.harness.restart()
        newcomer = member(stage, await stage.transport())
        assert await stage.wait(newcomer.nodes()) == before
        for each in members:
            await until_done(stage, each.heartbeat)
        await stage.wait(members[0].deregister())
        assert await stage.wait(listed(newcomer)) == ["n-1", "n-2"]

    @law(needs=_NODES)
    async def test_no_ghost_is_seen_after_its_lease(self, stage: Stage) -> None:
        """Nodes: a node that died is there until its lease ends, and for no reader after it."""
        ttl = ending(stage)
        lasting = member(stage, stage.anchor)
        await stage.wait(lasting.register(node("lives")))
        begun = stage.clock.monotonic()
        await stage.wait(member(stage, await stage.transport(), ttl).register(node("dies")))
        until = stage.clock.monotonic() + ttl
        seen = await stage.wait(listed(lasting))
        assert "dies" in seen or stage.clock.monotonic() - begun > ttl, "it is there at first"
        while stage.clock.monotonic() <= until + 0.01:
            await stage.pass_time(0.1)
        for reader in (lasting, member(stage, await stage.transport(), ttl)):
            assert await stage.wait(listed(reader)) == ["lives"]
        await stage.wait(lasting.heartbeat())
        assert await stage.wait(listed(lasting)) == ["lives"]

    @law(needs=_NODES)
    async def test_two_nodes_cannot_hold_one_id(self, stage: Stage) -> None:
        """Nodes: the second is refused, and the first does not notice."""
        first = member(stage, await stage.transport())
        second = member(stage, await stage.transport())
        await stage.wait(first.register(node("one", address="here")))
        with raises(NodeTaken, naming="one"):
            await stage.wait(second.register(node("one", address="there")))
        await stage.wait(first.heartbeat())
        (found,) = await stage.wait(second.nodes())
        assert found.address == "here"
        await stage.wait(second.register(node("two")))
        assert await stage.wait(listed(first)) == ["one", "two"]

    @law(needs=_NODES)
    async def test_of_many_who_want_one_id_at_once_one_gets_it(self, stage: Stage) -> None:
        """Nodes: between looking and writing nobody slips in."""
        transports = [await stage.transport() for _ in range(3)]
        for name in ("one", "two", "three"):
            members = [member(stage, transports[number % 3]) for number in range(9)]
            tries = [_try_to_register(each, name) for each in members]
            won = await stage.wait(_gather(tries))
            assert won.count(True) == 1, f"{won.count(True)} have it"
            await stage.wait(members[won.index(True)].heartbeat())

    @law(needs=_NODES)
    async def test_a_stale_owners_renewal_is_refused(self, stage: Stage) -> None:
        """Nodes: whose lease has ended cannot renew it, nor take the id from its new owner, nor
        take that one away."""
        ttl = ending(stage)
        store = (await stage.transport()).node_store(stage.namespace, LASTING, Mode.CREATE)
        stale = NodeRecord(node("one", address="stale"), new_instance(), ttl)
        begun = stage.clock.monotonic()
        assert await stage.wait(store.register(stale))
        heir = member(stage, await stage.transport())
        while not await stage.wait(_try_to_register(heir, "one")):
            await stage.pass_time(0.1)
        assert stage.clock.monotonic() - begun >= ttl * 0.9, "the lease had not ended"
        for write in (store.renew, store.deregister, store.register):
            assert not await stage.wait(write(stale))
        (found,) = await stage.wait(heir.nodes())
        assert found.address == "", "the heir has it"
        await stage.wait(heir.heartbeat())

    @law(needs=_NODES)
    async def test_a_lease_that_has_ended_is_not_renewed(self, stage: Stage) -> None:
        """Nodes: who was gone for longer than its lease registers again, and knows it."""
        ttl = ending(stage)
        transport = await stage.transport()
        store = transport.node_store(stage.namespace, ttl, Mode.CREATE)
        record = NodeRecord(node("one"), new_instance(), ttl)
        assert await stage.wait(store.register(record))
        late = member(stage, transport, ttl)
        await stage.wait(late.register(node("two")))
        until = stage.clock.monotonic() + ttl
        while stage.clock.monotonic() <= until + 0.01:
            await stage.pass_time(0.1)
        assert late.lease_until <= stage.clock.monotonic()
        assert not await stage.wait(store.renew(record))
        with raises(LeaseLost, naming="two"):
            await stage.wait(late.heartbeat())
        assert await stage.wait(store.register(record)), "the id is free"
        await stage.wait(late.register(node("two")))

    @law(needs=_NODES)
    async def test_an_id_is_free_once_its_owner_has_left(self, stage: Stage) -> None:
        """Nodes: who leaves is gone at once, and the next one need not wait."""
        first = member(stage, await stage.transport())
        second = member(stage, await stage.transport())
        await stage.wait(first.register(node("one", address="first")))
        await stage.wait(first.deregister())
        await stage.wait(first.deregister())
        assert await stage.wait(second.nodes()) == ()
        with raises(ConfigurationError):
            await stage.wait(first.heartbeat())
        await stage.wait(second.register(node("one", address="second")))
        (found,) = await stage.wait(first.nodes())
        assert found.address == "second"

    @law(needs=[*_NODES, Ability.CUT])
    async def test_what_was_written_without_an_answer_may_be_written_again(
        self, stage: Stage
    ) -> None:
        """Nodes: an answer that was lost makes nobody a stranger to its own id."""
        proxy, url = await stage.proxy()
        shaky = member(stage, await stage.transport(url))
        eye = member(stage, stage.anchor)
        sprung = proxy.lose_reply(b"needle-1")
        with raises(TransportError):
            await stage.wait(shaky.register(node("one", metadata={"mark": "needle-1"})))
        assert sprung.is_set()
        proxy.heal()
        await until_done(stage, lambda: shaky.register(node("one", metadata={"mark": "2"})))
        sprung = proxy.lose_reply(b"needle-3")
        with raises(TransportError):
            await stage.wait(shaky.heartbeat(metadata={"mark": "needle-3"}))
        assert sprung.is_set()
        proxy.heal()
        (found,) = await stage.wait(eye.nodes())
        assert found.metadata == {"mark": "needle-3"}, "it was stored"
        await until_done(stage, shaky.heartbeat)
        await stage.wait(shaky.deregister())
        assert await stage.wait(eye.nodes()) == ()

    @law(needs=_NODES)
    async def test_namespaces_do_not_see_each_other(self, stage: Stage) -> None:
        """Nodes: an id may be taken once in each; what is removed of one stays in the other."""
        other = f"law-{new_instance()}"
        stage.namespaces.append(other)
        here, there = member(stage, stage.anchor), member(stage, stage.anchor, namespace=other)
        await stage.wait(here.register(node("one", address="here")))
        await stage.wait(there.register(node("one", address="there")))
        assert [each.address for each in await stage.wait(here.nodes())] == ["here"]
        await stage.wait(stage.anchor.remove(stage.namespace))
        assert await stage.wait(here.nodes()) == ()
        assert [each.address for each in await stage.wait(there.nodes())] == ["there"]

    @law(needs=_NODES)
    async def test_a_bus_is_a_node_while_it_runs(self, stage: Stage) -> None:
        """Nodes: it registers when it has started, renews its lease, and leaves when it drains."""
        settings: dict[str, object] = {"node_ttl": LASTING, "node_heartbeat": stage.scaled(0.1)}
        bus = stage.bus(consume=False, node=Node(address="here"), settings=settings)
        eye = member(stage, stage.anchor)
        async with stage.running(bus):
            (found,) = await stage.wait(eye.nodes())
            assert (found.service, found.address) == ("law", "here")
            assert bus.discovery.node is not None
            assert bus.discovery.node.id == found.id
            await stage.wait(bus.discovery.heartbeat(load=0.5))
            (loaded,) = await stage.wait(eye.nodes())
            until = stage.clock.monotonic() + stage.patience(20.0)
            while (now := (await stage.wait(eye.nodes()))[0]).last_seen <= loaded.last_seen:
                assert stage.clock.monotonic() < until, "its lease is not renewed"
                await stage.pass_time(0.1)
            assert now.load == 0.5
            await stage.wait(bus.drain())
            assert await stage.wait(eye.nodes()) == ()
        assert await stage.wait(eye.nodes()) == ()

    @law(needs=_NODES)
    async def test_a_bus_waits_for_a_dead_namesake_and_refuses_beside_a_living_one(
        self, stage: Stage
    ) -> None:
        """Nodes: a process that is started again under its id gets it when the lease has ended;
        beside a living one it does not start."""
        ttl = ending(stage)
        await stage.wait(member(stage, stage.anchor, ttl).register(node("one", address="dead")))
        settings: dict[str, object] = {"node_ttl": LASTING, "node_heartbeat": stage.scaled(0.1)}
        heir = stage.bus(consume=False, node=Node(id="one"), settings=settings)
        async with stage.running(heir):
            (found,) = await stage.wait(heir.discovery.nodes())
            assert found.address == ""
            second = stage.bus(
                consume=False, node=Node(id="one"), settings={**settings, "node_ttl": ttl}
            )
            with raises(NodeTaken, naming="one"):
                async with stage.running(second):
                    pass
            assert await stage.wait(listed(heir.discovery)) == ["one"]


async def _gather(tries: Iterable[Awaitable[bool]]) -> list[bool]:
    return await asyncio.gather(*tries)


async def _try_to_register(discovery: Discovery, name: str) -> bool:
    try:
        await discovery.register(node(name))
    except NodeTaken:
        return False
    return True

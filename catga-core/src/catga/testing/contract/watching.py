"""Watching: what happens among the nodes is told, once, soon, and whatever happens to hints."""

from __future__ import annotations

from catga.errors import LeaseLost
from catga.model.capability import Capability
from catga.model.node import ChangeKind
from catga.testing.contract.nodes import (
    LASTING,
    Reader,
    ending,
    grace,
    listed,
    member,
    node,
    until_done,
    watching,
)
from catga.testing.harness import Ability, law
from catga.testing.stage import Stage

__all__ = ["WatchingContract"]

_NODES = [Capability.DISCOVERY]
_TRIES = 5


class WatchingContract:
    """Laws of what a watch tells."""

    @law(needs=_NODES)
    async def test_who_joins_and_who_leaves_is_told_at_once(self, stage: Stage) -> None:
        """Nodes: not when somebody looks again some time, and not at the end of a lease."""
        here = member(stage, await stage.transport())
        await stage.wait(here.register(node("before")))
        async with watching(stage, member(stage, await stage.transport())) as reader:
            await reader.read()
            assert reader.told == [("joined", "before")], "what is there is told first"
            for number in range(2):
                there = member(stage, await stage.transport())
                await stage.wait(there.register(node(f"n-{number}", load=0.5)))
                joined = await reader.hear(ChangeKind.JOINED, f"n-{number}", grace(stage) + 2.0)
                assert joined.node.load == 0.5
                await stage.wait(there.deregister())
                await reader.hear(ChangeKind.LEFT, f"n-{number}", grace(stage) + 2.0)
            await stage.wait(here.deregister())
            await reader.hear(ChangeKind.LEFT, "before", grace(stage) + 2.0)
            assert len(reader.told) == 6, "each once"
            assert reader.watch.nodes == ()

    @law(needs=_NODES)
    async def test_a_crash_is_told_when_the_lease_ends(self, stage: Stage) -> None:
        """Nodes: not before, or a slow node would be called dead; and once."""
        ttl = ending(stage)
        lasting = member(stage, stage.anchor)
        await stage.wait(lasting.register(node("lives")))
        async with watching(stage, member(stage, await stage.transport())) as reader:
            for number in range(_TRIES):
                name = f"n-{number}"
                begun = stage.clock.monotonic()
                await stage.wait(member(stage, await stage.transport(), ttl).register(node(name)))
                ends = stage.clock.monotonic() + ttl
                while ("joined", name) not in reader.told and stage.clock.monotonic() < ends:
                    await reader.read(ends - stage.clock.monotonic())
                if ("joined", name) in reader.told:  # else this machine stood still meanwhile
                    break
            await reader.hear(ChangeKind.EXPIRED, name, LASTING / 2)
            now = stage.clock.monotonic()
            assert begun + ttl * 0.9 <= now <= ends + ttl * 0.5 + grace(stage)
            await reader.read(ttl)
        assert reader.told == [("joined", "lives"), ("joined", name), ("expired", name)]

    @law(needs=_NODES)
    async def test_nothing_is_told_while_heartbeats_arrive(self, stage: Stage) -> None:
        """Nodes: who renews its lease in time is there without a break, however often it ends."""
        for number in range(_TRIES):
            if await _steady(stage, f"n-{number}", stage.scaled(4.0) * (number + 1)):
                return
        raise AssertionError("this machine stood still again and again")

    @law(needs=_NODES)
    async def test_what_a_node_says_of_itself_is_told_when_it_changes(self, stage: Stage) -> None:
        """Nodes: load and metadata of a heartbeat are told; a heartbeat alone is not."""
        busy = member(stage, await stage.transport())
        await stage.wait(busy.register(node("one")))
        async with watching(stage, member(stage, await stage.transport(), ending(stage))) as reader:
            await stage.wait(busy.heartbeat())
            await stage.wait(busy.heartbeat(load=2.5))
            updated = await reader.hear(ChangeKind.UPDATED, "one")
            assert (updated.node.load, updated.node.metadata) == (2.5, {})
            await stage.wait(busy.heartbeat(metadata={"state": "tired"}))
            updated = await reader.hear(ChangeKind.UPDATED, "one")
            assert (updated.node.load, updated.node.metadata) == (2.5, {"state": "tired"})
            assert reader.watch.nodes[0].load == 2.5
            await stage.wait(busy.heartbeat(load=2.5))
            await reader.read(ending(stage))
        assert reader.told == [("joined", "one"), ("updated", "one"), ("updated", "one")]

    @law(needs=_NODES)
    async def test_a_slow_reader_is_told_the_net_of_it(self, stage: Stage) -> None:
        """Nodes: what waits for it is bounded by the nodes there are, and it misses nobody."""
        async with watching(stage, member(stage, stage.anchor)) as reader:
            members = {f"n-{number}": member(stage, stage.anchor) for number in range(5)}
            for turn in range(6):
                for name, each in members.items():
                    await stage.wait(each.register(node(name, load=float(turn))))
                    await stage.wait(each.deregister())
            await stage.wait(members["n-3"].register(node("n-3", load=7.0)))
            joined = await reader.hear(ChangeKind.JOINED, "n-3", grace(stage) + 2.0)
            assert (reader.told, joined.node.load) == ([("joined", "n-3")], 7.0)

    @law(needs=_NODES)
    async def test_a_successor_is_told_apart_from_who_had_the_id(self, stage: Stage) -> None:
        """Nodes: another process under the same id is another node: the first is gone."""
        async with watching(stage, member(stage, stage.anchor)) as reader:
            first = member(stage, await stage.transport())
            await stage.wait(first.register(node("one", address="first")))
            await reader.hear(ChangeKind.JOINED, "one", grace(stage) + 2.0)
            await stage.wait(first.deregister())
            second = member(stage, await stage.transport())
            await stage.wait(second.register(node("one", address="second")))
            joined = await reader.hear(ChangeKind.JOINED, "one", grace(stage) + 2.0)
            assert joined.node.address == "second"
            gone = reader.changes[-2]
            assert gone.kind in {ChangeKind.LEFT, ChangeKind.EXPIRED}
            assert gone.node.address == "first"

    @law(needs=_NODES)
    async def test_a_reader_that_waits_is_woken_when_the_watch_ends(self, stage: Stage) -> None:
        """Nodes: nobody has to cancel it."""
        watch = member(stage, stage.anchor).watch()
        await stage.wait(watch.__aenter__())

        async def read() -> list[str]:
            return [change.node.id async for change in watch]

        reading = stage.tasks.spawn(read(), "a reader")
        await stage.wait(member(stage, stage.anchor).register(node("one")))
        await stage.pass_time(0.5)
        await stage.wait(watch.__aexit__(None, None, None))
        await stage.until(reading.done)
        assert set(reading.result()) <= {"one"}

    @law(needs=[*_NODES, Ability.CUT])
    async def test_a_node_that_returns_from_a_partition_is_one_node(self, stage: Stage) -> None:
        """Nodes: it is gone when its lease has ended, and comes back as who it was."""
        ttl = ending(stage)
        proxy, url = await stage.proxy()
        away = member(stage, await stage.transport(url), ttl)
        async with watching(stage, member(stage, stage.anchor, ttl)) as reader:
            await stage.wait(away.register(node("one")))
            stage.tasks.spawn(away.keep(), "heartbeats")
            (before,) = await stage.wait(member(stage, stage.anchor).nodes())
            proxy.refuse()
            proxy.cut()
            await reader.hear(ChangeKind.EXPIRED, "one")
            proxy.heal()
            await reader.hear(ChangeKind.JOINED, "one")
            (after,) = reader.watch.nodes
            assert (after.id, after.started) == (before.id, before.started)
            await stage.wait(away.deregister())
            assert await stage.wait(listed(away)) == []

    @law(needs=[*_NODES, Ability.CUT])
    async def test_a_short_cut_is_not_seen(self, stage: Stage) -> None:
        """Nodes: a connection that is back before the lease ends changes nothing."""
        proxy, url = await stage.proxy()
        away = member(stage, await stage.transport(url))
        async with watching(stage, member(stage, stage.anchor, ending(stage))) as reader:
            await stage.wait(away.register(node("one")))
            await reader.hear(ChangeKind.JOINED, "one")
            proxy.cut()
            await until_done(stage, away.heartbeat)
            await reader.read(ending(stage))
        assert reader.told == [("joined", "one")]

    @law(needs=[*_NODES, Ability.CUT])
    async def test_what_happened_while_a_watch_was_cut_off_is_told(self, stage: Stage) -> None:
        """Nodes: a hole in the hints only delays; and who cannot see says nobody is gone."""
        proxy, url = await stage.proxy()
        here = {name: member(stage, stage.anchor) for name in ("goes", "stays", "comes")}
        for name in ("goes", "stays"):
            await stage.wait(here[name].register(node(name)))
        cut_off = member(stage, await stage.transport(url), ending(stage))
        async with watching(stage, cut_off) as reader:
            await reader.read()
            assert reader.told == [("joined", "goes"), ("joined", "stays")]
            proxy.refuse()
            proxy.cut()
            await stage.wait(here["goes"].deregister())
            await stage.wait(here["comes"].register(node("comes")))
            await reader.read(ending(stage))
            assert len(reader.told) == 2, "it sees nothing"
            assert reader.watch.trouble, "and knows it"
            proxy.heal()
            await reader.hear(ChangeKind.JOINED, "comes")
            assert not reader.watch.trouble
        assert reader.told[2:] == [("left", "goes"), ("joined", "comes")]

    @law(needs=[*_NODES, Ability.RESTART])
    async def test_a_watch_goes_on_after_a_restart_of_the_broker(self, stage: Stage) -> None:
        """Nodes: it is not deaf for long, and a restart is nobody's end."""
        here = member(stage, await stage.transport())
        await stage.wait(here.register(node("before")))
        async with watching(stage, member(stage, await stage.transport())) as reader:
            assert stage.harness.restart is not None
            await stage.harness.restart()
            there = member(stage, await stage.transport())
            await stage.wait(there.register(node("after")))
            await reader.hear(ChangeKind.JOINED, "after", LASTING / 4)
            await stage.wait(there.deregister())
            await reader.hear(ChangeKind.LEFT, "after", LASTING / 4)
        assert reader.told == [("joined", "before"), ("joined", "after"), ("left", "after")]


async def _steady(stage: Stage, name: str, ttl: float) -> bool:
    """Renew a short lease for longer than it lasts, and read: nothing may be told.

    False when this process stood still, so that a heartbeat did not arrive in time.
    """
    steady = member(stage, await stage.transport(), ttl)
    async with watching(stage, member(stage, stage.anchor, ttl)) as reader:
        await stage.wait(steady.register(node(name)))
        last = begun = stage.clock.monotonic()
        while last - begun < ttl * 1.75:
            await stage.pass_time(0.2)
            try:
                await stage.wait(steady.heartbeat())
            except LeaseLost:
                assert stage.clock.monotonic() - last > ttl * 0.5, "the lease ended too early"
                return False
            now = stage.clock.monotonic()
            if now - last > ttl * 0.5:
                return False
            last = now
            await reader.read()
            _assert_steady(reader, name)
        await stage.wait(steady.deregister())
    return True


def _assert_steady(reader: Reader, name: str) -> None:
    others = [change for change in reader.told if change[1] == name]
    assert others in ([], [("joined", name)]), f"it flaps: {others}"

"""The start: what rests on a broken assumption does not begin, unless it is accepted by name."""

from __future__ import annotations

from catga.errors import CapabilityError
from catga.testing.contract.messages import Charged, Ordered, keep
from catga.testing.harness import law
from catga.testing.raising import raises
from catga.testing.stage import Stage

__all__ = ["PromisesContract"]

_HOUR = 3600.0
_BROKEN: tuple[tuple[str, dict[str, object]], ...] = (
    # W is over before a publish has been repeated for the last time.
    ("dedupe_window", {"dedupe_window": 5.0, "publish_deadline": 6.0}),
    # D is over before a delivery has come again for the last time.
    ("completion_ttl", {"completion_ttl": 5.0, "retention": 5.0}),
    # D is over while a group that is made anew still gets what it had completed.
    ("replay", {"completion_ttl": 2 * _HOUR, "retention": 3 * _HOUR}),
)


class PromisesContract:
    """Laws of the start-up checks of QoS 2."""

    @law(qos=2)
    async def test_windows_that_end_too_early_are_refused_unless_accepted(
        self, stage: Stage
    ) -> None:
        """QoS 2, assumptions: W reaches as far as the repeats of a publish, D as far as
        redelivery and replay; else the bus does not start and says under which name to accept it.
        At QoS 1 nothing rests on them."""
        for risk, settings in _BROKEN:
            place = f"{stage.namespace}-{risk}"  # a window that is there already may be adopted
            stage.namespaces.append(place)
            refused = stage.bus(settings=settings, namespace=place)
            keep(refused, Charged)
            words = f'accept_risk=["{risk}"]'
            with raises(CapabilityError, naming=words):
                await stage.wait(refused.__aenter__())
            settings_too = {**settings, "accept_risk": [risk]}
            accepted = stage.bus(settings=settings_too, namespace=place)
            lower = stage.bus(settings=settings, namespace=place)
            keep(accepted, Charged)
            keep(lower, Ordered)
            async with stage.running(accepted, lower):
                assert "exactly once" in repr(accepted)

    @law(qos=2)
    async def test_windows_that_reach_exactly_as_far_are_enough(self, stage: Stage) -> None:
        """QoS 2, assumptions: what holds is not refused."""
        settings = {"dedupe_window": 6.0, "publish_deadline": 6.0}
        bus = stage.bus(settings={**settings, "completion_ttl": _HOUR * 2, "retention": _HOUR * 2})
        heard = keep(bus, Charged)
        async with stage.running(bus):
            await bus.publish(Charged(1))
            await stage.until(lambda: bus.counts()["law/Charged"].get("ack"))
        assert heard.calls == [(1, 1)]

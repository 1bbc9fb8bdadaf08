"""The delivery contract as tests, for any transport.

A plugin's author derives one class and writes one fixture: `class TestMine(TransportContract)`
with a fixture `harness` that returns `Harness(url="mine://127.0.0.1:1234", time_scale=0.25)`.
"""

from catga.testing.contract.settlement import SettlementContract

__all__ = ["SettlementContract", "TransportContract"]


class TransportContract(SettlementContract):
    """Every family."""

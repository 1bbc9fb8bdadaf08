"""The delivery contract as tests, for any transport.

A plugin's author derives one class and writes one fixture: `class TestMine(TransportContract)`
with a fixture `harness` that returns `Harness(url="mine://127.0.0.1:1234", time_scale=0.25)`.
"""

from catga.testing.contract.accounting import AccountingContract
from catga.testing.contract.addressing import AddressingContract
from catga.testing.contract.at_least_once import AtLeastOnceContract
from catga.testing.contract.at_most_once import AtMostOnceContract
from catga.testing.contract.atomic import AtomicContract
from catga.testing.contract.cancellation import CancellationContract
from catga.testing.contract.capabilities import CapabilitiesContract
from catga.testing.contract.completion import CompletionContract
from catga.testing.contract.crashes import CrashesContract
from catga.testing.contract.dead_letters import DeadLettersContract
from catga.testing.contract.delayed import DelayedContract
from catga.testing.contract.derived import DerivedIdsContract
from catga.testing.contract.discovery import DiscoveryContract
from catga.testing.contract.draining import DrainingContract
from catga.testing.contract.exactly_once import ExactlyOnceContract
from catga.testing.contract.faults import FaultsContract
from catga.testing.contract.for_ever import ForEverContract
from catga.testing.contract.groups import GroupsContract
from catga.testing.contract.lease import LeaseContract
from catga.testing.contract.life import LifeContract
from catga.testing.contract.limits import LimitsContract
from catga.testing.contract.outgoing import OutgoingContract
from catga.testing.contract.parking import ParkingContract
from catga.testing.contract.poison import PoisonContract
from catga.testing.contract.promises import PromisesContract
from catga.testing.contract.recovery import RecoveryContract
from catga.testing.contract.replay import ReplayContract
from catga.testing.contract.requests import RequestsContract
from catga.testing.contract.retries import RetriesContract
from catga.testing.contract.settlement import SettlementContract
from catga.testing.contract.watching import WatchingContract

__all__ = [
    "AccountingContract",
    "AddressingContract",
    "AtLeastOnceContract",
    "AtMostOnceContract",
    "AtomicContract",
    "CancellationContract",
    "CapabilitiesContract",
    "CompletionContract",
    "CrashesContract",
    "DeadLettersContract",
    "DelayedContract",
    "DerivedIdsContract",
    "DiscoveryContract",
    "DrainingContract",
    "ExactlyOnceContract",
    "FaultsContract",
    "ForEverContract",
    "GroupsContract",
    "LeaseContract",
    "LifeContract",
    "LimitsContract",
    "OutgoingContract",
    "ParkingContract",
    "PoisonContract",
    "PromisesContract",
    "RecoveryContract",
    "ReplayContract",
    "RequestsContract",
    "RetriesContract",
    "SettlementContract",
    "TransportContract",
    "WatchingContract",
]


class TransportContract(
    AtMostOnceContract,
    AtLeastOnceContract,
    ExactlyOnceContract,
    ForEverContract,
    AddressingContract,
    GroupsContract,
    SettlementContract,
    LeaseContract,
    LifeContract,
    AccountingContract,
    RetriesContract,
    ParkingContract,
    DelayedContract,
    DrainingContract,
    CancellationContract,
    CapabilitiesContract,
    LimitsContract,
    PoisonContract,
    DeadLettersContract,
    ReplayContract,
    CompletionContract,
    CrashesContract,
    DerivedIdsContract,
    RequestsContract,
    PromisesContract,
    AtomicContract,
    OutgoingContract,
    RecoveryContract,
    FaultsContract,
    DiscoveryContract,
    WatchingContract,
):
    """Every family."""

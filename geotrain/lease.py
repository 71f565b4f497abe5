"""Who leads: the lease record in the view, as everyone reads it. Knows not how it is taken and kept."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from geotrain.view.connect import View

LEASES = "gt_lease"
LEADER = "leader"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The lease as a coordinator wrote it last.

    owner: one life of one coordinator; empty once it was given back. epoch: grows with every change of leader.
    lease_s: how long it holds after the last renewal. address: where the leader is dialled, `host:port`; addresses: by
    site, where some have their own way. status: `host:port` of its HTTP snapshot. since_s: when it was taken, Unix
    epoch, by the owner's clock. generation: of the record; another one, and it was renewed.
    """

    owner: str
    epoch: int
    lease_s: float
    address: str
    addresses: Mapping[str, str] = field(default_factory=dict)
    status: str = ""
    since_s: float = 0.0
    generation: int = 0

    @property
    def is_held(self) -> bool:
        return bool(self.owner)

    def address_for(self, site: str) -> str:
        """Returns where an agent of this site dials the leader."""
        return self.addresses.get(site, self.address)

    def bins(self) -> dict[str, Any]:
        """Returns what the record holds."""
        bins = asdict(self)
        del bins["generation"]
        return bins


def read_lease(view: View, *, reads: str | None = None, deadline_s: float | None = None) -> Lease | None:
    """Returns the lease; None where no coordinator has ever led. reads, deadline_s: as for `View.get`.

    Read from one's own rack, it may be of a moment ago. Raises ViewError.
    """
    record = view.get(LEASES, LEADER, reads=reads, deadline_s=deadline_s)
    if record is None:
        return None
    known = {each.name: record.bins[each.name] for each in fields(Lease) if each.name in record.bins}
    return Lease(**known, generation=record.generation)

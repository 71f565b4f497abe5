"""Takes, renews and gives back the lease in the view. Decides nothing: `coordinator.leadership` does.

The server's clock judges whether a lease has run out: the write that takes it holds only where the record was not
written for as long. A write that was not answered is not settled here: the next look at the record tells.
"""

import secrets
import time
from collections.abc import Mapping
from dataclasses import replace

from geotrain.errors import Fenced
from geotrain.lease import LEADER, LEASES, Lease, read_lease
from geotrain.view.connect import View

# Of a lease: how long one call may take, so that several can fail before it runs out.
CALL_SHARE = 1 / 5


class LeaseHolder:
    """One coordinator's hand on the lease, for one life. Every method may raise ViewError.

    address, addresses, status: where this coordinator is found, as in `Lease`.
    """

    def __init__(
        self, view: View, *, lease_s: float, address: str, addresses: Mapping[str, str] | None = None, status: str = ""
    ) -> None:
        self.lease_s = lease_s
        self.owner = secrets.token_hex(8)
        self._view = view
        self._address = address
        self._addresses = dict(addresses or {})
        self._status = status
        self._call_s = lease_s * CALL_SHARE

    def read(self) -> Lease | None:
        """Returns the lease as this site's rack has it."""
        return read_lease(self._view, reads="local", deadline_s=self._call_s)

    def take(self, seen: Lease | None) -> Lease:
        """Take the lease under the next epoch. seen: the lease as it was read.

        Raises Conflict where it was renewed or taken since, or has not run out.
        """
        lease = Lease(
            owner=self.owner,
            epoch=seen.epoch + 1 if seen else 1,
            lease_s=self.lease_s,
            address=self._address,
            addresses=self._addresses,
            status=self._status,
            since_s=time.time(),
        )
        is_anothers = seen is not None and seen.owner not in ("", self.owner)
        self._write(lease, seen, idle_s=seen.lease_s if seen and is_anothers else None)
        return lease

    def renew(self, epoch: int) -> None:
        """Let the lease run from now. Raises Fenced where it is another's by now."""
        held = self._own(epoch)
        self._write(held, held)

    def give_back(self, epoch: int) -> None:
        """Let a standby take the lease at once. Raises Fenced where it is another's by now."""
        held = self._own(epoch)
        self._write(replace(held, owner=""), held)

    def _own(self, epoch: int) -> Lease:
        held = read_lease(self._view, reads="linearizable", deadline_s=self._call_s)
        if held is None or (held.owner, held.epoch) != (self.owner, epoch):
            epochs = f"epoch {held.epoch} at {held.address}" if held else "none"
            raise Fenced(f"the lease of epoch {epoch} is another's: the leader is {epochs}")
        return held

    def _write(self, lease: Lease, seen: Lease | None, *, idle_s: float | None = None) -> None:
        generation = seen.generation if seen else 0
        self._view.put(LEASES, LEADER, lease.bins(), generation=generation, idle_s=idle_s, deadline_s=self._call_s)

"""Own connections to the nodes of the cluster: what they say of themselves, and streams of rows.

Every call has a deadline. Knows neither the rows' content nor who is to be asked for them.
"""

import socket
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from geotrain.errors import DataError, ViewError
from geotrain.view.assignment import Claim, PartitionMap
from geotrain.view.config import ViewConfig
from geotrain.view.links import Address, LinkRefused, Links
from geotrain.view.retry import pauses
from geotrain.wire.codes import ProtocolError
from geotrain.wire.info import decode_entries, decode_peers
from geotrain.wire.partitions import decode_replicas

MAX_NODES_ASKED_AT_ONCE = 32
MAX_MAP_AGE_S = 5.0
# How long one node may take to answer or to be connected to, however patiently a cluster is looked for: others wait.
# More than 5 s, after which a resolver asks again for a name.
NODE_DEADLINE_S = 10.0
NOT_READY = ("-1", "4294967295")  # a partition generation: the node has not joined the cluster yet
QUESTIONS = ("node", "partition-generation", "replicas", "rack-ids")  # and who the others are


class UnknownSet(DataError):
    """A set that the namespace does not have."""

    def __init__(self, set_name: str, namespace: str, known: Iterable[str]) -> None:
        listed = ", ".join(sorted(known)) or "none"
        super().__init__(f"there is no set {set_name} in namespace {namespace}", f"it has these sets: {listed}")


class NobodyAnswers(ViewError):
    """No node answers, and none has said why: this may pass."""


class Nodes:
    """The nodes of the cluster, as they can be reached from here. Finds new ones through those it knows.

    addresses: by node name, of those in the partition map that was made last.
    """

    def __init__(self, config: ViewConfig) -> None:
        self._config = config
        self._links = Links(config)
        self._timeout_s = min(config.connect_timeout_s, NODE_DEADLINE_S)
        self.addresses: dict[str, Address] = {}
        self._known: tuple[float, PartitionMap] | None = None
        """When the last partition map was asked for, and it."""

    def recent_map(self) -> PartitionMap:
        """The last partition map, asked for anew when it gets old. Raises ViewError as `partition_map` does.

        Who holds something no more passes the question on, or refuses it: an old map costs time, and nothing else.
        """
        known = self._known
        return known[1] if known and time.monotonic() < known[0] + MAX_MAP_AGE_S else self.partition_map()

    def awaited_map(self) -> PartitionMap:
        """`partition_map`, tried again for `ride_through_s` while no node answers at all."""
        for pause_s in pauses(self._config.ride_through_s):
            try:
                return self.partition_map()
            except NobodyAnswers as error:
                last = error
            time.sleep(pause_s)
        raise last

    def partition_map(self) -> PartitionMap:
        """Asks all nodes who holds what. Raises ViewError where none answers, or the namespace is not there."""
        namespace, asked_s = self._config.namespace, time.monotonic()
        claims: dict[str, Claim] = {}
        others: set[str] = set()
        found, addresses = self._ask_all()
        for node, answers in found.items():
            try:
                replicas = decode_replicas(answers["replicas"])
            except ProtocolError as error:
                raise ViewError(
                    f"node {node} sent no partition map: {error}", "look at the version of the node"
                ) from None
            others |= replicas.keys()
            if namespace in replicas and answers["partition-generation"] not in NOT_READY:
                rack = _pairs(answers["rack-ids"]).get(namespace, "")
                claims[node] = Claim(
                    regime=replicas[namespace][0],
                    copies=replicas[namespace][1],
                    rack=int(rack) if rack.isdecimal() else None,
                )
        if not claims:
            raise ViewError(
                f"namespace {namespace} is not known at {', '.join(self._config.hosts)}",
                f"create it there, or set view.namespace to one of: {', '.join(sorted(others)) or 'none'}",
            )
        self.addresses = addresses
        known = PartitionMap.of(claims)
        self._known = asked_s, known
        return known

    def objects(self) -> dict[str, int]:
        """Returns by set of the namespace how many copies of records the nodes hold together. Raises ViewError."""
        objects: dict[str, int] = {}
        num_answers = 0
        question = f"sets/{self._config.namespace}"
        for address in self.addresses.values():
            try:
                answer = self._links.ask(address, [question], self._timeout_s)[question]
                counts = [(facts["set"], int(facts["objects"])) for facts in decode_entries(answer)]
            except (OSError, ProtocolError, KeyError, ValueError):
                continue  # the others hold copies too
            num_answers += 1
            for name, count in counts:
                objects[name] = objects.get(name, 0) + count
        if not num_answers:
            namespace = self._config.namespace
            raise ViewError(f"no node says what sets namespace {namespace} has", "look at the nodes of the cluster")
        return objects

    def open(self, node: str) -> socket.socket:
        """Returns a connection to a node. Each read and write of it ends after `deadline_s` with TimeoutError.

        Raises OSError.
        """
        if node not in self.addresses:
            raise ConnectionError("it has left the cluster")
        connection = self._links.open(self.addresses[node], self._timeout_s)
        connection.settimeout(self._config.deadline_s)
        return connection

    def _ask_all(self) -> tuple[dict[str, dict[str, str]], dict[str, Address]]:
        """By name, answers and addresses of all nodes in reach: of the seeds, of those known, of their peers."""
        found: dict[str, dict[str, str]] = {}
        addresses: dict[str, Address] = {}
        asked: set[Address] = set()
        failures: list[str] = []
        remedies: list[str] = []
        wave = [*self._config.seeds(), *self.addresses.values()]
        with ThreadPoolExecutor(MAX_NODES_ASKED_AT_ONCE) as pool:
            while wave := [address for address in dict.fromkeys(wave) if address not in asked]:
                asked.update(wave)
                for address, answers in zip(wave, pool.map(self._ask, wave), strict=True):
                    if isinstance(answers, Exception):
                        failures.append(f"{address[0]}:{address[1]} ({answers})")
                        remedies += [answers.remedy] if isinstance(answers, LinkRefused) else []
                    elif answers["node"] not in found:
                        found[answers["node"]] = answers
                        addresses[answers["node"]] = address
                peers = {
                    peer: listed
                    for answers in found.values()
                    for peer, listed in decode_peers(answers[self._links.peers]).items()
                }
                wave = [address for peer, listed in peers.items() if peer not in found for address in listed]
        if not found:
            what = f"no cluster answers within {self._timeout_s:g} s: {'; '.join(failures)}"
            if remedies:
                raise ViewError(what, remedies[0])
            raise NobodyAnswers(what, "start it, or set view.hosts to the address of one of its nodes")
        return found, addresses

    def _ask(self, address: Address) -> dict[str, str] | OSError | ProtocolError:
        """A node's answers, or why there are none that can be used."""
        try:
            answers = self._links.ask(address, [*QUESTIONS, self._links.peers], self._timeout_s)
            decode_peers(answers[self._links.peers])
            return answers
        except (OSError, ProtocolError) as error:
            return error


def _pairs(text: str) -> dict[str, str]:
    return {name: value for name, found, value in (entry.partition(":") for entry in text.split(";")) if found}

"""What a site relies on in the view, as rules: facts in, problems out. Pure: asks nobody."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from geotrain.view.config import ViewConfig


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What one node says of the namespace.

    namespace: its configuration and statistics; empty where the node does not have it
    known_namespaces: the namespaces that the node does have
    roster, observed: the nodes that should be there and those that are; empty where the edition knows no roster
    rack: of this node; None where the edition knows no racks
    """

    namespace: Mapping[str, str]
    known_namespaces: tuple[str, ...]
    roster: frozenset[str]
    observed: frozenset[str]
    rack: int | None


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with the view, and what to do about it."""

    what: str
    remedy: str


def questions(namespace: str) -> tuple[str, ...]:
    """Returns the info commands whose answers `node_facts` reads."""
    return "namespaces", f"namespace/{namespace}", f"roster:namespace={namespace}", "rack-ids"


def node_facts(answers: Mapping[str, str], namespace: str) -> NodeFacts:
    """Returns the facts in a node's answers to `questions`. answers: command -> value, without those it refused."""
    of_namespaces, of_namespace, of_roster, of_racks = (answers.get(name, "") for name in questions(namespace))
    roster = _pairs(of_roster.split(":"), "=")
    racks = _pairs(of_racks.split(";"), ":")
    return NodeFacts(
        namespace=_pairs(of_namespace.split(";"), "="),
        known_namespaces=tuple(filter(None, of_namespaces.split(";"))),
        roster=_node_names(roster.get("roster", "")),
        observed=_node_names(roster.get("observed_nodes", "")),
        rack=int(racks[namespace]) if namespace in racks else None,
    )


def consistency(facts: Iterable[NodeFacts]) -> str:
    """Returns `strong` or `eventual`."""
    return "strong" if all(node.namespace.get("strong-consistency") == "true" for node in facts) else "eventual"


def racks(facts: Iterable[NodeFacts]) -> list[int]:
    """Returns the racks that have a node, in order; none where the edition knows no racks."""
    return sorted({node.rack for node in facts if node.rack is not None})


def silent(facts: Mapping[str, NodeFacts]) -> frozenset[str]:
    """Returns the nodes that others see in the cluster and that have not answered."""
    return frozenset().union(*(node.observed for node in facts.values())) - facts.keys()


def problems(facts: Mapping[str, NodeFacts], config: ViewConfig, expected_racks: Sequence[int]) -> list[Problem]:
    """Returns what is wrong with the view for this site; nothing: it may be relied on.

    facts: node name -> what it says. expected_racks: of all sites of the job.
    """
    if missing := [name for name, node in facts.items() if not node.namespace]:
        known = sorted({name for node in facts.values() for name in node.known_namespaces})
        return [
            Problem(
                f"namespace {config.namespace} is not known to {_listed(missing)}",
                f"create it there, or set view.namespace to one of: {_listed(known)}",
            )
        ]
    strong = consistency(facts.values()) == "strong"
    return [
        *_of_consistency(config, strong),
        *(_of_roster(facts) if strong else []),
        *_of_partitions(facts),
        *_of_racks(facts, config, expected_racks, strong),
    ]


def _of_consistency(config: ViewConfig, strong: bool) -> Iterable[Problem]:
    if not strong and config.require_strong_consistency:
        yield Problem(
            f"namespace {config.namespace} is not strongly consistent",
            "set strong-consistency true for it (Enterprise Edition), or accept eventual consistency with "
            "view.require_strong_consistency=false",
        )
    elif not strong and config.reads == "linearizable":
        yield Problem(
            f"namespace {config.namespace} is not strongly consistent, so it can't answer linearizable reads",
            "set view.reads=local",
        )


def _of_roster(facts: Mapping[str, NodeFacts]) -> Iterable[Problem]:
    roster = frozenset().union(*(node.roster for node in facts.values()))
    observed = frozenset().union(*(node.observed for node in facts.values()))
    if absent := roster - observed:
        yield Problem(
            f"the roster names nodes that are not in the cluster: {_listed(absent)}",
            "bring them back, or take them off the roster (roster-set, then recluster)",
        )
    if strange := observed - roster:
        yield Problem(
            f"the cluster has nodes that are not on the roster: {_listed(strange)}",
            "add them to the roster (roster-set to the observed nodes, then recluster)",
        )
    if unheard := silent(facts):
        yield Problem(
            f"nodes of the cluster can't be reached from here: {_listed(unheard)}",
            "open their service port for this site, and check the access-address that they advertise",
        )


def _of_partitions(facts: Mapping[str, NodeFacts]) -> Iterable[Problem]:
    for kind, remedy in (
        ("unavailable", "bring back the missing nodes of the roster"),
        ("dead", "bring back the nodes that hold them, or accept the loss of what they held with revive"),
    ):
        # Every node counts the partitions of the whole namespace.
        if count := max(int(node.namespace.get(f"{kind}_partitions", 0)) for node in facts.values()):
            yield Problem(f"{count} of 4096 partitions are {kind}", remedy)


def _of_racks(
    facts: Mapping[str, NodeFacts], config: ViewConfig, expected_racks: Sequence[int], strong: bool
) -> Iterable[Problem]:
    present = racks(facts.values())
    if not present and not strong:
        return  # the Community Edition knows no racks
    if absent := sorted({config.rack, *expected_racks} - {0} - set(present)):
        yield Problem(
            f"no node is on rack {_listed(absent)}; the cluster has rack {_listed(present)}",
            "give each site's nodes the rack-id of the site, or correct view.rack",
        )
    factor = min(int(node.namespace["effective_replication_factor"]) for node in facts.values())
    if factor < len(present):
        yield Problem(
            f"replication factor {factor} is less than the {len(present)} racks, so no rack holds every record",
            f"set replication-factor {len(present)} for namespace {config.namespace}",
        )


def _pairs(items: Iterable[str], separator: str) -> dict[str, str]:
    return {name: value for name, found, value in (item.partition(separator) for item in items) if found}


def _node_names(listed: str) -> frozenset[str]:
    # An entry is a node, perhaps with the active rack before it (M1|A1) and its own rack after it (A1@1).
    names = (re.sub(r"^M\d+\|", "", entry).partition("@")[0] for entry in listed.split(","))
    return frozenset(name for name in names if name and name != "null")


def _listed(things: Iterable[object]) -> str:
    return ", ".join(sorted(map(str, things))) or "none"

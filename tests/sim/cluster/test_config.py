from typing import Any

import pytest

from sim.cluster.config import ClusterConfig, NodeConfig
from sim.wan.model import LinkConfig

SITES = {"ewr": NodeConfig(rack=1), "jfk": NodeConfig(rack=2), "lga": NodeConfig(rack=3)}


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"nodes": {}}, "nodes must name at least one node"),
        ({"namespace": ""}, "namespace must be 1 to 31 bytes"),
        ({"namespace": "n" * 32}, "namespace must be 1 to 31 bytes"),
        ({"namespace": "a:b"}, "namespace must be 1 to 31 bytes"),
        ({"links": {"far": LinkConfig(sites=["ewr", "sfo"])}}, "links.far.sites: no such site: 'sfo'"),
        ({"edition": "communty"}, "edition must be one of enterprise, community"),
        ({"edition": "community"}, "strong_consistency is not offered by the community edition"),
        ({"replication_factor": 4}, "replication_factor must be 1 to 3"),
        ({"replication_factor": 0}, "replication_factor must be 1 to 3"),
        ({"active_rack": 4}, "active_rack must be the rack of a node"),
        ({"client_sites": ["ewr", "ewr"]}, "client_sites must be different names"),
        ({"client_addresses": {"sfo": "127.0.0.1:3000"}}, "client_addresses must give client_sites an address"),
        (
            {"client_sites": ["ewr"], "client_addresses": {"ewr": "3000"}},
            "client_addresses must give client_sites an address",
        ),
        ({"control_port": -1}, "control_port must be between 0"),
        ({"max_record_bytes": 0}, "max_record_bytes must be positive"),
        ({"reserved_mb": -1}, "reserved_mb must be 0 to 2000"),
        ({"reserved_mb": 2001}, "reserved_mb must be 0 to 2000"),
        ({"nsup_period_s": -1}, "nsup_period_s must not be negative"),
        ({"nsup_period_s": 1, "default_ttl_s": 10**9}, "default_ttl_s must be 0 to"),
        ({"default_ttl_s": 60}, "default_ttl_s needs nsup_period_s"),
        ({"default_read_touch_ttl_pct": 101}, "default_read_touch_ttl_pct must be"),
        ({"tls_name": "as.example"}, "tls_name, tls_certificate and tls_key belong together"),
        ({"tls_ca": "ca.pem"}, "tls_ca is given without tls_name"),
    ],
)
def test_a_wrong_field_of_a_cluster_is_refused_by_its_name(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        ClusterConfig(**({"nodes": SITES} | fields))


@pytest.mark.parametrize(("fields", "named"), [({"port": 70_000}, "port must be"), ({"rack": -1}, "rack must not be")])
def test_a_wrong_field_of_a_node_is_refused_by_its_name(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        NodeConfig(**fields)

import json
from dataclasses import replace

import pytest

from geotrain.errors import ConfigError, ViewError
from geotrain.states.manifest import Manifest, TensorEntry, check_names

MANIFEST = Manifest(
    model="flights",
    scope="site/ewr",
    version=3,
    tensors={"head.weight": TensorEntry("F32", (2, 3), ("ab" * 32,)), "step": TensorEntry("I64", (), ("cd" * 32,))},
    lineage={"job": "flights-7", "round": 4, "weights": {"ewr": 0.5, "jfk": 0.5}},
    metadata={"encoding": "{}"},
    created_s=1.5,
)


def test_a_manifest_is_read_as_it_was_written():
    assert Manifest.from_bytes(MANIFEST.to_bytes()) == MANIFEST


def test_a_reference_names_model_scope_and_version():
    assert MANIFEST.reference == "flights/site/ewr@3"


@pytest.mark.parametrize(("found", "advice"), [(1, "publish that state again"), (3, "upgrade geotrain here")])
def test_a_manifest_of_another_format_is_refused_with_advice(found, advice):
    other = json.dumps(json.loads(MANIFEST.to_bytes()) | {"format": found, "new": "field"}).encode()
    with pytest.raises(ViewError, match=f"a manifest has format {found}, this version of geotrain reads 2") as refused:
        Manifest.from_bytes(other)
    assert refused.value.remedy == advice


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b'{"format": 2, "tensors": {"t": {}}}'])
def test_what_is_no_manifest_is_refused(data):
    with pytest.raises(ViewError, match="record gt_manifests/m/global@1 is damaged"):
        Manifest.from_bytes(data, "m/global@1")


def test_tensors_are_the_same_only_with_type_shape_and_bytes():
    entry = MANIFEST.tensors["head.weight"]
    others = [replace(entry, dtype="I32"), replace(entry, shape=(3, 2)), replace(entry, parts=("ef" * 32,))]
    assert len({entry, *others, replace(entry)}) == 4


@pytest.mark.parametrize("scope", ["global", "site/ewr", "site/new-york_2.east"])
def test_sane_names_are_taken(scope):
    check_names("flights", scope, "production")


@pytest.mark.parametrize(
    ("field", "names"),
    [
        ("model", ("", "global", "production")),
        ("model", ("Flights", "global", "production")),
        ("model", ("flights/1", "global", "production")),
        ("model", ("flights@1", "global", "production")),
        ("model", ("f" * 64, "global", "production")),
        ("scope", ("flights", "site/", "production")),
        ("scope", ("flights", "site//ewr", "production")),
        ("scope", ("flights", "site/ewr@3", "production")),
        ("alias", ("flights", "global", "in production")),
        ("alias", ("flights", "global", "production\n")),
    ],
)
def test_names_that_can_not_be_part_of_a_key_are_refused_by_field(field, names):
    with pytest.raises(ConfigError, match=f"^{field} "):
        check_names(*names)

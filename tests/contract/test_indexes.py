from collections.abc import Callable, Iterator
from typing import Any

import aerospike
import pytest
from aerospike import exception
from aerospike import predicates as p
from aerospike_helpers import cdt_ctx as ctx
from aerospike_helpers import expressions as exp
from aerospike_helpers.operations import list_operations as lists
from aerospike_helpers.operations import operations as op

from tests.conftest import ClusterUnderTest

NUM_ROWS = 500


@pytest.fixture(scope="module")
def rows(client: Any, cluster: ClusterUnderTest) -> Iterator[str]:
    """The name of a set of 500 records with an index on `n` (numbers), `name` (strings) and `tags` (a list)."""
    name = "test-indexes"
    namespace = cluster.namespace
    client.truncate(namespace, name, 0)
    for n in range(NUM_ROWS):
        client.put((namespace, name, n), {"n": n, "name": f"name {n % 10}", "tags": [n, n + 1000], "half": n / 2})
    client.index_single_value_create(namespace, name, "n", aerospike.INDEX_NUMERIC, "test_by_n")
    client.index_single_value_create(namespace, name, "name", aerospike.INDEX_STRING, "test_by_name")
    client.index_list_create(namespace, name, "tags", aerospike.INDEX_NUMERIC, "test_by_tags")
    yield name
    for index in ("test_by_n", "test_by_name", "test_by_tags"):
        client.index_remove(namespace, index)


@pytest.fixture
def find(client: Any, cluster: ClusterUnderTest, rows: str) -> Callable[..., list[int]]:
    """The numbers of the records that a query finds."""

    def find(where: Any, **policy: Any) -> list[int]:
        query = client.query(cluster.namespace, rows)
        query.where(where)
        return sorted(record[2]["n"] for record in query.results(policy))

    return find


Find = Callable[..., list[int]]


def test_a_query_finds_a_range_of_numbers_with_both_its_ends(find: Find) -> None:
    assert find(p.between("n", 17, 42)) == list(range(17, 43))
    assert find(p.equals("n", 499)) == [499]
    assert find(p.between("n", 1000, 2000)) == []
    assert find(p.between("n", -(1 << 63), (1 << 63) - 1)) == list(range(NUM_ROWS))


def test_a_query_finds_equal_strings(find: Find) -> None:
    assert find(p.equals("name", "name 7")) == list(range(7, NUM_ROWS, 10))
    assert find(p.equals("name", "nobody")) == []


def test_a_query_finds_records_by_the_elements_of_their_lists(find: Find) -> None:
    assert find(p.contains("tags", aerospike.INDEX_TYPE_LIST, 1003)) == [3]
    assert sorted(set(find(p.range("tags", aerospike.INDEX_TYPE_LIST, 490, 1000)))) == [0, *range(490, NUM_ROWS)]


def test_a_query_by_index_can_be_filtered_further_and_select_bins(
    find: Find, client: Any, cluster: ClusterUnderTest, rows: str
) -> None:
    even = exp.Eq(exp.Mod(exp.IntBin("n"), 2), 0).compile()
    assert find(p.between("n", 1, 9), expressions=even) == [2, 4, 6, 8]
    query = client.query(cluster.namespace, rows)
    query.select("half")
    query.where(p.equals("n", 9))
    assert [record[2] for record in query.results()] == [{"half": 4.5}]


def test_a_query_follows_what_is_written_later(
    find: Find, client: Any, cluster: ClusterUnderTest, rows: str, remove_policy: dict[str, Any]
) -> None:
    key = (cluster.namespace, rows, "later")
    client.put(key, {"n": 10_000})
    assert find(p.equals("n", 10_000)) == [10_000]
    client.put(key, {"n": 10_001})
    assert (find(p.equals("n", 10_000)), find(p.equals("n", 10_001))) == ([], [10_001])
    client.remove(key, policy=remove_policy)
    assert find(p.equals("n", 10_001)) == []


def test_a_query_by_index_is_resumed_where_it_was_left(client: Any, cluster: ClusterUnderTest, rows: str) -> None:
    query = client.query(cluster.namespace, rows)
    query.where(p.between("n", 100, 199))
    query.max_records = 30
    query.paginate()
    found: list[int] = []
    for _ in range(20):
        found += [record[2]["n"] for record in query.results()]
        if query.is_done():
            break
    assert sorted(found) == list(range(100, 200))


def test_a_query_returns_what_operations_read(client: Any, cluster: ClusterUnderTest, rows: str) -> None:
    query = client.query(cluster.namespace, rows)
    query.where(p.between("n", 3, 4))
    query.add_ops([lists.list_get_by_index("tags", 1, aerospike.LIST_RETURN_VALUE), op.read("n")])
    assert sorted(record[2]["n"] for record in query.results()) == [3, 4]
    assert sorted(record[2]["tags"] for record in query.results()) == [1003, 1004]


def test_a_query_without_its_index_is_refused(client: Any, cluster: ClusterUnderTest, rows: str) -> None:
    query = client.query(cluster.namespace, rows)
    query.where(p.equals("half", 3))
    with pytest.raises(exception.IndexNotFound):
        query.results()


def test_an_index_is_created_again_without_harm_and_its_name_not_given_twice(
    client: Any, cluster: ClusterUnderTest, rows: str
) -> None:
    again = client.index_single_value_create
    again(cluster.namespace, rows, "n", aerospike.INDEX_NUMERIC, "test_by_n")
    with pytest.raises(exception.IndexFoundError):
        again(cluster.namespace, rows, "half", aerospike.INDEX_NUMERIC, "test_by_n")
    client.index_remove(cluster.namespace, "no_such_index")


def test_a_background_query_writes_to_all_that_it_finds(client: Any, cluster: ClusterUnderTest, set_name: str) -> None:
    keys = [(cluster.namespace, set_name, n) for n in range(200)]
    for key in keys:
        client.put(key, {"n": key[2]})
    query = client.query(cluster.namespace, set_name)
    query.add_ops([op.write("seen", 1), op.increment("n", 1000)])
    job = query.execute_background({"expressions": exp.LT(exp.IntBin("n"), 50).compile()})
    while client.job_info(job, aerospike.JOB_QUERY)["status"] == aerospike.JOB_STATUS_INPROGRESS:
        pass
    found = [client.get(key)[2] for key in keys]
    assert found == [{"n": n + 1000, "seen": 1} if n < 50 else {"n": n} for n in range(200)]


@pytest.fixture
def nested(client: Any, cluster: ClusterUnderTest) -> Iterator[Callable[[Any], list[int]]]:
    """Finds the numbers of records `{"n": n, "at": {"site": [n % 3, ...]}}` by an index, and drops that afterwards."""
    namespace, name = cluster.namespace, "test-nested-indexes"
    client.truncate(namespace, name, 0)
    for n in range(30):
        client.put((namespace, name, n), {"n": n, "at": {"site": [n % 3, "elsewhere"]}})

    def find(where: Callable[[Any], None]) -> list[int]:
        query = client.query(namespace, name)
        where(query)
        return sorted(record[2]["n"] for record in query.results())

    yield find
    client.index_remove(namespace, "test_nested")


def test_an_index_can_be_on_a_part_of_a_nested_value(
    client: Any, cluster: ClusterUnderTest, nested: Callable[[Any], list[int]]
) -> None:
    path = [ctx.cdt_ctx_map_key("site"), ctx.cdt_ctx_list_index(0)]
    namespace, name = cluster.namespace, "test-nested-indexes"
    client.index_single_value_create(namespace, name, "at", aerospike.INDEX_NUMERIC, "test_nested", ctx=path)
    assert nested(lambda query: query.where(p.equals("at", 2), path)) == list(range(2, 30, 3))
    with pytest.raises(exception.IndexNotFound):
        nested(lambda query: query.where(p.equals("at", 2)))


def test_an_index_can_be_on_the_value_of_an_expression(
    client: Any, cluster: ClusterUnderTest, nested: Callable[[Any], list[int]]
) -> None:
    tens = exp.Div(exp.IntBin("n"), 10).compile()
    client.index_expr_create(
        cluster.namespace,
        "test-nested-indexes",
        aerospike.INDEX_TYPE_DEFAULT,
        aerospike.INDEX_NUMERIC,
        tens,
        "test_nested",
    )
    assert nested(lambda query: query.where_with_expr(tens, p.equals(None, 1))) == list(range(10, 20))
    assert nested(lambda query: query.where_with_index_name("test_nested", p.between(None, 1, 2))) == list(
        range(10, 30)
    )

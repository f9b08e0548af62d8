"""What a seat takes, and which workers may host it."""

import pytest

from lablet_artifacts.topology import (
    SCHEMA_VERSIONS,
    NodeType,
    TopologyError,
    image_definitions,
    infer_requirements,
    min_cml_version,
    node_definitions,
    read_node_types,
    read_topology,
)


def made(*nodes):
    lines = "".join(f"  - {{id: n{i}, label: N{i}, x: 0, y: 0, {node}}}\n" for i, node in enumerate(nodes))
    return read_topology(f"lab: {{version: 0.2.2}}\nlinks: []\nnodes:\n{lines or '  []'}".encode())


def test_the_table_says_what_the_file_does_not():
    needs = infer_requirements(made("node_definition: iosv", "node_definition: csr1000v, ram: 0, cpus: null"))
    assert (needs.cpu_cores, needs.memory_gb, needs.storage_gb) == (2.0, 3.5, 9.0)


def test_what_the_file_says_wins():
    needs = infer_requirements(
        made("node_definition: iosv, cpus: 4, ram: 2048, boot_disk_size: 20, data_volume: 5, cpu_limit: 50")
    )
    assert (needs.cpu_cores, needs.memory_gb, needs.storage_gb) == (4.0, 2.0, 25.0)


def test_wires_count_neither_as_nodes_nor_as_load():
    needs = infer_requirements(
        made("node_definition: external_connector", "node_definition: unmanaged_switch", "node_definition: iosv")
    )
    assert (needs.node_count, needs.cpu_cores, needs.memory_gb) == (1, 1.0, 0.5)
    assert infer_requirements(made("node_definition: external_connector"), uncounted=frozenset()).node_count == 1


def test_a_table_of_ones_own_wins_over_the_shipped_one():
    needs = infer_requirements(made("node_definition: iosv"), {"iosv": NodeType(8, 1000, 3)})
    assert (needs.cpu_cores, needs.memory_gb, needs.storage_gb) == (8.0, 0.977, 3.0)


def test_a_guess_is_named():
    assert infer_requirements(made("node_definition: homemade")).assumed == ("homemade",)
    assert infer_requirements(made("node_definition: homemade, ram: 100, cpus: 1")).assumed == ()


def test_an_empty_lab_needs_nothing():
    needs = infer_requirements(made())
    assert (needs.cpu_cores, needs.memory_gb, needs.storage_gb, needs.node_count) == (0, 0, 0, 0)


def test_required_definitions_and_images_are_sorted_sets():
    topology = made("node_definition: iosv, image_definition: iosv-2", "node_definition: asav", "node_definition: iosv")
    assert node_definitions(topology) == ("asav", "iosv")
    assert image_definitions(topology) == ("iosv-2",)


def test_every_schema_has_an_oldest_cml_and_newer_schemas_never_an_older_one():
    oldest = [tuple(int(part) for part in min_cml_version(schema).split(".")) for schema in SCHEMA_VERSIONS]
    assert oldest == sorted(oldest)
    assert min_cml_version("0.3.0") == "2.9"


def test_a_table_is_read_from_yaml():
    assert read_node_types(b"big: {cpus: 8, ram_mb: 16384, disk_gb: 40}\nsmall: {cpus: 1, ram_mb: 64}\n") == {
        "big": NodeType(8, 16384, 40),
        "small": NodeType(1, 64, 1),
    }


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"- a", "a table"),
        (b"big: 5", "has cpus and ram_mb"),
        (b"big: {cpus: 1}", "'ram_mb' is missing"),
        (b"big: {cpus: 1, ram_mb: null}", "'ram_mb' is missing"),
        (b"big: {cpus: x, ram_mb: 1}", "cpus must be a whole number"),
        (b"big: {cpus: 1, ram_mb: 1, cores: 2}", "unknown: cores"),
    ],
)
def test_a_wrong_table_is_refused_with_its_reason(data, said):
    with pytest.raises(TopologyError, match=said):
        read_node_types(data)

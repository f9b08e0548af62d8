"""Whole lab files: the samples of this project, and real ones where they are at hand."""

import pytest
import yaml

from lablet_artifacts.topology import find_ports, find_tokens, infer_requirements, read_topology, render

SAMPLES = {
    "ospf-basics": ["r1_serial", "r2_serial", "sw1_serial"],
    "vlan-trunking": [
        "sw1_serial",
        "sw2_serial",
        "pc1_serial",
        "pc1_vnc",
        "pc2_serial",
        "pc3_serial",
        "pc4_serial",
    ],
    "exam-routing": ["r1_serial", "r2_serial", "r3_serial", "r4_serial", "r1_ssh", "r2_ssh"],
}


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_lab_reads_and_renders_for_a_seat(root, name):
    data = (root / "examples" / "labs" / f"{name}.yaml").read_bytes()
    topology = read_topology(data)
    ports = {port.name: 2000 + index for index, port in enumerate(find_ports(topology))}
    assert list(ports) == SAMPLES[name]
    assert all(port.node for port in find_ports(topology))
    assert infer_requirements(topology).assumed == ()
    assert infer_requirements(topology).memory_gb <= 8
    values = dict.fromkeys(find_tokens(topology), "7")
    out = render(data, ports, values)
    lines, before = out.splitlines(), data.splitlines()
    assert len(lines) == len(before)
    differing = [old for old, new in zip(before, lines, strict=True) if old != new]
    assert all(b"${" in line or b":5" in line for line in differing)
    assert all(str(port) in out.decode() for port in ports.values())
    assert not any("${" in tag for node in yaml.safe_load(out)["nodes"] for tag in node["tags"])


def test_every_real_lab_reads_infers_and_comes_back_byte_for_byte(root):
    folder = root.parent / "shared" / "labs"
    files = sorted(folder.glob("*.yaml"))
    if not files:
        pytest.skip(f"no real lab files beside the checkout ({folder.name})")
    for path in files:
        data = path.read_bytes()
        topology = read_topology(data)
        document = yaml.safe_load(data)
        assert len(topology.nodes) == len(document["nodes"]), path.name
        assert len(topology.links) == len(document["links"]), path.name
        needs = infer_requirements(topology)
        assert needs.assumed == (), path.name
        assert (needs.memory_gb > 0) == bool(topology.nodes), path.name
        assert find_ports(topology) == []
        assert render(data, {}, {"SEAT": "1"}) == data, path.name


def test_every_real_lab_takes_ports_where_they_are_put(root):
    files = sorted((root.parent / "shared" / "labs").glob("*.yaml"))
    if not files:
        pytest.skip("no real lab files beside the checkout")
    for path in files:
        data = path.read_bytes().replace(b"tags: []", b"tags: ['serial:${PORT_R@}', ssh:22]")
        parts = data.split(b"R@")
        marked = b"".join(part + f"R{n}".encode() for n, part in enumerate(parts))[: -len(f"R{len(parts) - 1}")]
        ports = {port.name: 3000 + index for index, port in enumerate(find_ports(read_topology(marked)))}
        assert len(ports) == 2 * (len(parts) - 1), path.name
        out = render(marked, ports)
        put = [tag for node in yaml.safe_load(out)["nodes"] for tag in node["tags"] if tag[:4] in ("seri", "ssh:")]
        assert sorted(int(tag.partition(":")[2]) for tag in put) == sorted(ports.values()), path.name

"""Node and image definitions as the API shows them: full, simplified, and per image."""

from __future__ import annotations

from typing import Any

from .definitions import NodeType

Json = dict[str, Any]


def _general(row: NodeType) -> Json:
    return {"nature": row.nature, "description": f"{row.label} (simulated)", "read_only": True}


def _device(row: NodeType) -> Json:
    interfaces: Json = {
        "serial_ports": 1 if row.has_console else 0,
        "default_console": 0,
        "physical": list(row.interface_names),
        "has_loopback_zero": row.loopback,
        "min_count": 0,
        "default_count": row.default_ports,
    }
    if row.loopback:
        interfaces["loopback"] = ["Loopback0"]
    if row.management:
        interfaces["management"] = [row.management]
    return {"interfaces": interfaces}


def _ui(row: NodeType) -> Json:
    return {
        "label_prefix": f"{row.prefix}-",
        "icon": row.icon,
        "label": row.label[:32],
        "visible": True,
        "group": "Cisco" if row.loopback or row.nature == "firewall" else "Others",
        "description": f"{row.label} (simulated)",
        "has_configuration": True,
        "show_ram": row.has_console,
        "show_cpus": row.has_console,
        "show_cpu_limit": row.has_console,
        "show_data_volume": row.has_console,
        "show_boot_disk_size": row.has_console,
        "has_config_extraction": row.has_console,
    }


def full(row: NodeType) -> Json:
    """The definition as GET /node_definitions shows it. `ram` in MiB, usage cpus in hundredths of a CPU."""
    native: Json = {"libvirt_domain_driver": row.driver, "driver": row.sim_driver}
    simulation: Json = {"linux_native": native}
    if row.has_console:
        native |= {"ram": row.ram, "cpus": row.cpus, "cpu_limit": 100, "disk_driver": "virtio", "nic_driver": "virtio"}
        simulation["usage_estimations"] = {"cpus": 100 * row.cpus, "ram": row.ram, "disk": 1024}
    everything = {"ram": True, "cpus": True, "data_volume": True, "boot_disk_size": True, "cpu_limit": True}
    return {
        "id": row.id,
        "general": _general(row),
        "device": _device(row),
        "boot": {"timeout": int(4 * row.boot) + 60, "completed": ["con0 is now available"], "uses_regex": False},
        "sim": simulation,
        "configuration": {
            "generator": {"driver": row.generator},
            "provisioning": {
                "volume_name": "disk",
                "media_type": "iso",
                "files": [{"editable": True, "name": row.config_file, "content": ""}],
            },
        },
        "ui": _ui(row),
        "inherited": {"image": everything, "node": everything},
        "pyats": {"os": row.os, "use_in_testbed": row.has_console},
        "schema_version": "0.0.1",
    }


def simplified(row: NodeType) -> Json:
    """The definition as GET /simplified_node_definitions shows it."""
    return {
        "id": row.id,
        "general": _general(row),
        "device": _device(row),
        "ui": _ui(row),
        "sim": {
            "ram": row.ram,
            "cpus": row.cpus,
            "cpu_limit": 100,
            "data_volume": 0,
            "boot_disk_size": 0,
            "console": row.has_console,
            "simulate": row.has_console,
            "custom_mac": row.has_console,
            "vnc": row.vnc,
        },
        "image_definitions": list(row.images),
    }


def image(name: str, row: NodeType) -> Json:
    """One image definition."""
    return {
        "id": name,
        "node_definition_id": row.id,
        "label": f"{row.label} {name}"[:64],
        "description": f"{name} (simulated, no disk behind it)",
        "disk_image": f"{name}.qcow2",
        "read_only": True,
        "schema_version": "0.0.1",
        "ram": None,
        "cpus": None,
        "cpu_limit": None,
        "data_volume": None,
        "boot_disk_size": None,
    }

"""The shapes of the request bodies, with the limits of API 2.9."""

from __future__ import annotations

from .bodies import (
    Check,
    anything,
    boolean,
    choice,
    definition_id,
    either,
    integer,
    listing,
    nullable,
    number,
    record,
    text,
    uuid4,
)

PERMISSIONS = ("lab_admin", "lab_edit", "lab_exec", "lab_view")

_coordinate = integer(-15000, 15000)
_place = number(-15000, 15000)
_mac = nullable(text(pattern=r"[a-fA-F\d]{2}(:[a-fA-F\d]{2}){5}"))
_file = record({"name": text(1, 64), "content": nullable(text())}, ("name",))
configuration: Check = nullable(either(text(), _file, listing(_file)))

_association = record({"id": uuid4, "permissions": listing(choice(PERMISSIONS))}, ("id", "permissions"))
LAB_ASSOCIATIONS = record({"groups": listing(_association), "users": listing(_association)})
_old_group = record(
    {"id": uuid4, "permission": choice(("read_only", "read_write")), "name": text()}, ("id", "permission")
)
LAB_GROUPS = listing(_old_group)
LAB = record(
    {
        "title": text(1, 64),
        "owner": uuid4,
        "description": text(0, 4096),
        "notes": text(0, 32768),
        "groups": LAB_GROUPS,
        "associations": LAB_ASSOCIATIONS,
    }
)

_node_fields: dict[str, Check] = {
    "x": _coordinate,
    "y": _coordinate,
    "label": text(1, 128),
    "parameters": record({}, strict=False),
    "image_definition": nullable(definition_id),
    "ram": nullable(integer(1, 1_048_576)),
    "cpus": nullable(integer(1, 128)),
    "cpu_limit": nullable(integer(20, 100)),
    "data_volume": nullable(integer(0, 4096)),
    "boot_disk_size": nullable(integer(0, 4096)),
    "hide_links": nullable(boolean),
    "tags": listing(text(0, 64)),
    "configuration": configuration,
}
NODE_CREATE = record({**_node_fields, "node_definition": definition_id}, ("x", "y", "label", "node_definition"))
NODE_UPDATE = record({**_node_fields, "pinned_compute_id": nullable(uuid4)})
INTERFACE_CREATE = record({"node": uuid4, "slot": nullable(integer(0, 128)), "mac_address": _mac}, ("node",))
INTERFACE_UPDATE = record({"mac_address": _mac})
LINK_CREATE = record({"src_int": uuid4, "dst_int": uuid4}, ("src_int", "dst_int"))
LINK_CONDITION = record(
    {
        "bandwidth": integer(0, 10_000_000),
        **{name: integer(0, 10_000) for name in ("latency", "limit", "gap", "jitter")},
        **{
            name: number(0, 100)
            for name in (
                "delay_corr",
                "loss",
                "loss_corr",
                "duplicate",
                "duplicate_corr",
                "reorder_prob",
                "reorder_corr",
                "corrupt_prob",
                "corrupt_corr",
            )
        },
        "enabled": boolean,
    }
)

_ANNOTATION_TYPES = ("text", "rectangle", "ellipse", "line")
_annotation: dict[str, Check] = {
    "type": choice(_ANNOTATION_TYPES),
    **dict.fromkeys(("x1", "y1", "x2", "y2"), _place),
    "rotation": integer(0, 360),
    "border_color": text(0, 32),
    "border_style": text(0, 8),
    "border_radius": integer(0, 128),
    "color": text(0, 32),
    "thickness": integer(1, 32),
    "z_index": integer(-10240, 10240),
    "text_bold": boolean,
    "text_italic": boolean,
    "text_content": text(0, 8192),
    "text_font": text(0, 128),
    "text_size": integer(1, 128),
    "text_unit": choice(("pt", "px", "em")),
    "line_start": nullable(text(0, 16)),
    "line_end": nullable(text(0, 16)),
}
ANNOTATION = record(_annotation, ("type",))
_smart: dict[str, Check] = {
    "is_on": boolean,
    "padding": integer(1, 200),
    "tag": text(1, 64),
    "label": text(0, 256),
    "tag_offset_x": integer(-1000, 1000),
    "tag_offset_y": integer(-1000, 1000),
    "tag_size": integer(1, 128),
    "group_distance": integer(0, 10000),
    "thickness": integer(1, 32),
    "border_style": text(0, 8),
    "fill_color": nullable(text(0, 32)),
    "border_color": nullable(text(0, 32)),
    "z_index": integer(-10240, 10240),
}
SMART_ANNOTATION = record(_smart)

_element_id = text(1, 64)
_topology_interface = record(
    {
        "id": _element_id,
        "type": choice(("physical", "loopback")),
        "node": _element_id,
        "label": text(1, 128),
        "slot": nullable(integer(0, 128)),
        "mac_address": _mac,
    },
    ("id", "type"),
)
TOPOLOGY_NODE = record(
    {**_node_fields, "node_definition": definition_id, "id": _element_id, "interfaces": listing(_topology_interface)},
    ("id", "label", "node_definition", "x", "y"),
)
TOPOLOGY_LINK = record(
    {
        **dict.fromkeys(("id", "i1", "i2", "n1", "n2"), _element_id),
        "label": text(1, 128),
        "conditioning": LINK_CONDITION,
    },
    ("id", "i1", "i2", "n1", "n2"),
)
SCHEMA_VERSIONS = ("0.0.1", "0.0.2", "0.0.3", "0.0.4", "0.0.5", "0.1.0", "0.2.0", "0.2.1", "0.2.2", "0.3.0")
TOPOLOGY_LAB = record(
    {
        "version": choice(SCHEMA_VERSIONS),
        "title": text(1, 64),
        "description": text(0, 4096),
        "notes": text(0, 32768),
    },
    ("version",),
)
TOPOLOGY = record(
    {
        "lab": TOPOLOGY_LAB,
        "nodes": listing(TOPOLOGY_NODE),
        "links": listing(TOPOLOGY_LINK),
        "annotations": listing(ANNOTATION),
        "smart_annotations": listing(SMART_ANNOTATION),
    },
    ("lab", "nodes", "links"),
)

AUTHENTICATE = record({"username": text(1, 32), "password": text()}, ("username", "password"), strict=False)
_user_fields: dict[str, Check] = {
    "username": text(1, 32),
    "fullname": text(0, 128),
    "description": text(0, 4096),
    "email": text(0, 128),
    "admin": boolean,
    "groups": listing(uuid4),
    "associations": listing(_association),
    "resource_pool": nullable(uuid4),
    "opt_in": nullable(boolean),
    "tour_version": text(0, 128),
    "pubkey": text(0, 4300),
}
USER_CREATE = record({**_user_fields, "password": text()}, ("username", "password"))
_password_change = record({"new_password": text(), "old_password": text()}, ("new_password",))
USER_UPDATE = record({**_user_fields, "password": _password_change})

PRODUCT_LICENCE = text(pattern=r"\w{1,20}")
_proxy = record({"server": nullable(text(1, 256)), "port": nullable(integer(1, 65535))}, ("server", "port"))
LICENCE_TRANSPORT = record({"proxy": _proxy, "ssms": nullable(text(1, 256, r"https?://\S+"))}, ("proxy",))
LICENCE_REGISTRATION = record({"token": text(1, 256, r"[a-zA-Z\d+/%=-]+"), "reregister": boolean}, ("token",))
LICENCE_FEATURES = listing(record({"id": text(1, 128, r"[a-zA-Z\d._,-]+"), "count": integer(0)}, ("id", "count")), 1, 2)

COMPUTE_HOST = record(
    {"admission_state": choice(("UNREGISTERED", "REGISTERED", "ONLINE", "READY"))}, ("admission_state",)
)
MAINTENANCE = record({"maintenance_mode": boolean, "notice": nullable(uuid4)})
TELEMETRY = record({"opt_in": nullable(boolean)}, ("opt_in",))
CONNECTOR_MAPPINGS = listing(
    record(
        {"key": text(0, 64), "device_name": nullable(text(pattern=r"(bridge|local|virbr|vlan)\d{1,4}"))},
        ("key", "device_name"),
    )
)
_pool_fields: dict[str, Check] = {
    "label": text(1, 128),
    "description": nullable(text(0, 4096)),
    "licenses": nullable(integer(0, 320)),
    "ram": nullable(integer(0, 33_554_432)),
    "cpus": nullable(integer(0, 4096)),
    "disk_space": nullable(integer(0, 32768)),
    "external_connectors": nullable(listing(text(), 0, 128)),
}
POOL_CREATE = record(
    {**_pool_fields, "users": listing(uuid4), "shared": boolean, "template": nullable(uuid4)}, ("label",)
)
POOL_UPDATE = record(_pool_fields)
ANYTHING = anything

"""What the 2.9 API has and this controller does not simulate: each answers 501 with a sentence, after authentication.

Licence reservations (air-gapped), packet capture and pcap files, LDAP settings, groups (the list is empty), notices,
uploads and changes of images and node definitions, cloning of images, external connector changes, lab repositories and
sample labs, VIRL 1.x imports, the system archive, feedback, the web client's lab tiles, diagnostic event data. Anything
else that is asked for below /api/v0 is 404. Events over WebSocket (`/ws/ui`) are missing too.
"""

from __future__ import annotations

from .call import Call, Reply, Table

_PATHS = (
    "/licensing/reservation/{rest:path}",
    "/labs/{lab_id}/links/{link_id}/capture/{rest:path}",
    "/labs/{lab_id}/nodes/{node_id}/clone_image",
    "/pcap/{rest:path}",
    "/system/auth/{rest:path}",
    "/system/notices",
    "/system/notices/{rest:path}",
    "/system/external_connectors",
    "/system/external_connectors/{rest:path}",
    "/system/compute_hosts/configuration",
    "/groups",
    "/groups/{rest:path}",
    "/images/{rest:path}",
    "/image_definitions",
    "/image_definitions/{rest:path}",
    "/image_definition_schema",
    "/node_definitions",
    "/node_definitions/{rest:path}",
    "/node_definition_schema",
    "/import/virl-1x",
    "/lab_repos",
    "/lab_repos/{rest:path}",
    "/sample/labs",
    "/sample/labs/{rest:path}",
    "/system_archive",
    "/feedback",
    "/populate_lab_tiles",
    "/populate_lab/{lab_id}",
    "/web_session_timeout/{timeout}",
    "/diagnostic_event_data",
)
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def refuse(_call: Call) -> Reply:
    return Reply(501, {"code": 501, "description": "This part of the API is not simulated."})


def register(table: Table) -> None:
    """Adds this room's routes; comes last, so that everything simulated is found first."""
    for path in _PATHS:
        for method in _METHODS:
            table.add(method, path, refuse)

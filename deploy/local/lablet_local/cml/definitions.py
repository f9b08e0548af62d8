"""The node definitions that the simulated controller offers: a table written for this project.

A row holds what a planner and a lab need: cpus, memory (MiB), boot time (lab seconds), interfaces, images. The figures
are round numbers near what such images ask for in practice; they claim no exactness. `definition_views` turns rows into
the answers of the API.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NodeType:
    """One node definition. `ram` in MiB, `boot` in lab seconds, `ports` a pattern of interface names."""

    id: str
    label: str
    nature: str
    driver: str
    """`kvm`, `iol`, `docker` or `none`: what runs it; `none` means it needs no machine of its own."""
    cpus: int
    ram: int
    boot: float
    ports: str
    port_count: int = 8
    default_ports: int = 4
    first_port: int = 0
    management: str | None = None
    sim_driver: str = "server"
    generator: str | None = None
    prefix: str = "node"
    icon: str = "server"
    os: str = "linux"
    images: tuple[str, ...] = ()
    loopback: bool = False
    vnc: bool = False
    config_file: str = "config.txt"

    @property
    def has_console(self) -> bool:
        """True unless the node is a mere connector or wire."""
        return self.driver != "none"

    @property
    def interface_names(self) -> tuple[str, ...]:
        """The physical interfaces' names, by slot."""
        names = tuple(self.ports.format(n, n // 4, n % 4) for n in range(self.first_port, self.first_port + 64))
        if self.management:
            names = (self.management, *names)
        return names[: self.port_count]

    @property
    def default_image(self) -> str | None:
        return self.images[0] if self.images else None


_GIG = "GigabitEthernet{0}"
_BY_FOUR = "GigabitEthernet{1}/{2}"
_ETHERNET = "Ethernet{1}/{2}"


def _router(
    key: str, label: str, cpus: int, ram: int, boot: float, ports: str, images: tuple[str, ...], **more: object
) -> NodeType:
    fields: dict[str, object] = {
        "nature": "router",
        "driver": "kvm",
        "prefix": "R",
        "icon": "router",
        "loopback": True,
        "config_file": "ios_config.txt",
        **more,
    }
    return NodeType(id=key, label=label, cpus=cpus, ram=ram, boot=boot, ports=ports, images=images, **fields)  # type: ignore[arg-type]  # every key is a field of NodeType


def _linux(key: str, label: str, cpus: int, ram: int, boot: float, images: tuple[str, ...], **more: object) -> NodeType:
    fields: dict[str, object] = {
        "nature": "server",
        "driver": "docker",
        "ports": "eth{0}",
        "port_count": 8,
        "default_ports": 1,
        "prefix": key,
        "config_file": "boot.sh",
        **more,
    }
    return NodeType(id=key, label=label, cpus=cpus, ram=ram, boot=boot, images=images, **fields)  # type: ignore[arg-type]  # every key is a field of NodeType


_TABLE = (
    _router("iosv", "IOSv", 1, 512, 60, "GigabitEthernet0/{0}", ("iosv-159-3-m9", "iosv-159-3-m3"),
            port_count=16, sim_driver="iosv", generator="iosv", os="ios"),
    _router("iosvl2", "IOSvL2", 1, 768, 70, _BY_FOUR, ("iosvl2-2020", "iosvl2-2019"), nature="switch", icon="switch",
            prefix="SW", port_count=16, sim_driver="iosvl2", generator="iosvl2", os="ios"),
    _router("iol-xe", "IOL XE", 1, 768, 20, _ETHERNET, ("iol-xe-17-15-01", "iol-xe-17-12-01"), driver="iol",
            port_count=16, sim_driver="iol", generator="iosv", os="iosxe"),
    _router("ioll2-xe", "IOL L2 XE", 1, 768, 20, _ETHERNET, ("ioll2-xe-17-15-01", "ioll2-xe-17-12-01"), driver="iol",
            nature="switch", icon="switch", prefix="SW", port_count=16, sim_driver="iol-l2", generator="iosvl2",
            os="iosxe"),
    _router("csr1000v", "CSR 1000v", 1, 3072, 150, _GIG, ("csr1000v-17-03-08a", "csr1000v-161101b"), first_port=1,
            sim_driver="csr1000v", generator="csr1000v", os="iosxe", config_file="iosxe_config.txt"),
    _router("cat8000v", "Catalyst 8000V", 1, 4096, 180, _GIG, ("cat8000v-17-15-01a", "cat8000v-17-13-01a"),
            first_port=1, sim_driver="csr1000v", generator="csr1000v", os="iosxe", config_file="iosxe_config.txt"),
    *(
        _router(f"cat9000v-{kind}", label, 4, 18432, 420, "GigabitEthernet1/0/{0}",
                (f"cat9000v-{kind}-17-15-01", f"cat9000v-{kind}-17-12-01"), nature="switch", icon="switch",
                prefix="SW", first_port=1, management="GigabitEthernet0/0", port_count=25, sim_driver="cat9k",
                generator="cat9000v", os="iosxe", config_file="conf_config.txt")
        for kind, label in (("q200", "Catalyst 9000v Q200"), ("uadp", "Catalyst 9000v UADP"))
    ),
    _router("nxosv9000", "NX-OS 9300v", 2, 10240, 300, "Ethernet1/{0}",
            ("nxosv9300-10-5-1", "nxosv9300-10-4-2", "nxosv9000-9-2-3"), nature="switch", icon="switch", prefix="NX",
            first_port=1, management="mgmt0", port_count=65, sim_driver="nxosv9000", generator="nxosv9000", os="nxos",
            config_file="nxos_config.txt"),
    _router("iosxrv", "IOS XRv", 1, 3072, 180, "GigabitEthernet0/0/0/{0}", ("iosxrv-6-3-1",),
            management="MgmtEth0/0/CPU0/0", sim_driver="iosxrv", generator="iosxrv", os="iosxr",
            config_file="iosxr_config.txt"),
    _router("iosxrv9000", "IOS XRv 9000", 4, 20480, 600, "GigabitEthernet0/0/0/{0}",
            ("iosxrv9000-24-3-1", "iosxrv9000-7-11-1"), management="MgmtEth0/RP0/CPU0/0", port_count=32,
            sim_driver="iosxrv9000", generator="iosxrv9000", os="iosxr", config_file="iosxr_config.txt"),
    _router("asav", "ASAv", 1, 2048, 120, "GigabitEthernet0/{0}", ("asav-9-22-1-1", "asav-9-20-2", "asav-9-12-2"),
            nature="firewall", icon="firewall", prefix="ASA", management="Management0/0", loopback=False,
            sim_driver="asav", generator="asav", os="asa", config_file="day0-config"),
    _router("ftdv", "Secure Firewall Threat Defense Virtual", 4, 8192, 900, "GigabitEthernet0/{0}", ("ftdv-7-7-0-89",),
            nature="firewall", icon="firewall", prefix="FTD", management="Management0/0", loopback=False, vnc=True,
            sim_driver="server", generator="ftdv", os="fxos", config_file="day0-config"),
    _router("fmcv", "Secure Firewall Management Center Virtual", 4, 32768, 1800, "eth{0}", ("fmcv-7-7-0-89",),
            nature="server", icon="server", prefix="FMC", loopback=False, vnc=True, sim_driver="server",
            generator="fmcv", os="linux", config_file="day0-config"),
    _router("cat-sdwan-edge", "Catalyst SD-WAN Edge", 2, 4096, 240, _GIG, ("cat-sdwan-edge-17-16-01a",), first_port=1,
            sim_driver="csr1000v", generator="sdwan_edge", os="iosxe", config_file="ciscosdwan_cloud_init.cfg"),
    _linux("alpine", "Alpine", 1, 512, 15, ("alpine-base-3-21-3", "alpine-base-3-19-1"), driver="kvm", vnc=True,
           sim_driver="alpine", generator="alpine", config_file="node.cfg"),
    _linux("desktop", "Desktop", 1, 512, 30, ("alpine-desktop-3-21-3", "desktop"), driver="kvm", vnc=True,
           nature="host", icon="host", sim_driver="server", generator="desktop", config_file="node.cfg"),
    _linux("server", "Server", 1, 128, 10, ("tcl-16-0", "server-tcl-11-1"), driver="kvm", sim_driver="server",
           generator="server", config_file="iosxe_config.txt"),
    _linux("ubuntu", "Ubuntu", 1, 2048, 45, ("ubuntu-24-04-20250503", "ubuntu-22-04", "ubuntu-18-04"), driver="kvm",
           vnc=True, ports="ens{0}", first_port=2, sim_driver="ubuntu", generator="ubuntu", config_file="user-data"),
    _linux("coreos", "CoreOS", 1, 2048, 45, ("coreos-2135-4-0",), driver="kvm", ports="eth{0}", sim_driver="coreos",
           generator="coreos", config_file="user-data"),
    _linux("wan_emulator", "WAN emulator", 1, 512, 20, ("alpine-wanem-3-21-3", "wan_emulator"), driver="kvm",
           port_count=3, default_ports=3, nature="server", icon="cloud", sim_driver="wan_emulator",
           generator="wan_emulator", prefix="wan", config_file="node.cfg"),
    _linux("trex", "TRex", 1, 2048, 30, ("alpine-trex-3-21-3", "trex"), driver="kvm", sim_driver="trex",
           generator="trex", config_file="node.cfg"),
    _linux("chrome", "Chrome", 1, 1024, 10, ("chrome",), vnc=True, nature="host", icon="host", port_count=1),
    _linux("firefox", "Firefox", 1, 1024, 10, ("firefox",), vnc=True, nature="host", icon="host", port_count=1),
    *(
        _linux(key, label, 1, ram, 5, (f"{key}-1-0",), port_count=1)
        for key, label, ram in (
            ("dnsmasq", "Dnsmasq", 64), ("nginx", "Nginx", 64), ("frr", "FRRouting", 256),
            ("net-tools", "Net-tools", 256),
            ("radius", "FreeRADIUS", 256), ("syslog", "Syslog", 64), ("tacplus", "TACACS+", 64),
            ("thousandeyes-ea", "ThousandEyes Agent", 2048),
        )
    ),
    NodeType("external_connector", "External Connector", "external_connector", "none", 0, 0, 1, "port", 1, 1,
             sim_driver="external_connector", prefix="ext-conn", icon="cloud", config_file="default"),
    NodeType("unmanaged_switch", "Unmanaged Switch", "switch", "none", 0, 0, 1, "port{0}", 32, 8,
             sim_driver="unmanaged_switch", prefix="unmanaged-switch", icon="switch", config_file="default"),
)  # fmt: skip

NODE_TYPES: dict[str, NodeType] = {row.id: row for row in _TABLE}
IMAGES: dict[str, NodeType] = {image: row for row in _TABLE for image in row.images}

"""A small IOS-like command line over a node's running configuration.

Enough for a person or a script to log in, look, change the configuration and save it: what is typed in configuration
mode becomes part of the text that `extract_configuration` collects. It does not check whether a line means anything,
and nothing is forwarded because of it. Pure: lines in, text out; `console` moves the bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

_OPENS_SECTION = re.compile(
    r"(interface|router|line|vlan|controller|class-map|policy-map|route-map|vrf definition|ip vrf|ip access-list"
    r"|ipv6 access-list|ip dhcp pool|ip sla|key chain|crypto (map|pki|isakmp|ipsec profile)|aaa group|track"
    r"|telemetry|flow|object-group|banner) \S",
    re.IGNORECASE,
)
_ALWAYS_GLOBAL = re.compile(
    r"(no )?(hostname|username|enable (secret|password)|ip route|ip domain|snmp-server|ntp|logging)\b", re.IGNORECASE
)
_SINGLE_VALUED = ("ip address ", "description ", "ip ospf cost ", "bandwidth ", "switchport access vlan ")
_MODE = {"interface": "if", "router": "router", "line": "line", "vlan": "vlan"}


class RunningConfig:
    """The configuration in a node's memory: text lines, kept in order, comments included."""

    def __init__(self, text: str, label: str) -> None:
        self.lines = text.splitlines() or [f"hostname {label}"]
        self._label = label

    def __str__(self) -> str:
        return "\n".join(self.lines)

    @property
    def hostname(self) -> str:
        """From the first `hostname` line, else the node's label."""
        for line in self.lines:
            if line.startswith("hostname "):
                return line.split(None, 1)[1].strip() or self._label
        return self._label

    def open_section(self, header: str) -> None:
        """Makes sure that a section with this header line exists."""
        if header not in self.lines:
            self._append([header])

    def put(self, line: str, section: str | None) -> None:
        """Types one line: `no X` removes X (or is kept where there is no X); the rest is added once."""
        if line.startswith("no "):
            if not self._remove(line[3:], section) and line != "no shutdown":
                self._insert(line, section)
        elif section is None and line.startswith("hostname "):
            if not self._replace("hostname ", line):
                self.lines.insert(0, line)
        else:
            self._supersede(line, section)
            self._insert(line, section)

    def addresses(self) -> dict[str, str]:
        """Interface name → its `ip address`, as the configuration has it."""
        found: dict[str, str] = {}
        section = ""
        for line in self.lines:
            if not line.startswith(" "):
                section = line.split(None, 1)[1] if line.startswith("interface ") else ""
            elif section and (match := re.match(r"\s+ip address (\d+\.\d+\.\d+\.\d+)", line)):
                found.setdefault(section, match[1])
        return found

    def _supersede(self, line: str, section: str | None) -> None:
        """Drops the `no …` that the line undoes, and the old value where there can be only one."""
        first, last = self._span(section)
        indent = "" if section is None else " "
        single = next((start for start in _SINGLE_VALUED if line.startswith(start)), None)
        for index in range(last - 1, first - 1, -1):
            old = self.lines[index].removeprefix(indent)
            undone = old.startswith("no ") and (line + " ").startswith(old[3:] + " ")
            if undone or (single and old.startswith(single) and not line.endswith(" secondary")):
                del self.lines[index]

    def _span(self, section: str | None) -> tuple[int, int]:
        """The half-open range of lines that belong to the section's body, or the whole text."""
        if section is None or section not in self.lines:
            return 0, len(self.lines)
        first = self.lines.index(section) + 1
        last = first
        while last < len(self.lines) and self.lines[last].startswith(" "):
            last += 1
        return first, last

    def _insert(self, line: str, section: str | None) -> None:
        if section is None:
            if line not in self.lines:
                self._append([line])
            return
        self.open_section(section)
        first, last = self._span(section)
        if f" {line}" not in self.lines[first:last]:
            self.lines.insert(last, f" {line}")

    def _append(self, block: list[str]) -> None:
        place = len(self.lines)
        if place and self.lines[-1].strip() == "end":
            place -= 1
        self.lines[place:place] = block

    def _remove(self, line: str, section: str | None) -> bool:
        if section is not None and section not in self.lines:
            return False
        first, last = self._span(section)
        indent = "" if section is None else " "
        wanted = indent + line
        doomed = [n for n in range(first, last) if self.lines[n] == wanted or self.lines[n].startswith(wanted + " ")]
        for index in reversed(doomed):
            end = index + 1
            if section is None and _OPENS_SECTION.match(line):
                end = self._span(self.lines[index])[1]
            del self.lines[index:end]
        return bool(doomed)

    def _replace(self, start: str, line: str) -> bool:
        for index, old in enumerate(self.lines):
            if old.startswith(start):
                self.lines[index] = line
                return True
        return False


def short_for(typed: str, command: str) -> bool:
    """True when the words of `typed` abbreviate the words of `command`, one by one (`sh run`)."""
    words, full = typed.lower().split(), command.split()
    return len(words) == len(full) and all(whole.startswith(word) for word, whole in zip(words, full, strict=True))


@dataclass(slots=True)
class Device:
    """What a session acts on: the configuration, and how the node is called and saved."""

    config: RunningConfig
    kind: str
    uptime: Callable[[], float]
    save: Callable[[str], None]
    """Called with the text when the user writes memory."""


class Session:
    """One user's session on a device: keeps the mode, answers each line with its output."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._privileged = False
        self._configuring = False
        self._section: str | None = None
        self.closed = False
        """True after `exit` in exec mode: the caller hangs up."""

    @property
    def prompt(self) -> str:
        name = self._device.config.hostname
        if self._configuring:
            mode = "config"
            if self._section is not None:
                mode += "-" + _MODE.get(self._section.split()[0].lower(), "sub")
            return f"{name}({mode})#"
        return name + ("#" if self._privileged else ">")

    def answer(self, line: str) -> str:
        """The output of one typed line, without the prompt, each output line ended by a newline."""
        line = line.strip()
        if not line or line.startswith("!"):
            return ""
        return self._configure(line) if self._configuring else self._execute(line)

    def _configure(self, line: str) -> str:
        if short_for(line, "end"):
            self._configuring, self._section = False, None
            return ""
        if short_for(line, "exit") and len(line) > 1:
            if self._section is None:
                self._configuring = False
            self._section = None
            return ""
        if line.lower().startswith("do "):
            return self._execute(line[3:].strip())
        if _OPENS_SECTION.match(line):
            self._section = line
            self._device.config.open_section(line)
        elif _ALWAYS_GLOBAL.match(line) or (line.startswith("no ") and _OPENS_SECTION.match(line[3:])):
            self._section = None
            self._device.config.put(line, None)
        else:
            self._device.config.put(line, self._section)
        return ""

    def _execute(self, line: str) -> str:
        for command, action in self._commands().items():
            if short_for(line, command):
                return action()
        first = line.split()[0].lower()
        if first in ("ping", "traceroute", "telnet", "ssh"):
            return "% Nothing is forwarded in this simulation.\n"
        return f"{' ' * len(self.prompt)}^\n% Invalid input detected at '^' marker.\n\n"

    def _commands(self) -> dict[str, Callable[[], str]]:
        always: dict[str, Callable[[], str]] = {
            "enable": self._enable,
            "exit": self._leave,
            "logout": self._leave,
            "quit": self._leave,
            "show version": self._version,
            "show clock": lambda: f"up {self._device.uptime():.0f} seconds\n",
            "show ip interface brief": self._interfaces,
            "terminal length 0": str,
            "terminal width 0": str,
            "?": lambda: "\n".join(f"  {name}" for name in self._commands()) + "\n",
        }
        if not self._privileged:
            return always
        return always | {
            "disable": self._disable,
            "configure terminal": self._enter_configuration,
            "show running-config": self._show,
            "show startup-config": self._show,
            "write memory": self._save,
            "write": self._save,
            "copy running-config startup-config": self._save,
        }

    def _enable(self) -> str:
        self._privileged = True
        return ""

    def _disable(self) -> str:
        self._privileged = False
        return ""

    def _leave(self) -> str:
        self.closed = True
        return ""

    def _enter_configuration(self) -> str:
        self._configuring = True
        return "Enter configuration commands, one per line.  End with CNTL/Z.\n"

    def _version(self) -> str:
        name = self._device.config.hostname
        return f"{self._device.kind} (simulated)\n{name} uptime is {self._device.uptime():.0f} seconds\n"

    def _interfaces(self) -> str:
        rows = "".join(f"{name:<27}{address:<16}up\n" for name, address in self._device.config.addresses().items())
        return f"{'Interface':<27}{'IP-Address':<16}Status\n{rows}"

    def _show(self) -> str:
        text = str(self._device.config)
        return f"Building configuration...\n\nCurrent configuration : {len(text)} bytes\n{text}\nend\n\n"

    def _save(self) -> str:
        self._device.save(str(self._device.config))
        return "Building configuration...\n[OK]\n"

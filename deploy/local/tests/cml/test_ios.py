"""The command line: modes, abbreviations, and what becomes of typed lines."""

from __future__ import annotations

import pytest

from lablet_local.cml.ios import Device, RunningConfig, Session

START = """!
hostname R1
!
interface GigabitEthernet0/0
 no ip address
 shutdown
!
interface GigabitEthernet0/1
 ip address 10.0.0.1 255.255.255.0
!
end"""


@pytest.fixture
def device() -> Device:
    return Device(RunningConfig(START, "r1"), "IOSv", lambda: 61.0, lambda text: None)


@pytest.fixture
def session(device: Device) -> Session:
    return Session(device)


def typed(session: Session, *lines: str) -> str:
    return "".join(session.answer(line) for line in lines)


def test_prompts_follow_the_mode(session: Session) -> None:
    seen = [session.prompt]
    for line in ("en", "conf t", "interface GigabitEthernet0/0", "exit", "hostname EDGE", "end", "disable"):
        session.answer(line)
        seen.append(session.prompt)
    assert seen == ["R1>", "R1#", "R1(config)#", "R1(config-if)#", "R1(config)#", "EDGE(config)#", "EDGE#", "EDGE>"]


def test_lines_land_in_their_section(session: Session, device: Device) -> None:
    typed(session, "enable", "conf t", "interface GigabitEthernet0/0", "ip address 10.9.9.9 255.255.255.0")
    typed(session, "no shutdown", "description uplink", "router ospf 1", "network 10.0.0.0 0.0.0.255 area 0", "end")
    text = str(device.config)
    assert "interface GigabitEthernet0/0\n ip address 10.9.9.9 255.255.255.0\n description uplink\n!" in text
    assert text.endswith("router ospf 1\n network 10.0.0.0 0.0.0.255 area 0\nend")
    assert device.config.addresses() == {"GigabitEthernet0/0": "10.9.9.9", "GigabitEthernet0/1": "10.0.0.1"}


def test_no_removes_a_line_and_a_whole_section(session: Session, device: Device) -> None:
    typed(session, "enable", "conf t", "interface GigabitEthernet0/1", "no ip address")
    assert device.config.addresses() == {}
    typed(session, "no interface GigabitEthernet0/0")
    assert "GigabitEthernet0/0" not in str(device.config)
    assert "interface GigabitEthernet0/1" in str(device.config)


def test_arbitrary_lines_are_kept_once(session: Session, device: Device) -> None:
    typed(session, "enable", "conf t", "banner-of-seat 7", "banner-of-seat 7", "hostname", "end")
    assert str(device.config).count("banner-of-seat 7") == 1


def test_show_running_config_shows_what_was_typed(session: Session) -> None:
    assert "Invalid input" in session.answer("show running-config")
    typed(session, "enable", "conf t", "ntp server 1.2.3.4")
    assert "ntp server 1.2.3.4" in session.answer("do sh run")
    session.answer("end")
    assert "ntp server 1.2.3.4" in session.answer("sh run")


def test_write_memory_saves_and_exit_hangs_up() -> None:
    saved: list[str] = []
    session = Session(Device(RunningConfig("", "r9"), "IOSv", lambda: 1.0, saved.append))
    assert "[OK]" in typed(session, "en", "wr")
    assert saved == ["hostname r9"]
    session.answer("exit")
    assert session.closed


def test_nonsense_is_answered_like_ios(session: Session) -> None:
    assert "% Invalid input detected at '^' marker." in session.answer("frobnicate")
    assert session.answer("") == ""

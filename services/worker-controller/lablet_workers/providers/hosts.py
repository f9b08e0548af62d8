"""The file that names hosts which already exist: which worker each serves, where it is, and whether it is off.

    hosts:
      - worker: rack-001
        url: https://10.0.0.11
      - worker: rack-002
        url: https://10.0.0.12
        host: labs-12.example.net   # where labs' ports answer; without it the URL's host
        off: true                   # an operator's word: nothing runs on it

The file is read again when it changes. A file that cannot be read is an error of every call, never an absence of hosts.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from lablet_common.resources.model import Name


class HostsError(Exception):
    """The file cannot be used; the message names the place and the remedy."""


class Host(BaseModel):
    """One host."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    worker: Name
    url: str
    host: str = ""
    off: bool = False
    """Only an operator can know that a host without power management runs nothing any more."""

    @field_validator("url")
    @classmethod
    def _whole(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("give the whole address, such as https://10.0.0.11")
        return value.rstrip("/")

    @property
    def name(self) -> str:
        """Where labs' ports answer."""
        return self.host or str(urlsplit(self.url).hostname)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    hosts: tuple[Host, ...] = Field(default=())

    @model_validator(mode="after")
    def _once(self) -> "_File":
        workers, urls = [host.worker for host in self.hosts], [host.url for host in self.hosts]
        for what, values in (("worker", workers), ("url", urls)):
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                raise ValueError(f"{what} {', '.join(twice)} stands there more than once")
        return self


@dataclass(slots=True)
class HostsFile:
    """The file's present content, by worker."""

    path: Path
    _stamp: tuple[int, int] | None = None
    _hosts: dict[str, Host] | None = None

    def hosts(self) -> dict[str, Host]:
        """Raises `HostsError`."""
        try:
            status = self.path.stat()
            stamp = (status.st_mtime_ns, status.st_size)
            if self._hosts is None or stamp != self._stamp:
                self._hosts, self._stamp = _read(self.path), stamp
        except OSError as error:
            raise HostsError(f"{self.path} (STATIC_HOSTS_FILE) cannot be read: {error.strerror}") from error
        return self._hosts


def _read(path: Path) -> dict[str, Host]:
    try:
        document: Any = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
        return {host.worker: host for host in _File.model_validate(document or {}).hosts}
    except YAMLError as error:
        raise HostsError(f"{path} is not YAML: {error}") from error
    except ValidationError as error:
        places = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise HostsError(f"{path}: {places}") from error

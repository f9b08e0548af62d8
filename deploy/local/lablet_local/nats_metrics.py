"""What NATS tells about itself, for Prometheus: `python -m lablet_local.nats_metrics --monitor http://nats:8222`.

NATS has a monitoring port that speaks JSON. Each scrape asks it anew (`/varz` and `/jsz`) and gives the few numbers that
the dashboards, the alerts and KEDA's thresholds speak of. Names and labels are those of NATS' own Prometheus exporter, so
that either can feed them. Of several servers the first that answers tells. While none does, `nats_up` is 0 and the rest is
left out.
"""

import argparse
import json
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

Json = dict[str, Any]
_SECONDS = 3.0
_SERVER = {
    "connections": "Open connections",
    "slow_consumers": "Connections that were cut because they did not read fast enough",
    "in_msgs": "Messages taken in",
    "out_msgs": "Messages given out",
    "mem": "Memory of the server in bytes",
}
_STREAM = {"messages": "Messages kept", "bytes": "Bytes kept", "consumer_count": "Consumers"}
_CONSUMER = {
    "num_pending": "Messages that wait to be handed out",
    "num_ack_pending": "Messages handed out and not acknowledged",
    "num_redelivered": "Messages handed out more than once",
}


def ask(monitor: str, path: str) -> Json:
    """One answer of the monitoring port. Raises `OSError`."""
    with urllib.request.urlopen(f"{monitor}{path}", timeout=_SECONDS) as answer:  # noqa: S310 - our own address
        body: Json = json.load(answer)
    return body


def server_metrics(varz: Json) -> Iterator[Metric]:
    for name, meaning in _SERVER.items():
        yield GaugeMetricFamily(f"gnatsd_varz_{name}", meaning, value=float(varz.get(name, 0)))


def stream_metrics(jsz: Json) -> Iterator[Metric]:
    """Streams and their durable consumers, of every account."""
    streams = [stream for account in jsz.get("account_details") or [] for stream in account.get("stream_detail") or []]
    for name, meaning in _STREAM.items():
        family = GaugeMetricFamily(f"jetstream_stream_total_{name}", meaning, labels=["stream_name"])
        for stream in streams:
            family.add_metric([stream["name"]], float(stream["state"].get(name, 0)))
        yield family
    for name, meaning in _CONSUMER.items():
        family = GaugeMetricFamily(f"jetstream_consumer_{name}", meaning, labels=["stream_name", "consumer_name"])
        for stream in streams:
            for consumer in stream.get("consumer_detail") or []:
                family.add_metric([stream["name"], consumer["name"]], float(consumer.get(name, 0)))
        yield family


class NatsMetrics(Collector):
    """Asks the first server that answers, at each scrape."""

    def __init__(self, *monitors: str) -> None:
        self._monitors = [monitor.rstrip("/") for monitor in monitors]

    def describe(self) -> Iterator[Metric]:
        """Nothing, so that registering does not ask."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        for monitor in self._monitors:
            try:
                varz = ask(monitor, "/varz")
                jsz = ask(monitor, "/jsz?streams=true&consumers=true")
            except OSError as error:
                print(f"{monitor} does not answer: {error}", file=sys.stderr)
                continue
            yield GaugeMetricFamily("nats_up", "1 where a server answers", value=1)
            yield from server_metrics(varz)
            yield from stream_metrics(jsz)
            return
        yield GaugeMetricFamily("nats_up", "1 where a server answers", value=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--monitor", required=True, action="append", help="the monitoring port of a server; repeatable, for several"
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9102)
    options = parser.parse_args()
    registry = CollectorRegistry()
    registry.register(NatsMetrics(*options.monitor))
    _, thread = start_http_server(options.port, addr=options.host, registry=registry)
    thread.join()


if __name__ == "__main__":
    main()

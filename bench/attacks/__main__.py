"""Latency of health probes during attacks on connections, relative to the same service without an attack.

Every attack runs against the port for predictions. Probes are sent to that port and to the port for probes.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.attacks.connections import Target
from bench.attacks.kinds import ATTACKS
from bench.attacks.probes import Probes, probe_all
from bench.attacks.running import running_attack
from tests.harness.ports import free_port
from tests.harness.records import RELIABILITY_RECORDS, print_record, record_parser
from tests.harness.server import Server, running_server
from wholetrack.decoding.ffmpeg import find_ffmpeg
from wholetrack.settings import Settings


def make_recording(target: Path, *, seconds: int) -> None:
    """Write a tone: few bytes, for the duration, whose prediction is a large response."""
    source = ["-f", "lavfi", "-i", f"sine=f=330:r=16000:d={seconds}"]
    command = [str(find_ffmpeg().path), "-v", "error", "-nostdin", "-y", *source, "-c:a", "aac", "-b:a", "8k"]
    subprocess.run([*command, str(target)], check=True)


def probe_settings() -> dict[str, Any]:
    """Return the setting that opens a port for probes, if the service has one."""
    return {"probe_port": free_port()} if "probe_port" in Settings.model_fields else {}


def measure(server: Server, target: Target, ports: Mapping[str, int], name: str, seconds: float) -> dict[str, Any]:
    """Probe a service without and with an attack, and return the figures of both."""
    before = probe_all(target.host, ports, seconds=seconds / 2)
    with running_attack(name, target, seconds=seconds) as attack:
        during = probe_all(target.host, ports, seconds=seconds)
    server.wait_until_clean(60)
    return {
        "clients": ATTACKS[name].n_clients,
        "connections": attack.tally.connections,
        "sent_mib": round(attack.tally.sent_bytes / (1 << 20), 1),
        "responses": {str(status): n for status, n in sorted(attack.tally.responses.items())},
        **{port: compare(before[port], during[port]) for port in ports},
    }


def compare(before: Probes, during: Probes) -> dict[str, Any]:
    """Return the figures of the probes of one port, and the ratios of their latencies."""
    one, other = before.as_dict(), during.as_dict()
    return {
        "before": one,
        "during": other,
        "median_ratio": round(other["median_ms"] / one["median_ms"], 1),
        "worst_ratio": round(other["worst_ms"] / one["worst_ms"], 1),
    }


def main() -> None:
    """Run the attacks."""
    parser = record_parser(__doc__, folder=RELIABILITY_RECORDS)
    parser.add_argument("attacks", nargs="*", metavar="ATTACK", help=f"of {', '.join(ATTACKS)}; all by default")
    parser.add_argument("--seconds", type=float, default=30.0, help="duration of each attack")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, settings = Path(name), probe_settings()
        recording = folder / "recording.m4a"
        make_recording(recording, seconds=3600)
        # Slow readers are meant to wait for their responses, not for the processor.
        with running_server(folder, cache_mb=64, max_wait_s=3600, **settings) as server:
            server.post(recording, hop_s=0.54).raise_for_status()
            host, port = server.url.removeprefix("http://").split(":")
            target = Target(host, int(port), recording)
            ports = {"main_port": int(port)} | settings
            results = {
                attack: measure(server, target, ports, attack, options.seconds) for attack in options.attacks or ATTACKS
            }
    print_record("attacks", {"seconds": options.seconds, "attacks": results}, folder=options.record)


if __name__ == "__main__":
    main()

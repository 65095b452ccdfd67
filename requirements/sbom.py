#!/usr/bin/env python3
"""A CycloneDX bill of materials of the service: cyclonedx-py's of the pins, and what no requirements file names.

That is the ffmpeg within the package imageio-ffmpeg, which is the largest piece of foreign code that meets files of
strangers, and the bundles of models. The same inputs give the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_PROJECT = Path(__file__).parent.parent
_SPECIFICATION = "1.6"
_BINARY = re.compile(r"^ffmpeg-(?P<platform>.+)-v(?P<version>[0-9.]+)(\.exe)?$")


def bill(requirements: Path, ffmpeg: Path | None) -> dict[str, Any]:
    """The bill of materials of a file of pins.

    Args:
        requirements: the file.
        ffmpeg: the binary that imageio-ffmpeg ships for this machine; None where it ships none.
    """
    # The schema is checked when all is there.
    command = [sys.executable, "-m", "cyclonedx_py", "requirements", "--output-reproducible", "--no-validate"]
    command += ["--spec-version", _SPECIFICATION, "--pyproject", str(_PROJECT / "pyproject.toml"), str(requirements)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    return complete(json.loads(done.stdout), ffmpeg, sorted(_PROJECT.glob("models/*/*/model.json")))


def complete(found: dict[str, Any], ffmpeg: Path | None, cards: list[Path]) -> dict[str, Any]:
    """A bill with the service's version, ffmpeg, and the bundles beside these cards."""
    version = re.search(
        r'^__version__ = "(.+)"', (_PROJECT / "service/wholetrack/__init__.py").read_text(), re.MULTILINE
    )
    assert version
    found["metadata"]["component"]["version"] = version[1]
    additions = [_model(card) for card in cards]
    if ffmpeg:
        additions.append(_ffmpeg(ffmpeg))
        package = next(each["bom-ref"] for each in found["components"] if each["name"] == "imageio-ffmpeg")
        graph = next(each for each in found["dependencies"] if each["ref"] == package)
        graph.setdefault("dependsOn", []).append(additions[-1]["bom-ref"])
    found["components"] += additions
    found["dependencies"] += [{"ref": each["bom-ref"]} for each in additions]
    return found


def _ffmpeg(binary: Path) -> dict[str, Any]:
    named = _BINARY.match(binary.name)
    if not named:
        raise SystemExit(f"imageio-ffmpeg calls its binary {binary.name}, which tells no version")
    return {
        "type": "application",
        "bom-ref": "ffmpeg",
        "name": "ffmpeg",
        "version": named["version"],
        "description": f"in the package imageio-ffmpeg for {named['platform']}; used where PATH has no other",
        "purl": f"pkg:generic/ffmpeg@{named['version']}",
        "cpe": f"cpe:2.3:a:ffmpeg:ffmpeg:{named['version']}:*:*:*:*:*:*:*",
        "hashes": [_sha256(binary)],
    }


def _model(card: Path) -> dict[str, Any]:
    told = json.loads(card.read_text())
    reference = f"model-{told['name']}-{told['version']}"
    return {
        "type": "machine-learning-model",
        "bom-ref": reference,
        "name": told["name"],
        "version": told["version"],
        "description": told["summary"],
        "licenses": [{"license": {"id": told["licence"]}}],
        "components": list(_files(card.parent, reference)),
    }


def _files(folder: Path, reference: str) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.iterdir()):
        yield {
            "type": "file",
            "bom-ref": f"{reference}/{path.name}",
            "name": path.name,
            "hashes": [_sha256(path)],
        }


def _sha256(path: Path) -> dict[str, str]:
    with path.open("rb") as file:
        return {"alg": "SHA-256", "content": hashlib.file_digest(file, "sha256").hexdigest()}


def _check(text: str) -> None:
    """Hold a bill against the schema."""
    from cyclonedx.schema import SchemaVersion  # type: ignore[import-not-found]
    from cyclonedx.validation.json import JsonStrictValidator  # type: ignore[import-not-found]

    if error := JsonStrictValidator(SchemaVersion.from_version(_SPECIFICATION)).validate_str(text):
        raise SystemExit(f"not by the schema of CycloneDX {_SPECIFICATION}: {error}")


def main() -> None:
    """Write the bill of one file of pins."""
    parser = argparse.ArgumentParser(description="Write a CycloneDX bill of materials.")
    parser.add_argument("requirements", type=Path, help="the file of pins")
    parser.add_argument("--ffmpeg", type=Path, help="the binary within imageio-ffmpeg")
    parser.add_argument("--to", type=Path, required=True, help="the file to write")
    options = parser.parse_args()
    text = json.dumps(bill(options.requirements, options.ffmpeg), indent=2, sort_keys=True) + "\n"
    _check(text)
    options.to.parent.mkdir(parents=True, exist_ok=True)
    options.to.write_text(text)
    print(f"{options.to}: {len(json.loads(text)['components'])} components")


if __name__ == "__main__":
    main()

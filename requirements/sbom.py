#!/usr/bin/env python3
"""Write a CycloneDX bill of materials (SBOM) of the service.

cyclonedx-py lists the pinned packages. This script adds the version of the service, the ffmpeg binary in the package
imageio-ffmpeg, which is the largest third-party component that processes untrusted files, the npm packages that are
bundled into the page, the font of pictures, and the model bundles. The same inputs produce the same bytes.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

_PROJECT = Path(__file__).parent.parent
_SPECIFICATION = "1.6"
_BINARY = re.compile(r"^ffmpeg-(?P<platform>.+)-v(?P<version>[0-9.]+)(\.exe)?$")


def create_sbom(requirements: Path, ffmpeg: Path | None) -> dict[str, Any]:
    """Return the SBOM of a requirements file.

    Args:
        requirements: Requirements file with pins.
        ffmpeg: The binary of imageio-ffmpeg for this machine; None if there is none.
    """
    # The schema is validated after everything is added.
    command = [sys.executable, "-m", "cyclonedx_py", "requirements", "--output-reproducible", "--no-validate"]
    command += ["--spec-version", _SPECIFICATION, "--pyproject", str(_PROJECT / "pyproject.toml"), str(requirements)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    cards = sorted(_PROJECT.glob("models/*/*/model.json"))
    return complete(json.loads(done.stdout), ffmpeg, cards, _PROJECT / "page/package-lock.json")


def complete(sbom: dict[str, Any], ffmpeg: Path | None, cards: list[Path], page: Path) -> dict[str, Any]:
    """Add components to an SBOM and return it.

    Args:
        sbom: The SBOM of the packages of the service.
        ffmpeg: The binary of imageio-ffmpeg; None if there is none.
        cards: The ``model.json`` of each bundle.
        page: The ``package-lock.json`` of the page.
    """
    version = re.search(
        r'^__version__ = "(.+)"', (_PROJECT / "service/wholetrack/__init__.py").read_text(), re.MULTILINE
    )
    assert version
    sbom["metadata"]["component"]["version"] = version[1]
    additions = [*(_model(card) for card in cards), *_npm_packages(page), _font()]
    if ffmpeg:
        additions.append(_ffmpeg(ffmpeg))
        package = next(each["bom-ref"] for each in sbom["components"] if each["name"] == "imageio-ffmpeg")
        graph = next(each for each in sbom["dependencies"] if each["ref"] == package)
        graph.setdefault("dependsOn", []).append(additions[-1]["bom-ref"])
    sbom["components"] += additions
    sbom["dependencies"] += [{"ref": each["bom-ref"]} for each in additions]
    return sbom


def _ffmpeg(binary: Path) -> dict[str, Any]:
    named = _BINARY.match(binary.name)
    if not named:
        raise SystemExit(f"the name of imageio-ffmpeg's binary contains no version: {binary.name}")
    return {
        "type": "application",
        "bom-ref": "ffmpeg",
        "name": "ffmpeg",
        "version": named["version"],
        "description": f"in the package imageio-ffmpeg for {named['platform']}; used if PATH has no ffmpeg",
        "purl": f"pkg:generic/ffmpeg@{named['version']}",
        "cpe": f"cpe:2.3:a:ffmpeg:ffmpeg:{named['version']}:*:*:*:*:*:*:*",
        "hashes": [_sha256(binary)],
    }


def _model(card: Path) -> dict[str, Any]:
    contract = json.loads(card.read_text())
    reference = f"model-{contract['name']}-{contract['version']}"
    return {
        "type": "machine-learning-model",
        "bom-ref": reference,
        "name": contract["name"],
        "version": contract["version"],
        "description": contract["summary"],
        "licenses": [{"license": {"id": contract["licence"]}}],
        "components": list(_files(card.parent, reference)),
    }


def _npm_packages(lock: Path) -> Iterator[dict[str, Any]]:
    """Yield the packages that the built page contains; those that only build or test it are not part of the service."""
    for path, package in json.loads(lock.read_text())["packages"].items():
        if not path or package.get("dev"):
            continue
        name = path.rpartition("node_modules/")[2]
        purl = f"pkg:npm/{quote(name, safe='/')}@{package['version']}"
        algorithm, _, digest = package["integrity"].partition("-")
        if algorithm != "sha512":
            raise SystemExit(f"{lock}: the hash of {name} is not SHA-512")
        yield {
            "type": "library",
            "bom-ref": purl,
            "name": name,
            "version": package["version"],
            "description": "bundled into the page",
            "purl": purl,
            "licenses": [{"license": {"id": package["license"]}}],
            "hashes": [{"alg": "SHA-512", "content": base64.b64decode(digest).hex()}],
        }


def _font() -> dict[str, Any]:
    return {
        "type": "library",
        "bom-ref": "dejavu-fonts",
        "name": "dejavu-fonts",
        "version": "2.37",
        "description": "DejaVu Sans, the font of pictures",
        "purl": "pkg:generic/dejavu-fonts@2.37",
        "licenses": [{"license": {"id": "Bitstream-Vera"}}],
        "hashes": [_sha256(_PROJECT / "service/wholetrack/api/fonts/DejaVuSans.ttf")],
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


def _validate(text: str) -> None:
    """Validate an SBOM against the schema."""
    from cyclonedx.schema import SchemaVersion  # type: ignore[import-not-found]
    from cyclonedx.validation.json import JsonStrictValidator  # type: ignore[import-not-found]

    if error := JsonStrictValidator(SchemaVersion.from_version(_SPECIFICATION)).validate_str(text):
        raise SystemExit(f"invalid CycloneDX {_SPECIFICATION}: {error}")


def main() -> None:
    """Write the SBOM of one requirements file."""
    parser = argparse.ArgumentParser(description="Write a CycloneDX bill of materials (SBOM).")
    parser.add_argument("requirements", type=Path, help="requirements file with pins")
    parser.add_argument("--ffmpeg", type=Path, help="binary in the package imageio-ffmpeg")
    parser.add_argument("--to", type=Path, required=True, help="file to write")
    options = parser.parse_args()
    text = json.dumps(create_sbom(options.requirements, options.ffmpeg), indent=2, sort_keys=True) + "\n"
    _validate(text)
    options.to.parent.mkdir(parents=True, exist_ok=True)
    options.to.write_text(text)
    print(f"{options.to}: {len(json.loads(text)['components'])} components")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Write ``docs/model-bundle.md``, the reference for ``model.json``, from the schema that the service validates.

``python docs/model_bundle.py`` writes the page, and ``python docs/model_bundle.py --check`` fails if it is out of date.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wholetrack.contracts import HeadCard, ModelCard

PAGE = Path(__file__).with_name("model-bundle.md")

_INTRODUCTION = """\
# Model bundles

A bundle is a folder with everything that determines a prediction. The service serves any bundle that satisfies the
contract below. If a bundle does not, the service refuses to start and reports what is wrong. A bundle that satisfies
the contract but does not run on the device is unavailable: the others are served, unless it is the default.

```
models/<name>/<version>/
    model.onnx        the network
    model.json        the contract: labels, audio, windows, inputs and outputs
    golden.npz        input windows and the outputs that the network must return for them
    model.int8.onnx   the network in 8-bit integers, for CPUs (optional)
    model.strips.onnx the network for windows that overlap, for CPUs (optional)
    CARD.md           the model card, for people to read: training data, metrics, limitations
```

The bundles `wholetrack-crnn` and `wholetrack-crnn-gtzan` are part of the package. In a checkout, all bundles below
`models/` are served.
`WHOLETRACK_MODELS_DIR` adds a folder of your own. The newest version of each name is served; if the versions are equal,
the one in your folder. With `WHOLETRACK_MODEL_VERSIONS=all` the older ones are served, too, and requests name them as
`NAME@VERSION`; each takes as much memory and time at start-up as a model of its own. Every folder there must be a model
and every folder in it a complete bundle; files, hidden folders and `lost+found` are ignored.

At start-up the service checks the schema version, the SHA-256 of every file, and the names and shapes of the network's
inputs and outputs. It then runs the golden windows on the device in use and compares the outputs.
`wholetrack-train publish` writes complete bundles.

`golden.npz` contains float32 arrays. The inputs are the normalised `windows`, `[n, frames, n_mels]`; if there are
several inputs, `windows.NAME` for each. The outputs are `probabilities`, `[n, labels]`, or `[n, steps, labels]` for a
network with several steps per window; `tags`, `[n, tags]`, before their calibration; and `embedding`, `[n, length]`,
scaled to unit length.

## Strips

A network whose convolutions do not depend on the window can compute them once for all windows that overlap. Its bundle
has a second graph, which gets a strip, consecutive frames, and the first frame of each window in it, and returns one
row for each window. The service uses this graph on CPUs in float32, at any hop, and `model.onnx` otherwise. Both must
give the same results: a window may depend on its own frames only, so that convolutions are not padded in time and
nothing is normalised with values from outside of it. Strips of several tracks follow one another in a run. At start-up,
the service runs the golden windows with the second graph, and compares windows that overlap with the same windows
apart.

## Heads

A head is a model without a network. Its genres are a linear function of other outputs of another model, its base, so
that it takes a few kilobytes for each genre and hardly any time:

```
models/<name>/<version>/
    model.json        the contract, with the fields of HeadCard
    head.npz          the weights
    report.json       figures (not read by the service)
    CARD.md           the report, for people to read
```

`head.npz` contains the float32 arrays `weights`, `[labels, length]`, and `bias`, `[labels]`. The probabilities of a
window are the softmax of `weights @ inputs + bias`. The field `inputs` of `head` says which outputs of the network
follow one another there: `embedding`, of unit length, and `tags`, the logits `log(p / (1 - p))` of the probabilities
before their calibration, with `p` limited to 0.0001 to 0.9999. Without the field it is the embedding alone. Everything
else, such as windows, tags and the embedding itself, comes from the base. The service checks that the base is among
the models found, that its network has the SHA-256 in `head_of` and yields these outputs, and that the weights fit their
lengths and the labels. A head uses the session of its base, so that windows for both run in the same batches. It is
available as long as its base is. The version of the base that a head needs is served even if there is a newer one.
`wholetrack-train head` writes such bundles ([training.md](training.md#your-own-genres)).

## Version 1

Version 1, for networks with one input and one output, is converted when it is loaded. It has `features` as in
[FeatureSpec](#featurespec), `windows` with the additional field `frames`, and `onnx` with the names `input` and
`output`, the `shape` of the input, `yields`, `steps` and `opset`, in place of `inputs`, `outputs` and `opset`. Bundles
that state no `schema_version` have version 1. `wholetrack-train` writes version 2.

This page is generated from the schema by `python docs/model_bundle.py`."""


def page() -> str:
    """Return the whole page."""
    schema = ModelCard.model_json_schema()
    parts = [_INTRODUCTION, *_section("model.json", schema)]
    described = list(dict.fromkeys(_references(schema, schema["$defs"])))
    for name in described:
        parts += _section(name, schema["$defs"][name])
    head = HeadCard.model_json_schema()
    parts += _section("HeadCard", head)
    for name in dict.fromkeys(_references(head, head["$defs"])):
        if name not in described:
            parts += _section(name, head["$defs"][name])
    return "\n\n".join(parts) + "\n"


def _section(title: str, schema: dict[str, Any]) -> Iterator[str]:
    yield f"## {title}"
    yield _prose(schema["description"])
    required = set(schema.get("required", ()))
    rows = ["| field | type | default | |", "|---|---|---|---|"]
    for name, field in schema["properties"].items():
        default = "required" if name in required else f"`{field['default']}`" if field.get("default") else "absent"
        rows.append(f"| `{name}` | {_type(field)} | {default} | {field.get('description', '')} |")
    yield "\n".join(rows)


def _references(schema: dict[str, Any], definitions: dict[str, Any]) -> Iterator[str]:
    """Yield the names of the definitions, in the order in which they are first mentioned."""
    for field in schema["properties"].values():
        for option in [field, *field.get("anyOf", ()), *field.get("oneOf", ()), *_elements(field)]:
            if "$ref" in option:
                name = option["$ref"].rpartition("/")[2]
                yield name
                yield from _references(definitions[name], definitions)


def _elements(field: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the schema of the elements of an array or an object, if there is one."""
    elements = field.get("items"), field.get("additionalProperties")
    return [element for element in elements if isinstance(element, dict)]


def _prose(docstring: str) -> str:
    return docstring.replace("``", "`")


def _type(field: dict[str, Any]) -> str:
    options = field.get("oneOf") or [option for option in field.get("anyOf", ()) if option.get("type") != "null"]
    if options:
        # An optional field whose default is null is simply left out.
        null = ["`null`"] if "anyOf" in field and field.get("default") is not None else []
        return " or ".join([*map(_type, options), *null])
    if "$ref" in field:
        return _link(field)
    if values := field.get("enum", [field["const"]] if "const" in field else []):
        return " or ".join(f"`{value}`" for value in values)
    if field["type"] == "array":
        kinds = dict.fromkeys(_type(item) for item in field.get("prefixItems", [field.get("items")]))
        return f"array of {' and '.join(kinds)}"
    if field["type"] == "object" and (elements := _elements(field)):
        return f"object of {_type(elements[0])}"
    bounds = [f"{sign} {field[key]:g}" for key, sign in _BOUNDS.items() if key in field]
    return ", ".join([field["type"], *bounds])


def _link(reference: dict[str, Any]) -> str:
    name = reference["$ref"].rpartition("/")[2]
    return f"[{name}](#{name.lower()})"


_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def main() -> None:
    """Write or check the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if the page is out of date")
    if parser.parse_args().check:
        if PAGE.read_text() != page():
            sys.exit(f"{PAGE.name} is out of date: run python docs/{Path(__file__).name}")
    else:
        PAGE.write_text(page())


if __name__ == "__main__":
    main()

"""Commands that make bundles of networks that others trained: ``import musicnn``, ``import network``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from wholetrack_training.importing.layouts import Layout

OWN_MODELS = Path("my-models")
"""Folder of the imported bundles if ``WHOLETRACK_MODELS_DIR`` is not set; git ignores it."""

ModelsOption = Annotated[
    Path | None,
    typer.Option(
        help=f"Folder of the bundles; default: that of WHOLETRACK_MODELS_DIR, or {OWN_MODELS}.", show_default=False
    ),
]

app = typer.Typer(
    help="Make bundles of networks that others trained. They are for your own service, and stay out of the project.",
    no_args_is_help=True,
)


@app.command()
def musicnn(
    variant: Annotated[
        str, typer.Option(help="msd: trained on the Million Song Dataset; mtt: on MagnaTagATune.")
    ] = "msd",
    package: Annotated[
        Path | None,
        typer.Option(help="Folder into which the package musicnn was installed; default: this Python environment."),
    ] = None,
    models: ModelsOption = None,
) -> None:
    """Import a network of the package musicnn (pip install --no-deps musicnn), a tagger with 50 tags."""
    from wholetrack_training.errors import NetworkImportError
    from wholetrack_training.importing import musicnn as source
    from wholetrack_training.importing.bundle import import_network

    if variant not in list(source.Variant):
        raise NetworkImportError(f"musicnn has no network {variant}; choose from {', '.join(source.Variant)}")
    chosen, found = source.Variant(variant), source.find_package(package)
    weights = source.read_weights(found, chosen)
    folder = import_network(
        source.musicnn_network(weights),
        source.musicnn_draft(chosen, weights.labels),
        licence=source.LICENCE,
        origin=source.origin_of(found, chosen),
        models=_folder(models),
    )
    typer.echo(str(folder))


@app.command()
def network(
    file: Annotated[Path, typer.Argument(help="The network: ONNX, TorchScript (torch.jit.save) or Keras (.keras).")],
    card: Annotated[
        Path, typer.Option(help="model.json without what the import determines: hashes, licence, shapes, figures.")
    ],
    licence: Annotated[str, typer.Option(help="Licence of the network, as an SPDX expression.")],
    source: Annotated[str, typer.Option(help="Where the network came from, such as an address.")],
    layout: Annotated[
        str | None,
        typer.Option(
            help="Axes of the inputs after the first one, such as 1,mels,frames; default: as the network declares."
        ),
    ] = None,
    models: ModelsOption = None,
) -> None:
    """Import a classifier whose features model.json can describe."""
    import hashlib

    from wholetrack_training.importing.bundle import import_network
    from wholetrack_training.importing.draft import read_draft
    from wholetrack_training.importing.network_files import read_network

    draft = read_draft(card)
    folder = import_network(
        read_network(file, draft, _layout(layout)),
        draft,
        licence=licence,
        origin={
            "source": source,
            "file": file.name,
            "file_sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        },
        models=_folder(models),
    )
    typer.echo(str(folder))


def _folder(models: Path | None) -> Path:
    from wholetrack.settings import Settings

    return models or Settings().models_dir or OWN_MODELS


def _layout(layout: str | None) -> Layout | None:
    from wholetrack_training.errors import NetworkImportError
    from wholetrack_training.importing.layouts import Layout

    if layout is None:
        return None
    if layout not in list(Layout):
        raise NetworkImportError(f"there is no layout {layout}; choose from {' '.join(Layout)}")
    return Layout(layout)

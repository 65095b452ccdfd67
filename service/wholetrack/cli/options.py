"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

ModelOption = Annotated[
    str | None,
    typer.Option(help="Name of the model, or NAME@VERSION; the default model if omitted.", show_default=False),
]
HopOption = Annotated[float | None, typer.Option(help="Time between the starts of consecutive windows, in seconds.")]
TopKOption = Annotated[int, typer.Option(min=1, help="Number of genres in each ranking, at most all.")]
TaxonomyOption = Annotated[
    str | None, typer.Option(help="Taxonomy of the model in whose genres the prediction is read, such as gtzan.")
]

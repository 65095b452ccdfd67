"""Names of genres: presets, aliases, the tree, and documents that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from wholetrack.inference.bundle import BUILT_IN_MODELS, load_bundles
from wholetrack.tagging.genre_map import PRESETS, GenreMap, GenreMapError

OWN = """
allowed = ["Hip-Hop", "Dance", "Music"]

[names]
hiphop = "hip hop"

[aliases]
"Hip Hop" = "Hip-Hop"

[parents]
House = "Dance"
Techno = "House"
Jazz = "Improvised"
Improvised = "Music"
"""


@pytest.mark.parametrize(
    ("genre", "name"),
    [
        ("hiphop", "Hip-Hop"),
        ("HIPHOP", "Hip-Hop"),
        ("hip hop", "Hip-Hop"),
        ("dance", "Dance"),
        ("house", "Dance"),
        ("techno", "Dance"),
        ("jazz", "Music"),
        ("blues", None),
    ],
)
def test_a_genre_becomes_an_allowed_name_or_the_nearest_one_above_it(genre: str, name: str | None) -> None:
    assert GenreMap.parse(OWN, origin="own").name_of(genre) == name


def test_without_a_map_genres_keep_their_names() -> None:
    assert GenreMap().name_of("hiphop") == "hiphop"


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_names_every_genre_of_the_published_models(preset: str) -> None:
    chosen = GenreMap.preset(preset)
    for bundle in load_bundles(BUILT_IN_MODELS).values():
        names = [chosen.name_of(genre) for genre in bundle.card.labels]
        assert None not in names
        assert len(set(names)) == len(names)


def test_presets_differ_as_their_libraries_do() -> None:
    assert [GenreMap.preset(preset).name_of("hiphop") for preset in PRESETS] == ["Hip-Hop", "Hip Hop", "hip hop"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("names = 3", "own: names: "),
        ("nmaes = {}", "own: nmaes: "),
        ("[names", "own is not TOML"),
        ('[parents]\nA = "B"\nB = "a"', "above itself"),
        ("allowed = [1]", "own: allowed.0: "),
    ],
)
def test_other_documents_are_refused(text: str, problem: str) -> None:
    with pytest.raises(GenreMapError, match=problem):
        GenreMap.parse(text, origin="own")


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(GenreMapError, match="No such file"):
        GenreMap.read(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff")
    with pytest.raises(GenreMapError, match="not UTF-8"):
        GenreMap.read(tmp_path / "binary.toml")

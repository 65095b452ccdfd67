"""The tags of wholetrack-crnn 2: which of AudioSet's labels are published, and what each of them describes.

The names are AudioSet's (Gemmeke et al. 2017, https://research.google.com/audioset). Labels that a network knows
and that are not listed here are left out, because they say nothing about music.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from wholetrack_training.systems.taxonomy import AUDIOSET, UNVERIFIED

_GENRES = (
    *("Pop music", "Hip hop music", "Rock music", "Heavy metal", "Punk rock", "Grunge", "Progressive rock"),
    *("Rock and roll", "Psychedelic rock", "Rhythm and blues", "Soul music", "Reggae", "Country", "Swing music"),
    *("Bluegrass", "Funk", "Folk music", "Middle Eastern music", "Jazz", "Disco", "Classical music", "Opera"),
    *("Electronic music", "House music", "Techno", "Dubstep", "Drum and bass", "Electronica"),
    *("Electronic dance music", "Ambient music", "Trance music", "Music of Latin America", "Salsa music", "Flamenco"),
    *("Blues", "Music for children", "New-age music", "Music of Africa", "Afrobeat", "Christian music"),
    *("Gospel music", "Music of Asia", "Carnatic music", "Music of Bollywood", "Ska", "Traditional music"),
    *("Independent music", "Theme music", "Soundtrack music", "Lullaby", "Video game music", "Christmas music"),
    *("Dance music", "Wedding music"),
)
_MOODS = (*("Happy music", "Funny music", "Sad music", "Tender music", "Exciting music", "Angry music", "Scary music"),)
_INSTRUMENTS = (
    *("Plucked string instrument", "Guitar", "Electric guitar", "Bass guitar", "Acoustic guitar"),
    *("Steel guitar, slide guitar", "Tapping (guitar technique)", "Strum", "Banjo", "Sitar", "Mandolin", "Zither"),
    *("Ukulele", "Keyboard (musical)", "Piano", "Electric piano", "Organ", "Electronic organ", "Hammond organ"),
    *("Synthesizer", "Sampler", "Harpsichord", "Percussion", "Drum kit", "Drum machine", "Drum", "Snare drum"),
    *("Rimshot", "Drum roll", "Bass drum", "Timpani", "Tabla", "Cymbal", "Hi-hat", "Wood block", "Tambourine"),
    *("Rattle (instrument)", "Maraca", "Gong", "Tubular bells", "Mallet percussion", "Marimba, xylophone"),
    *("Glockenspiel", "Vibraphone", "Steelpan", "Orchestra", "Brass instrument", "French horn", "Trumpet"),
    *("Trombone", "Bowed string instrument", "String section", "Violin, fiddle", "Pizzicato", "Cello"),
    *("Double bass", "Wind instrument, woodwind instrument", "Flute", "Saxophone", "Clarinet", "Harp"),
    *("Church bell", "Chime", "Harmonica", "Accordion", "Bagpipes", "Didgeridoo", "Shofar", "Theremin"),
    *("Singing bowl", "Scratching (performance technique)"),
)
_VOICES = ("Singing", "Choir", "Rapping", "Beatboxing", "Vocal music", "A capella", "Song")
_NOT_MUSIC = (
    *("Speech", "Male speech, man speaking", "Female speech, woman speaking", "Silence", "Sine wave"),
    *("Sound effect", "Noise", "Static", "White noise", "Pink noise"),
)
_OTHER = ("Music", "Musical instrument", "Background music", "Jingle (music)")

KINDS: Mapping[str, str] = {
    name: kind
    for kind, names in (
        ("genre", _GENRES),
        ("mood", _MOODS),
        ("instrument", _INSTRUMENTS),
        ("voice", _VOICES),
        ("not_music", _NOT_MUSIC),
        ("other", _OTHER),
    )
    for name in names
}
"""The kind of each label of AudioSet that is published, in the terms of ``model.json``."""

# The only label of an unverified genre has the same probability as the genre, so it would be given twice.
_SAME_AS_GENRE = {AUDIOSET[genre][0] for genre in UNVERIFIED if len(AUDIOSET[genre]) == 1}


def published_tags(labels: Sequence[str]) -> tuple[str, ...]:
    """Return those of a network's tags that are published under their own names, in the order of the network."""
    return tuple(label for label in labels if label in KINDS and label not in _SAME_AS_GENRE)

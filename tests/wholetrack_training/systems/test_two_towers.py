"""The layers of wholetrack-crnn 2, and the parts of a score."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

import torch

from wholetrack.features.logmel import LogMel
from wholetrack_training.systems.checkpoints import new_network
from wholetrack_training.systems.mobilenet import MusicTrunk, SqueezeExciteBySecond, TrunkShape
from wholetrack_training.systems.taxonomy import (
    AUDIOSET,
    GENRES,
    GTZAN,
    MSD,
    MSD_GENRES,
    PARENTS,
    UNVERIFIED,
    TagMap,
    kept_tags,
)
from wholetrack_training.systems.two_towers import (
    AUDIO,
    MUSIC_FEATURES,
    MUSIC_FRAMES,
    TowerOutputs,
)

pytestmark = pytest.mark.torch

TAGS = tuple(dict.fromkeys(tag for tags in AUDIOSET.values() for tag in tags))


def test_a_hop_of_one_second_is_a_whole_number_of_steps_of_the_trunk() -> None:
    rate = MUSIC_FEATURES.frame_rate(AUDIO.sample_rate)
    trunk = MusicTrunk(TrunkShape()).eval()
    with torch.inference_mode():
        steps = trunk(torch.zeros(1, 1, 112, MUSIC_FRAMES)).shape[3]
    assert steps == 9
    assert rate % (MUSIC_FRAMES // steps) == 0
    assert rate * 3 == MUSIC_FRAMES


def test_no_band_of_the_music_tower_is_empty_and_none_reaches_the_range_in_which_encoders_differ() -> None:
    LogMel(MUSIC_FEATURES, AUDIO.sample_rate)
    assert MUSIC_FEATURES.empty_bands == "refuse"
    assert 9900 < MUSIC_FEATURES.fmax < 10000


def test_squeeze_and_excitation_by_second_does_not_mix_seconds() -> None:
    torch.manual_seed(0)
    layer = SqueezeExciteBySecond(16, 8, seconds=3)
    x = torch.rand(2, 16, 4, 36)
    changed = x.clone()
    changed[..., 24:] = 5.0
    with torch.inference_mode():
        before, after = layer(x), layer(changed)
    torch.testing.assert_close(after[..., :24], before[..., :24])
    whole = SqueezeExciteBySecond(16, 8, seconds=0)
    whole.load_state_dict(layer.state_dict())
    with torch.inference_mode():
        assert not torch.allclose(whole(changed)[..., :24], whole(x)[..., :24])


@pytest.mark.parametrize("seconds", [0, 1, 3])
def test_a_gate_follows_from_the_means_of_all_channels_over_its_part(seconds: int) -> None:
    torch.manual_seed(0)
    layer = SqueezeExciteBySecond(16, 8, seconds=seconds)
    x = torch.rand(2, 16, 4, 36)
    with torch.inference_mode():
        expected = [
            part * layer.fc2(layer.fc1(part.mean((2, 3))).relu()).sigmoid()[:, :, None, None]
            for part in x.chunk(seconds or 1, dim=3)
        ]
        torch.testing.assert_close(layer(x), torch.cat(expected, dim=3))


def test_every_genre_is_mapped_and_every_parent_is_a_genre() -> None:
    known = {*GENRES, *UNVERIFIED}
    assert set(AUDIOSET) == known
    assert set(MSD) <= known
    assert set(PARENTS) <= known
    assert set(PARENTS.values()) <= set(GENRES)
    assert GENRES[: len(GTZAN)] == GTZAN


def test_the_map_gives_the_strongest_tag_in_deviations() -> None:
    tag_map = TagMap(TAGS)
    logits = torch.zeros(2, len(TAGS))
    logits[0, TAGS.index("Bluegrass")] = 3.0
    tag_map.mean.fill_(1.0)
    tag_map.deviation.fill_(2.0)
    msd = torch.zeros(2, len(MSD_GENRES))
    msd[1, MSD_GENRES.index("country")] = 3.0
    evidence = tag_map(logits, msd)
    country, disco = GENRES.index("country"), GENRES.index("disco")
    assert evidence[0, country] == pytest.approx(2 / 3)
    assert evidence[1, country] == pytest.approx(-1 / 3 + 1.0)
    # There is no tag for disco in the Million Song Dataset.
    assert evidence[1, disco] == pytest.approx(-0.5)


def test_a_score_is_the_sum_of_its_parts() -> None:
    torch.manual_seed(0)
    network = new_network(TAGS).eval()
    head = network.head
    head.bias[GENRES.index("folk")] = 7.0
    rng = torch.Generator().manual_seed(1)
    towers = TowerOutputs(torch.randn(3, 19, 128, generator=rng), torch.randn(3, 9, 384, generator=rng))
    with torch.no_grad():
        found = network.predict(towers)
        known = torch.log_softmax(head.classify(head.labelled_features(found.embedding, found.tags)), dim=1)
        rest = known.mean(1, keepdim=True).expand(-1, len(GENRES) - len(GTZAN))
        expected = head.tag_map(found.tags, found.msd) + torch.cat((known, rest), dim=1)
    expected[:, GENRES.index("folk")] += 7.0
    torch.testing.assert_close(found.scores, expected)


def test_tags_are_kept_for_music_voices_and_what_is_no_music() -> None:
    labels = ("Dog", "Speech", "Music", "Techno", "Scary music", "Wind", "White noise")
    assert kept_tags(labels) == ("Speech", "Music", "Techno", "Scary music", "White noise")

import pytest

from training.synthetic.phones import (
    ARPABET,
    Phone,
    arpabet,
    fill_silences,
    ipa_to_arpabet,
    parse_phones,
)


def test_names_lose_stress_and_become_arpabet():
    assert [arpabet(name) for name in ("AA1", "ax", "pau", "<sil>", "hh", "+SPN+")] == [
        "AA", "AH", "SIL", "SIL", "HH", "SIL",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="unknown phone 'XX'"):
        arpabet("XX")


def test_ipa_becomes_the_nearest_english_phones():
    assert ipa_to_arpabet("mæp") == ("M", "AE", "P")
    assert ipa_to_arpabet("tʃɪldɹən") == ("CH", "IH", "L", "D", "R", "AH", "N")
    assert ipa_to_arpabet("fˈIv") == ("F", "AY", "V")
    assert ipa_to_arpabet("ˈˌːʲ") == ()
    assert set(ipa_to_arpabet("nʲivʲernyj parɔ̃ œ")) <= ARPABET


def test_rows_are_sorted_and_checked():
    assert [p.name for p in parse_phones([("B", 0.2, 0.1), ("AH0", 0.0, 0.2)])] == ["AH", "B"]
    with pytest.raises(ValueError, match="lasts -0.1 s"):
        parse_phones([("B", 0.2, -0.1)])


def test_uncovered_time_is_silence():
    filled = fill_silences([Phone("SIL", 0.0, 0.2), Phone("B", 0.5, 0.1)], 1.0)
    assert [(p.name, p.start_s, round(p.end_s, 6)) for p in filled] == [
        ("SIL", 0.0, 0.5), ("B", 0.5, 0.6), ("SIL", 0.6, 1.0),
    ]  # fmt: skip

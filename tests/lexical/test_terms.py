"""Terms: spellings of one part number meet, scripts are kept, nothing breaks on odd text."""

# ruff: noqa: RUF001  (letters of other scripts that look like ours are what is tested)

import pytest

from leanmatch.lexical import holds_part_number, lexical_weight, terms
from leanmatch.lexical.terms import MOST_CHARACTERS

SPELLINGS = ["XJ-200", "xj200", "XJ 200", "Xj_200", "XJ/200", "XJ.200", "ＸＪ２００", "XJ–200"]


def test_every_spelling_of_a_part_number_shares_terms_with_every_other():
    for one in SPELLINGS:
        assert {"xj", "200"} <= set(terms(one)), one


def test_spellings_without_a_space_share_the_whole_number_and_other_numbers_do_not():
    for one in set(SPELLINGS) - {"XJ 200"}:
        assert "xj200" in terms(one), one
    assert "xj200" not in terms("XJ 200")  # ranked below an item that is written together
    assert "xj200" not in terms("XJ-300") and "xj200" not in terms("XJ, 200")


def test_a_part_of_a_long_number_is_found():
    assert {"rx100", "rx100m3", "dscrx100"} <= set(terms("Sony DSC-RX100M3"))
    assert "dscrx100m3" not in terms("DSC-RX100M3")  # five atoms: beyond the joins
    assert max(map(len, terms("a" * 20 + "1" * 20 + "b" * 20))) <= MOST_CHARACTERS


def test_words_alone_are_not_joined():
    assert terms("wi-fi router") == ["wi", "fi", "router"]


@pytest.mark.parametrize(
    ("query", "item"),
    [
        ("相机", "数码相机包"),
        ("カメラ", "デジタルカメラ"),
        ("กล้อง", "ซื้อกล้องถ่ายรูป"),
        ("किताब", "हिन्दी की किताब"),
        ("камера", "Цифровая КАМЕРА"),
        ("كاميرا", "كاميرا رقمية"),
        ("카메라", "디지털 카메라"),
        ("strasse", "STRAẞE"),
        ("cafe", "Café"),
        ("٢٠٠", "200"),
    ],
)
def test_scripts(query, item):
    assert set(terms(query)) <= set(terms(item))
    assert terms(query)


def test_a_vowel_sign_does_not_cut_a_word():
    assert terms("हिन्दी") == ["हिन्दी"]


@pytest.mark.parametrize("text", ["", "   ", "🎉🎉", "---", "\x00"])
def test_texts_without_terms(text):
    assert terms(text) == []


def test_half_of_a_surrogate_pair_is_no_term():
    assert terms("a\ud800b") == ["a", "b"]


@pytest.mark.parametrize("text", ["XJ-200", "dmc-fx75s", "case for WD10EZEX", "TS64GSDHC", "XJ—2000"])
def test_part_numbers(text):
    assert holds_part_number(text)
    assert lexical_weight(text) > lexical_weight("camera case")


@pytest.mark.parametrize(
    "text",
    ["camera", "2019", "128GB", "18-55mm f/3.5-5.6", "1080p", "2.4GHz", "12MP", "500 pcs", "iPhone 7", ""],
)
def test_measures_and_words_are_no_part_numbers(text):
    assert not holds_part_number(text)

"""Names by the model, where the packages of the extra `hybrid` are installed."""

from __future__ import annotations

import pytest

from serving.policy.detect import DetectSettings, Part, Scanner, Verdict
from serving.policy.detect.names import _PIECE_CHARS, RussianNames, _pieces, open_names


@pytest.fixture(scope="module")
def names() -> RussianNames:
    pytest.importorskip("slovnet")
    found = open_names()
    if found is None:
        pytest.skip("natasha's models are not installed")
    return found


def test_names_are_found_where_they_stand(names: RussianNames) -> None:
    """In any case of the noun, without a label or a title beside them."""
    text = "Вчера Мария Кузнецова передала отчёт Дмитрию Орлову в Москве."
    assert [text[start:end] for start, end in names.find(text)] == ["Мария Кузнецова", "Дмитрию Орлову"]


def test_a_name_in_a_long_text_keeps_its_place(names: RussianNames) -> None:
    """Texts are cut into pieces; offsets are those of the whole."""
    text = "Обычное предложение без людей. " * 200 + "Отвечает Анна Соколова. " + "Ещё одно предложение. " * 200
    assert [text[start:end] for start, end in names.find(text)] == ["Анна Соколова"]


def test_a_scanner_with_names_is_sensitive_by_them(names: RussianNames) -> None:
    """Required and there: CLEAN without a name, SENSITIVE with one."""
    scanner = Scanner(DetectSettings(names=True), names)
    assert scanner.scan([Part("/prompt", "Сводка по складу готова.")]).verdict is Verdict.CLEAN
    finding = scanner.scan([Part("/prompt", "Передайте это Ольге Смирновой.")])
    assert [span.label for span in finding.spans] == ["name.person"]


def test_a_text_without_cyrillic_costs_the_model_nothing(names: RussianNames) -> None:
    """Pieces without a Cyrillic letter are not looked at."""
    assert not list(names.find("Anna Schmidt " * 500))


@pytest.mark.parametrize("text", ["", "а", "слово " * 999, "б" * 5_000, "строка\n" * 700, "Предложение раз. " * 300])
def test_pieces_are_the_text(text: str) -> None:
    """None is lost or longer than the bound, and each says where it begins."""
    pieces = list(_pieces(text))
    assert "".join(piece for piece, _ in pieces) == text
    assert all(text[start : start + len(piece)] == piece and 0 < len(piece) <= _PIECE_CHARS for piece, start in pieces)

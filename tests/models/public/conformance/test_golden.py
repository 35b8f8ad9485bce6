"""A small copy of the golden numbers, made from the reference implementations by the rule of `conformance.rule`."""

from pathlib import Path

import pytest

from models.public.conformance.items import check_item, items_in

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("item", items_in(GOLDEN))
def test_the_numbers_of_the_reference_come_out(item):
    outcome = check_item(GOLDEN, item)
    assert outcome.is_passed, "\n".join(outcome.lines)


def test_the_copy_is_small():
    assert sum(path.stat().st_size for path in GOLDEN.iterdir()) <= 1_000_000

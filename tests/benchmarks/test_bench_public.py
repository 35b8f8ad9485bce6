import pytest

from benchmarks.bench_public import FAMILIES, count


@pytest.mark.parametrize(("family", "tokens", "new_frames"), [("lite", 1280, 24), ("leaptalk", 9216, 28)])
def test_operations_are_those_of_the_published_size(family, tokens, new_frames):
    chosen = FAMILIES[family]
    counted = count(chosen)
    assert counted["chunk_s"] == new_frames / 25
    # Two a multiply-add: 2 a parameter and token, 4·D·layers a pair of tokens; sound and heads are small beside them.
    parameters = 30 * (4 * 1536**2 + 2 * 1536**2 + 2 * 1536 * 8960)
    expected = chosen.steps * (2 * parameters * tokens + 4 * 30 * 1536 * tokens**2) / 1e12
    assert counted["tflop"]["denoise"] == pytest.approx(expected, rel=0.05)
    assert counted["derived_rtf"]["H200"] < counted["derived_rtf"]["RTX 4090"]

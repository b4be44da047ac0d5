"""docs/support.md says what the functions can do now."""

from __future__ import annotations

import support_table


def test_the_page_is_up_to_date(monkeypatch):
    """Otherwise: `make docs`."""
    monkeypatch.setenv("HYBRID_MATMUL_PRECISION", "float32")  # an example sets it
    have, want = support_table.PAGE.read_text().splitlines(), support_table.table().splitlines()
    stale = sorted(set(want) ^ set(have))
    assert have == want, "`make docs` gives other lines: " + "; ".join(stale[:10])

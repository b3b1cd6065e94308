"""A plot of a run as SVG: one panel per series over the same minutes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

WIDTH, PANEL, LEFT, TOP = 760, 110, 90, 26
SERIES = (
    ("rss_bytes", "memory of the broker, MiB", 1024 * 1024),
    ("wal_bytes", "write-ahead log, MiB", 1024 * 1024),
    ("accept_p99_ms", "accepted, p99, ms", 1),
    ("end_p99_ms", "ended, p99, ms", 1),
    ("late_p99_ms", "event received, p99, ms after its change", 1),
    ("lives_per_second", "lives per second", 1),
)


def svg(samples: Sequence[Mapping[str, Any]]) -> str:
    """The whole picture; a series without samples is an empty panel."""
    last = max((sample["at"] for sample in samples), default=1.0)
    panels = [_panel(number, *series, samples, last) for number, series in enumerate(SERIES)]
    height = TOP + PANEL * len(SERIES)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="11">\n'
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>\n' + "\n".join(panels) + "\n</svg>\n"
    )


def _panel(number: int, name: str, title: str, unit: float, samples: Sequence[Mapping[str, Any]], last: float) -> str:
    bottom = TOP + PANEL * (number + 1) - 30
    height, width = PANEL - 50, WIDTH - LEFT - 20
    points = [(sample["at"], sample[name] / unit) for sample in samples if name in sample]
    most = max((value for _, value in points), default=0.0) or 1.0
    path = " ".join(f"{LEFT + width * at / last:.1f},{bottom - height * value / most:.1f}" for at, value in points)
    return (
        f'<text x="{LEFT}" y="{bottom - height - 6}" font-weight="bold">{title}</text>\n'
        f'<text x="{LEFT - 6}" y="{bottom - height + 4}" text-anchor="end">{most:.4g}</text>\n'
        f'<text x="{LEFT - 6}" y="{bottom}" text-anchor="end">0</text>\n'
        f'<text x="{LEFT + width}" y="{bottom + 14}" text-anchor="end">{last / 60:.0f} min</text>\n'
        f'<polyline points="{LEFT},{bottom} {LEFT + width},{bottom}" stroke="#999" fill="none"/>\n'
        f'<polyline points="{path}" stroke="#06c" fill="none" stroke-width="1.4"/>'
    )

"""What a long run must show, from its samples.

Guarantee: every claim is compared between the second quarter of the run and its last one, by medians, so that neither the
warm-up nor one bad moment decides; a claim without samples is not kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

GROWTH = 1.10  # memory of the last quarter against the second
REFUSED, GONE = "RESOURCE_EXHAUSTED", ("CANCELLED", "GONE")  # the flood is cut off at its end
AT_ONCE_MS = 1000.0
P99 = 2.0  # the same for the 99th percentile of an accept: the machines are shared
Sample = Mapping[str, Any]


def faults(samples: Sequence[Sample], wal_limit: int) -> Iterator[str]:
    """What the sustained part does not keep."""
    yield from _grown("rss_bytes", samples, GROWTH)
    yield from _grown("accept_p99_ms", samples, P99)
    highest = max((sample["wal_bytes"] for sample in samples), default=0)
    if highest > wal_limit:
        yield f"the WAL had {highest} bytes, of {wal_limit} allowed"
    for name in ("failed", "late", "refused", "repeated", "not_sent"):
        count = sum(sample.get(name, 0) for sample in samples)
        if count:
            yield f"{count} {name}"


def overload_faults(total: Mapping[str, int], refusal_p99_ms: float, refusal_limit_ms: float) -> Iterator[str]:
    """What the part above capacity does not keep."""
    for name, count in total.items():
        if name.endswith("_without_retry"):
            yield f"{count} {name}"
    for name in ("late", "failed", "deprovision_refused"):
        if total.get(name):
            yield f"{total[name]} {name}"
    if refusal_p99_ms > refusal_limit_ms:
        yield f"refusals took {refusal_p99_ms:.0f} ms (p99), of {refusal_limit_ms:.0f} allowed"


def flood_faults(shown: Mapping[str, Mapping[str, float]], bad: int) -> Iterator[str]:
    """What the flood shows, by status as `flood.summary` has it; `bad` operations ended late or failed."""
    refused = shown.get(REFUSED)
    if not refused:
        yield "nothing was refused: that was no overload"
    elif refused["p99_ms"] > AT_ONCE_MS:
        yield f"a refusal took {refused['p99_ms']:.0f} ms (p99) in the broker, of {AT_ONCE_MS:.0f} allowed"
    for code, seen in shown.items():
        if code not in {"OK", REFUSED, *GONE}:
            yield f"{seen['calls']:.0f} orders ended with {code}"
    if bad:
        yield f"{bad} accepted operations ended late or failed"


def _grown(name: str, samples: Sequence[Sample], most: float) -> Iterator[str]:
    values = [sample[name] for sample in samples if sample.get(name)]
    quarter = len(values) // 4
    if not quarter:
        yield f"too few samples of {name}"
        return
    before, after = median(values[quarter : 2 * quarter]), median(values[-quarter:])
    if after > before * most:
        yield f"{name} grew from {before:.0f} to {after:.0f}"

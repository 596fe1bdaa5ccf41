"""The readings of ``index_scale`` as the tables of docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.report import Reading, table


def ingest_table(readings: Sequence[Reading]) -> str:
    """How storing went, one row for each backend and size."""
    rows = [
        [
            f"{r['backend']}, {r['instances']:,}",
            f"{r['per_second']:,.0f}",
            f"{r['batch_median_ms']:.1f}",
            f"{r['batch_p95_ms']:.1f}",
            f"{r['times_plain']:.1f}",
            f"{r['index_bytes'] / 1e6:,.0f}",
            f"{r['peak_memory_bytes'] / 1e6:,.0f}",
        ]
        for r in readings
        if r["what"] == "ingest"
    ]
    header = [
        "instances",
        "instances/s",
        "batch, median ms",
        "p95 ms",
        "times plain INSERT",
        "index, MB",
        "peak RSS, MB",
    ]
    return table(header, rows)


def query_table(readings: Sequence[Reading], backend: str) -> str:
    """Milliseconds per request at each size: median (of the rounds), 95th percentile [matches]."""
    measured = [r for r in readings if r["backend"] == backend and "median_ms" in r]
    sizes = sorted({r["instances"] for r in measured})
    cells: dict[str, dict[int, str]] = {}
    for r in measured:
        name = f"{r['what']}, {r['level']}" if "level" in r else r["what"]
        spread = f"{r['lowest_round_median_ms']:.1f}-{r['highest_round_median_ms']:.1f}"
        found = f" [{r['matches_median']:.0f}]" if "matches_median" in r else ""
        cell = f"{r['median_ms']:.1f} ({spread}), {r['p95_ms']:.1f}{found}"
        cells.setdefault(name, {})[r["instances"]] = cell
    header = [
        f"{backend}, ms",
        *(f"{size:,} instances" for size in sizes),
    ]
    return table(header, [[name, *(row[size] for size in sizes)] for name, row in cells.items()])


def universal_table(readings: Sequence[Reading]) -> str:
    """A query that matches every study, one row for each backend and size."""
    rows = [
        [
            f"{r['backend']}, {r['matches']:,} studies",
            f"{r['first_ms']:.0f}",
            f"{r['per_100_ms']:.1f}",
            f"{r['seconds']:.2f}",
            f"{r['memory_growth_bytes'] / 1e6:.1f}",
        ]
        for r in readings
        if r["what"] == "universal query"
    ]
    header = [
        "universal query",
        "first match, ms",
        "100 matches, ms",
        "all, s",
        "memory growth, MB",
    ]
    return table(header, rows)

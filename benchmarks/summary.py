"""What the steps of gpu.sh found, in a few lines, from the files in their folder.

python benchmarks/summary.py bench-out
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

COLUMNS = ("over_flash", "over_cudnn", "ratio")


def tables(folder: Path) -> list[str]:
    """A line for each row of each bench table: its ratios, with their range, and its memory beyond the first row's."""
    lines = []
    for path in sorted(folder.glob("*/bench.parquet")):
        frame = pd.read_parquet(path)
        for length, rows in frame.groupby("length", sort=False):
            device = rows["device"].iloc[0]
            lines.append(f"{path.parent.name}, {length} tokens, {device}")
            base = rows["peak_mb"].iloc[0]
            for _, row in rows.iterrows():
                lines.append(f"  {row['provider']:<58}{_said(row, base)}")
    return lines


def _said(row: pd.Series, base: float) -> str:
    if pd.isna(row.get("ms")):
        return str(row.get("note"))
    spreads = [
        f"{name} {row[name]:.2f} ({row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f})"
        for name in COLUMNS
        if name in row and not pd.isna(row[name])
    ]
    return f"{row['ms']:>10.2f} ms  {'  '.join(spreads)}  {row['peak_mb']:.0f} MB ({row['peak_mb'] - base:+.0f})"


def tiles(folder: Path) -> list[str]:
    """The shape in use and the best one of each set of statistics."""
    path = folder / "tiles.csv"
    if not path.exists():
        return []
    frame = pd.read_csv(path, keep_default_na=False)
    frame["ms"] = pd.to_numeric(frame["ms"], errors="coerce")
    lines = ["tiles"]
    for what, rows in frame.groupby("set", sort=False):
        right = rows[~rows["note"].str.startswith("wrong") & rows["ms"].notna()]
        for name, row in (("in use", rows.iloc[0]), ("best", right.sort_values("ms").iloc[0])):
            shape = ", ".join(f"{size} {row[size]}" for size in ("BLOCK_Q", "BLOCK_K", "num_warps", "num_stages"))
            lines.append(f"  {what}, {name}: {row['ms']:.3f} ms, {row['over_sdpa']} of SDPA, {shape}")
    return lines


def ends(folder: Path) -> list[str]:
    """How each step of the last call ended, with the last line that it printed."""
    path = folder / "steps.txt"
    lines = []
    for line in path.read_text().splitlines() if path.exists() else []:
        log = folder / f"{line.split()[0]}.log"
        said = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
        lines.append(f"{line}  {said[-1][:90] if said else ''}")
    return lines


if __name__ == "__main__":
    here = Path(sys.argv[1])
    print("\n".join(["", *tables(here), *tiles(here), *ends(here)]))

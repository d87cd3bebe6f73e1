"""Every colour of the dashboard, for the page, the figures and the tables, in light and in dark.

Magnitudes are drawn in Viridis, signed data in a blue-grey-orange scale whose middle is pinned to zero, classes in
Okabe-Ito. The page reads its colours from CSS variables written by `css_variables`, so that Mantine, AG Grid and the
style sheet follow one switch; Plotly takes the same values through `template`.
"""

from __future__ import annotations

from typing import Any, Literal

import plotly.graph_objects as go

Scheme = Literal["light", "dark"]

FONT = (
    'Inter, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", "Liberation Sans", sans-serif'
)
MONO = 'ui-monospace, "SF Mono", "JetBrains Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace'

COLOURS: dict[Scheme, dict[str, str]] = {
    "light": {
        "page": "#f5f6f8",
        "surface": "#ffffff",
        "raised": "#f0f2f5",
        "border": "#dde1e7",
        "text": "#171c23",
        "muted": "#57606c",
        "accent": "#0b6a80",
        "accent-soft": "#e2f1f4",
        "on-accent": "#ffffff",
        "undefined": "#e4e7ec",
        "hatch": "#aab2bd",
        "selected": "#c2410c",
        "top": "#0090d8",
        "marked": "#d01c8b",
        "good": "#1a7f4b",
        "busy": "#1f5fbf",
        "warn": "#96590a",
        "bad": "#c02f38",
    },
    "dark": {
        "page": "#0e1116",
        "surface": "#161b22",
        "raised": "#1f262f",
        "border": "#2c343f",
        "text": "#e8ebef",
        "muted": "#9aa5b3",
        "accent": "#56c5d8",
        "accent-soft": "#15323a",
        "on-accent": "#06161a",
        "undefined": "#232b35",
        "hatch": "#4d5866",
        "selected": "#ff9e57",
        "top": "#6cc4ff",
        "marked": "#ff6ec7",
        "good": "#4cc38a",
        "busy": "#79b0ff",
        "warn": "#e8b04a",
        "bad": "#ff8087",
    },
}

SEQUENTIAL = "Viridis"
"""Magnitudes: from dark (low) to light (high), the same in both schemes."""

DIVERGING = ((0.0, "#2166ac"), (0.25, "#7fa8cf"), (0.5, "#d5d8dc"), (0.75, "#e8a15c"), (1.0, "#b35806"))
"""Signed data: blue below zero, orange above it, grey at zero."""

QUALITATIVE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")
"""Okabe-Ito, for classes."""

ACCENT_SHADES = (
    "#e6f6f9", "#cfecf1", "#a3dae4", "#74c7d7", "#56c5d8", "#2f9cb2", "#0b6a80", "#095a6d", "#084b5b", "#063b48"
)  # fmt: skip


def scheme_of(value: object) -> Scheme:
    """The scheme a browser reported, light when it said nothing yet."""
    return "dark" if value == "dark" else "light"


def css_variables() -> str:
    """The style sheet that gives both schemes their `--ha-*` colours."""
    blocks = []
    for scheme, colours in COLOURS.items():
        body = "".join(f"--ha-{name}:{value};" for name, value in colours.items())
        blocks.append(f':root[data-mantine-color-scheme="{scheme}"]{{{body}color-scheme:{scheme};}}')
    return f":root{{--ha-font:{FONT};--ha-mono:{MONO};}}" + "".join(blocks)


def mantine() -> dict[str, Any]:
    """The Mantine theme: our accent, our fonts, moderately round corners."""
    return {
        "colors": {"atlas": list(ACCENT_SHADES)},
        "primaryColor": "atlas",
        "primaryShade": {"light": 6, "dark": 4},
        "autoContrast": True,
        "fontFamily": FONT,
        "fontFamilyMonospace": MONO,
        "headings": {"fontFamily": FONT, "fontWeight": "650"},
        "defaultRadius": "md",
        "respectReducedMotion": True,
    }


def grid_options() -> dict[str, Any]:
    """AG Grid options shared by every table; the colours are CSS variables, so one table serves both schemes."""
    parameters = {
        "backgroundColor": "var(--ha-surface)",
        "foregroundColor": "var(--ha-text)",
        "headerBackgroundColor": "var(--ha-surface)",
        "headerTextColor": "var(--ha-muted)",
        "borderColor": "var(--ha-border)",
        "rowHoverColor": "var(--ha-raised)",
        "selectedRowBackgroundColor": "var(--ha-accent-soft)",
        "accentColor": "var(--ha-accent)",
        "chromeBackgroundColor": "var(--ha-surface)",
        "menuBackgroundColor": "var(--ha-surface)",
        "fontFamily": "var(--ha-font)",
        "fontSize": 13,
        "headerFontWeight": 600,
        "wrapperBorder": False,
        "pinnedColumnBorder": False,
        "headerColumnResizeHandleColor": "transparent",
    }
    listed = ", ".join(f"{name}: {value!r}" for name, value in parameters.items()).replace("False", "false")
    return {
        "theme": {"function": f"themeQuartz.withParams({{{listed}}})"},
        "animateRows": False,
        "suppressCellFocus": False,
        "enableCellTextSelection": True,
    }


def template(scheme: Scheme) -> go.layout.Template:
    """The Plotly template of a scheme: surface background, thin grid, no frame."""
    colours = COLOURS[scheme]
    axis = {
        "gridcolor": colours["border"],
        "linecolor": colours["border"],
        "zeroline": False,
        "ticks": "",
        "tickfont": {"color": colours["muted"], "size": 11},
        "title": {"font": {"color": colours["muted"], "size": 12}},
    }
    return go.layout.Template(
        layout={
            "paper_bgcolor": colours["surface"],
            "plot_bgcolor": colours["surface"],
            "font": {"family": FONT, "color": colours["text"], "size": 12},
            "colorway": list(QUALITATIVE),
            "xaxis": axis,
            "yaxis": axis,
            "hoverlabel": {
                "bgcolor": colours["raised"],
                "bordercolor": colours["border"],
                "font": {"family": FONT, "color": colours["text"], "size": 12.5},
                "align": "left",
            },
            "margin": {"l": 48, "r": 12, "t": 12, "b": 40},
            "hovermode": "closest",
            "dragmode": False,
        }
    )

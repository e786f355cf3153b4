"""Draws apart-loss.svg: held-out loss over wall-clock time.

    python3 docs/results/apart.py runs/shapes > docs/results/apart-loss.svg

The losses are those of `cargo xtask run recipes/small/shapes.toml`, means of three sets of seeds; the times of an update
are those that docs/processes.md shows how to measure.
"""

import json
import statistics
import sys
from pathlib import Path

# Milliseconds per update: width 128 in one process with two threads, in two processes with one thread each on one machine
# and over a link of 1 Gbit/s, and width 64 with one thread while another trains beside it.
THREADS, PROCESSES, LINK, PARENT = 13.3, 18.3, 47.6, 7.7
BLUE, ORANGE, GREY, INK = "#0868AC", "#D1600A", "#62676D", "#1D1F22"


def curve(run, stage, milliseconds, start=0.0):
    """Points of time and mean loss, from the evaluations of a stage's three trainings."""
    trainings = []
    for name in (stage, f"{stage}.2", f"{stage}.3"):
        rows = map(json.loads, (run / name / "metrics.jsonl").open())
        trainings.append({row["step"]: row["loss"] for row in rows if row["kind"] == "evaluation"})
    steps = sorted(set.intersection(*map(set, trainings)))
    return [(start + step * milliseconds / 1000, statistics.mean(t[step] for t in trainings)) for step in steps]


def main():
    run = Path(sys.argv[1])
    parents = curve(run, "balanced-a", PARENT)
    lines = [
        ("two threads", GREY, "", curve(run, "baseline", THREADS)),
        ("two processes", GREY, "6 4", curve(run, "baseline", PROCESSES)),
        ("two processes, 1 Gbit/s between them", GREY, "2 4", curve(run, "baseline", LINK)),
        ("two parents, trained apart", BLUE, "", parents),
        ("fused, two threads", ORANGE, "", curve(run, "balanced", THREADS, parents[-1][0])),
    ]
    width, height, left, right, top, bottom = 720, 412, 60, 20, 20, 52
    most, low, high = 240.0, 2.7, 4.1

    def x(seconds):
        return left + (width - left - right) * seconds / most

    def y(loss):
        return top + (height - top - bottom) * (high - loss) / (high - low)

    colours = [(INK, "#F0EFE9"), (BLUE, "#5AA9E6"), (ORANGE, "#F4944D"), (GREY, "#9A9EA4")]
    dark = "".join(f'[fill="{a}"] {{ fill: {b} }} [stroke="{a}"] {{ stroke: {b} }}\n' for a, b in colours)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        'aria-label="held-out loss over wall-clock time" font-family="system-ui, DejaVu Sans, sans-serif" font-size="13">',
        "<title>held-out loss over wall-clock time</title>",
        "<style>@media (prefers-color-scheme: dark) {\n" + dark,
        '[fill="#FFFFFF"] { fill: #15171A } [stroke="#D8D8D3"] { stroke: #363A3F } }</style>',
        f'<rect width="{width}" height="{height}" fill="#FFFFFF"/>',
        f'<clipPath id="inside"><rect x="{left}" y="{top}" width="{width - left - right}" height="{height - top - bottom}"/></clipPath>',
    ]
    for seconds in range(0, 241, 40):
        out.append(f'<path d="M{x(seconds):.1f} {top}V{height - bottom}" stroke="#D8D8D3"/>')
        out.append(f'<text x="{x(seconds):.1f}" y="{height - bottom + 18}" fill="{INK}" text-anchor="middle">{seconds}</text>')
    for tenth in range(28, 42, 2):
        out.append(f'<path d="M{left} {y(tenth / 10):.1f}H{width - right}" stroke="#D8D8D3"/>')
        out.append(f'<text x="{left - 8}" y="{y(tenth / 10) + 4:.1f}" fill="{INK}" text-anchor="end">{tenth / 10:.1f}</text>')
    for name, colour, dashes, points in lines:
        path = " ".join(f"{x(seconds):.1f},{y(loss):.1f}" for seconds, loss in points)
        out.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes or "none"}" '
            'clip-path="url(#inside)"/>'
        )
        out.append(f'<circle cx="{x(points[-1][0]):.1f}" cy="{y(points[-1][1]):.1f}" r="3.5" fill="{colour}"/>')
    for row, (name, colour, dashes, _) in enumerate(lines):
        at = top + 20 + 20 * row
        out.append(f'<path d="M{width - 320} {at}h28" stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes or "none"}"/>')
        out.append(f'<text x="{width - 284}" y="{at + 4}" fill="{INK}">{name}</text>')
    out.append(f'<text x="{(left + width - right) / 2}" y="{height - 12}" fill="{INK}" text-anchor="middle">seconds</text>')
    out.append(f'<text transform="translate(16 {(top + height - bottom) / 2}) rotate(-90)" fill="{INK}" text-anchor="middle">held-out loss, nats</text>')
    print("\n".join(out + ["</svg>"]))


main()

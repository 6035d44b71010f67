"""Frames of the explorer's disk: the JavaScript of one frame while it is dragged, and what it holds in memory.

A headless Chromium draws made-up maps of 10,000 and 100,000 points on 800 × 800 pixels; captions and pictures included.

    python tests/benchmarks/bench_disk.py
"""

from __future__ import annotations

import statistics
import sys
from typing import Any

import numpy as np

from tests.support.disk import container, disk_page

FRAMES = 120
RINGS = [0.2, 0.4, 0.6, 0.8, 1.0]
LIMITS = {10_000: 16.0, 100_000: 33.0}
"""Milliseconds for the 95th percentile."""

DRAG = """async (frames) => {
  const send = (type, x, y) => disk.picture.overlay.dispatchEvent(
    new PointerEvent(type, { pointerId: 1, clientX: x, clientY: y, bubbles: true }));
  disk.picture.overlay.setPointerCapture = () => {};
  const times = [];
  send("pointerdown", 500, 400);
  for (let i = 0; i < frames; i++) {
    const t = (2 * Math.PI * i) / frames;
    send("pointermove", 400 + 150 * Math.cos(t), 400 + 150 * Math.sin(t));
    await new Promise((done) => requestAnimationFrame(done));
    const start = performance.now();
    disk.frame({ moving: true });
    times.push(performance.now() - start);
  }
  send("pointerup", 500, 400);
  return times;
}"""

ONCE = """async (act) => {
  const start = performance.now();
  if (act === "map") disk.setMap(map);
  if (act === "focus") disk.setFocus(window.held);
  if (act === "still") disk.frame({ moving: false });
  return performance.now() - start;
}"""


def main() -> int:
    """Measure and print."""
    print("points   p50    p95    limit   still   setMap  setFocus  turning p95   heap")
    late = False
    for count, limit in LIMITS.items():
        with disk_page(data_of(count)) as page:
            row = measured(page)
        late |= row["p95"] > limit
        print(
            f"{count:>7} {row['p50']:>5.1f}  {row['p95']:>5.1f}  {limit:>5.0f} ms {row['still']:>4.0f} ms"
            f" {row['map']:>4.0f} ms  {row['focus']:>4.0f} ms    {row['turning']:>5.1f} ms   {row['heap']:>5.1f} MB"
        )
    return int(late)


def measured(page: Any) -> dict[str, float]:
    """Return the figures of one page."""
    page.wait_for_timeout(1500)
    times = page.evaluate(DRAG, FRAMES)[10:]
    still = statistics.median(page.evaluate(ONCE, "still") for _ in range(5))
    remade = page.evaluate(ONCE, "map")
    page.evaluate("columns('focus').then((data) => { window.held = data; })")
    focused = page.evaluate(ONCE, "focus")
    turning = page.evaluate(
        """async () => {
          const times = [];
          for (let i = 0; i < 20; i++) {
            const start = performance.now();
            disk.frame({ moving: true });
            times.push(performance.now() - start);
            await new Promise((done) => requestAnimationFrame(done));
          }
          return times;
        }"""
    )
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    heap = session.send("Runtime.getHeapUsage")
    return {
        "p50": statistics.median(times),
        "p95": float(np.percentile(times, 95)),
        "still": still,
        "map": remade,
        "focus": focused,
        "turning": float(np.percentile(turning, 95)),
        "heap": (heap["usedSize"] + heap.get("backingStorageSize", 0)) / 1e6,
    }


def data_of(count: int) -> dict[str, bytes]:
    """Return a map of so many points and a focus on one of them; an eighth of the points are texts."""
    generator = np.random.default_rng(0)
    key = np.arange(count, dtype=np.uint32)
    radius = np.sqrt(generator.uniform(0.04, 1, count)).astype(np.float32)
    angle = generator.uniform(0, 2 * np.pi, count).astype(np.float32)
    modality = (generator.uniform(size=count) > 1 / 8).astype(np.uint8)
    header = {
        "collection": "made",
        "version": "1",
        "curv": 0.5,
        "count": count,
        "max_radius": float(radius.max()),
        "quantiles": np.quantile(radius, np.linspace(0, 1, 33)).tolist(),
        "rings": RINGS,
        "modalities": ["text", "image", "embedding"],
        "counts": {},
    }
    flags = np.zeros(count, dtype=np.uint8)
    flags[:40], flags[40:90], flags[90] = 1, 2, 4
    focus = {
        "version": "1",
        "curv": 0.5,
        "near_misses": {"above": None, "below": None},
        "of": {"radius": float(radius[90]), "modality": "image", "id": "90"},
        "rule": {"form": "cone", "eta": 1.0, "min_radius": 0.1},
        "counts": {"ancestors": 40, "descendants": 50},
    }
    margins = generator.normal(-1, 0.3, count).astype(np.float32)
    turned = generator.normal(0, 1.4, count).clip(-3.1, 3.1).astype(np.float32)
    columns = {"key": key, "radius": radius, "angle": turned, "flags": flags, "above": margins, "below": margins}
    return {
        "map": container(header, {"key": key, "radius": radius, "angle": angle, "modality": modality}),
        "focus": container(focus, columns),
    }


if __name__ == "__main__":
    sys.exit(main())

"""What the pages of reports are held to: they need nothing else, and a browser without a network draws them."""

import base64
import hashlib
import html
import html.parser
import json
import os
import re
import shutil
import subprocess

import numpy as np
import pytest
from matplotlib.image import imread


class Page(html.parser.HTMLParser):
    """Elements, attributes and text of a page."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.text, self.style, self.script = [], "", "", ""
        self._open = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._open.append(tag)

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        if "style" in self._open:
            self.style += data
        elif "script" in self._open:
            self.script += data
        else:
            self.text += data

    def count(self, tag):
        return sum(found == tag for found, _ in self.elements)


def plots(page):
    """How many plots a page has."""
    return sum(tag == "svg" and "plot" in attributes["class"].split() for tag, attributes in page.elements)


def assert_self_contained(path):
    """The page loads nothing, what it refers to inside of itself is there, and it forbids all scripts but its own."""
    page, source = Page(path), path.read_text(encoding="utf-8")
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            if name in ("src", "href", "xlink:href", "data", "srcset", "action", "poster"):
                assert value.startswith("#"), (tag, name, value)
            elif not name.startswith("xmlns") and name not in ("aria-label", "data-name"):
                assert "//" not in (value or ""), (tag, name, value)
                assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", value or ""))
    assert not {"link", "iframe", "object", "metadata"} & {tag for tag, _ in page.elements}
    (policy,) = [attributes["content"] for tag, attributes in page.elements if "http-equiv" in attributes]
    allowed = base64.b64encode(hashlib.sha256(page.script.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{allowed}'"
    assert page.count("script") == 1
    assert not re.search(r"fetch|XMLHttp|import|innerHTML|eval|https?:", page.script)
    assert "url(" not in page.style
    assert "@import" not in page.style
    assert "//" not in page.style
    defined = set(re.findall(r'\bid="([^"]+)"', source))
    used = set(re.findall(r'href="#([^"]+)"', source)) | set(re.findall(r"url\(#([^)]+)\)", source))
    assert used
    assert used <= defined


def chromium(*arguments, profile):
    """Run headless Chromium with its network cut off, and return what it prints."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        if os.environ.get("TWOHOT_REQUIRE_BROWSER") == "1":
            pytest.fail("TWOHOT_REQUIRE_BROWSER=1, but no chromium is on the PATH")
        pytest.skip("no chromium on the PATH")
    command = [
        program,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--hide-scrollbars",
        "--proxy-server=127.0.0.1:9",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={profile}",
        *arguments,
    ]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    return finished.stdout


MEASURE = """<script>addEventListener("load", () => {
  const box = (e) => { const r = e.getBoundingClientRect(); return [r.left, r.top, r.width, r.height]; };
  const all = (selector) => [...document.querySelectorAll(selector)];
  top.document.body.dataset.found = JSON.stringify({
    figures: all("figure").map(box),
    captions: all("figcaption").map(box),
    plots: all("svg.plot").map(box),
    panels: all(".panel").map(box),
    texts: all("svg.plot text").filter((e) => e.getClientRects().length).map(box),
    card: getComputedStyle(document.querySelector(".panel")).backgroundColor,
    page: [document.documentElement.scrollWidth, innerWidth],
  });
});</script>"""

POINT = """<script>addEventListener("load", () => {
  const tip = document.querySelector(".tip"), told = [];
  const tell = () => told.push(tip.hidden ? null : [...tip.children].map((line) => line.textContent));
  for (const plot of document.querySelectorAll("svg.plot")) {
    const box = plot.getBoundingClientRect();
    const right = box.right - parseFloat(getComputedStyle(plot).paddingRight);
    plot.dispatchEvent(new PointerEvent("pointermove", { clientX: right, clientY: box.top + 60 }));
    tell();
    plot.dispatchEvent(new KeyboardEvent("keydown", { key: "Home" }));
    tell();
    plot.dispatchEvent(new PointerEvent("pointerleave"));
    tell();
  }
  top.document.body.dataset.found = JSON.stringify(told);
});</script>"""


def in_browser(page, tmp_path, script, width, *arguments):
    """What a script leaves in `top.document.body.dataset.found` of a copy of the page, which forbids no scripts.

    The copy is a frame of that width, for no window is as narrow as a telephone.
    """
    source = re.sub(r"<meta http-equiv[^>]*>", "", page.read_text(encoding="utf-8")).replace(
        "</body>", f"{script}</body>"
    )
    frame = f'<iframe srcdoc="{html.escape(source)}" style="border:0;width:{width}px;height:800px"></iframe>'
    around = tmp_path / "around.html"
    around.write_text(f'<!doctype html><meta charset="utf-8"><body style="margin:0">{frame}</body>', encoding="utf-8")
    document = chromium("--dump-dom", *arguments, around.as_uri(), profile=tmp_path / "profile")
    (found,) = re.findall(r'data-found="([^"]*)"', document)
    return json.loads(html.unescape(found))


def values_under_a_pointer(page, tmp_path):
    """For each plot, the lines of the tip: at its right end, at its first point by keyboard, and after it was left."""
    original = chromium("--dump-dom", page.as_uri(), profile=tmp_path / "original")
    assert 'class="tip"' in original, "the page forbids its own script"
    told = in_browser(page, tmp_path, POINT, 1200)
    return [tuple(told[index : index + 3]) for index in range(0, len(told), 3)]


def assert_drawn(page, tmp_path, scheme, width, *, figures, plots):
    """Chromium draws so many figures with a caption each, and so many plots in them, none empty, in light or dark."""
    height = 14_000 if width < 600 else 7000
    window = (f"--window-size={width},{height}", f"--blink-settings=preferredColorScheme={int(scheme == 'light')}")
    found = in_browser(page, tmp_path, MEASURE, width, *window)
    assert len(found["figures"]) == len(found["captions"]) == figures
    assert len(found["plots"]) == plots
    assert all(width > 100 and height > 15 for kind in ("figures", "captions") for *_, width, height in found[kind])
    assert all(width > 150 and height > 100 for *_, width, height in found["plots"])
    assert found["page"] == [width, width], "the page is wider than the window"
    assert all(height >= 11 for *_, height in found["texts"]), "labels that nobody can read"
    assert len(found["texts"]) > 6 * plots
    edges = [(left, left + width) for left, _, width, _ in found["panels"]]
    for left, _, long, _ in found["texts"]:
        assert any(start <= left and left + long <= end for start, end in edges), "a label leaves its panel"

    picture = tmp_path / "page.png"
    chromium(f"--screenshot={picture}", *window, page.as_uri(), profile=tmp_path / "second")
    pixels = imread(picture)[..., :3]
    dark = scheme == "dark"
    for value in (pixels[5, 5].mean(), np.mean([int(part) for part in re.findall(r"\d+", found["card"])[:3]]) / 255):
        assert value < 0.2 if dark else value > 0.9
    for left, top, long, high in found["plots"]:
        plot = pixels[round(top) : round(top + high), round(left) : round(left + long)]
        assert plot.shape[0] > 100, "the plot lies below the screenshot"
        saturation = plot.max(-1) - plot.min(-1)
        assert (saturation > 0.25).sum() > 40, "no coloured line or bar"
        assert ((plot.min(-1) > 0.5) if dark else (plot.max(-1) < 0.5)).sum() > 40, "no labels"
        card = plot.max(-1) < 0.2 if dark else plot.min(-1) > 0.97
        assert card.mean() > 0.1, "no card behind the plot"

"""What the pages of reports are held to: they need nothing else, and a browser without a network draws them."""

import html.parser
import json
import os
import re
import shutil
import subprocess

import pytest
from matplotlib.image import imread


class Page(html.parser.HTMLParser):
    """Elements, attributes and text of a page."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.text, self.style = [], "", ""
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
        else:
            self.text += data

    def count(self, tag):
        return sum(found == tag for found, _ in self.elements)


def assert_self_contained(path):
    """The page loads nothing, and what it refers to inside of itself is there."""
    page, source = Page(path), path.read_text(encoding="utf-8")
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            if name in ("src", "href", "xlink:href", "data", "srcset", "action", "poster"):
                assert value.startswith("#"), (tag, name, value)
            elif not name.startswith("xmlns") and name != "aria-label":
                assert "//" not in (value or ""), (tag, name, value)
                assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", value or ""))
    assert not {"script", "link", "iframe", "object", "metadata"} & {tag for tag, _ in page.elements}
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
  document.body.dataset.boxes = JSON.stringify({
    figures: [...document.querySelectorAll("figure")].map(box),
    captions: [...document.querySelectorAll("figcaption")].map(box),
    plots: [...document.querySelectorAll("figure svg")].map(box),
    page: [document.documentElement.scrollWidth, innerWidth],
  });
});</script>"""


def assert_drawn(page, tmp_path, scheme, *, figures, plots):
    """Chromium draws so many figures with a caption each, and so many plots in them, none empty, in light or dark."""
    # The page forbids scripts, so the copy that measures itself goes without that rule.
    source = page.read_text(encoding="utf-8")
    measured = tmp_path / "measured.html"
    measured.write_text(re.sub(r"<meta http-equiv[^>]*>", "", source).replace("</body>", MEASURE + "</body>"))
    window = ("--window-size=1200,8000", f"--blink-settings=preferredColorScheme={int(scheme == 'light')}")
    document = chromium("--dump-dom", *window, measured.as_uri(), profile=tmp_path / "first")
    (found,) = re.findall(r'data-boxes="([^"]*)"', document)
    boxes = json.loads(found.replace("&quot;", '"'))

    assert len(boxes["figures"]) == len(boxes["captions"]) == figures
    assert len(boxes["plots"]) == plots
    assert all(width > 100 and height > 15 for kind in ("figures", "captions") for *_, width, height in boxes[kind])
    assert all(width > 150 and height > 100 for *_, width, height in boxes["plots"])
    assert boxes["page"][0] <= boxes["page"][1], "the page is wider than the window"

    picture = tmp_path / "page.png"
    chromium(f"--screenshot={picture}", *window, page.as_uri(), profile=tmp_path / "second")
    pixels = imread(picture)[..., :3]
    corner = pixels[5, 5]
    assert corner.mean() < 0.2 if scheme == "dark" else corner.mean() > 0.9
    for left, top, width, height in boxes["plots"]:
        plot = pixels[round(top) : round(top + height), round(left) : round(left + width)]
        assert plot.shape[0] > 100, "the plot lies below the screenshot"
        saturation = plot.max(-1) - plot.min(-1)
        assert (saturation > 0.25).sum() > 40, "no coloured line or bar"
        assert (plot.max(-1) < 0.5).sum() > 40, "no labels"
        assert (plot.min(-1) > 0.97).mean() > 0.1, "no white card behind the plot"

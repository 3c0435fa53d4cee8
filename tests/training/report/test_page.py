import base64
import re

from training.report.page import Charts, Picture, Rows, Section, Table, page

SVG = Picture(b"<svg/>", 'a "chart" of <x>', 300)
PNG = Picture(b"\x89PNG", "a strip", 120, "image/png")


def test_a_page_holds_its_pictures_and_loads_nothing() -> None:
    html = page("<title>", [("data", "a & b")], [Section("One", "", [Charts([SVG])])]).decode()
    (source,) = re.findall(r'src="([^"]*)"', html)
    assert source == "data:image/svg+xml;base64," + base64.b64encode(b"<svg/>").decode()
    assert not re.search(r"https?:|href=|<script|@import|url\(", html)
    assert "<h1>&lt;title&gt;</h1>" in html
    assert "<dd>a &amp; b</dd>" in html


def test_every_picture_has_its_text() -> None:
    assert 'alt="a &quot;chart&quot; of &lt;x&gt;"' in SVG.html()
    assert 'class="pixels"' in PNG.html()
    assert 'width="120"' in PNG.html()


def test_numbers_are_aligned_and_a_missed_goal_is_marked() -> None:
    html = Table(("goal", "reached", ""), [("ELBO", "3", "missed")], frozenset({1})).html()
    assert '<td class="number">3</td>' in html
    assert '<td class="missed">missed</td>' in html
    assert "<td>ELBO</td>" in html


def test_rows_have_labels_and_named_columns() -> None:
    html = Rows([("first", PNG), None, ("second", PNG)], ("a", "b")).html()
    assert html.count("<img") == 2
    assert html.count("width:60.00px") == 2
    assert "<span>first</span>" in html
    assert html.count('class="space"') == 1


def test_rows_without_labels_have_no_column_for_them() -> None:
    assert "<span>" not in Rows([("", PNG), ("", PNG)]).html()

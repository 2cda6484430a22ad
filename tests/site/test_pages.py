"""What the pages say, what they leave out, and that every link leads somewhere."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

from fabricated import HOSTILE, break_even, compared, lenet5_records, made_up, measurement, record, unshipped_paper

from espalier.site.links import row_page, slug
from espalier.site.pages import write_report

MEGABYTE = 1_000_000


class Page(HTMLParser):
    """Ids, links and tags of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.ids, self.hrefs, self.tags = path, [], [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        of = dict(attrs)
        self.tags.append(tag)
        self.ids += [of["id"]] if of.get("id") else []
        self.hrefs += [of[key] for key in ("href", "src") if of.get(key)]


def pages(site: Path) -> Iterator[Page]:
    return (Page(path) for path in sorted(site.rglob("*.html")))


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_every_page_is_small_and_needs_nothing_from_elsewhere(site: Path) -> None:
    for path in site.rglob("*.*"):
        text = text_of(path)
        assert len(text.encode()) < 3 * MEGABYTE
        assert re.search(r"https?:|//[a-z]+\.|@import|url\(|fetch\(|XMLHttpRequest", text) is None, path


def test_ids_are_unique_and_every_link_has_its_goal(site: Path) -> None:
    known = {page.path.resolve(): page for page in pages(site)}
    assert len(known) > 25
    for page in known.values():
        assert len(page.ids) == len(set(page.ids)), page.path
        for href in page.hrefs:
            path, _, goal = href.partition("#")
            target = (page.path.parent / path).resolve() if path else page.path.resolve()
            assert target.is_file(), (page.path, href)
            assert target.is_relative_to(site.resolve())
            assert not goal or goal in known[target].ids, (page.path, href)


def test_every_page_can_be_reached_from_the_first(site: Path) -> None:
    waiting, seen = [site / "index.html"], set()
    while waiting:
        path = waiting.pop().resolve()
        if path not in seen:
            seen.add(path)
            waiting += [path.parent / href.partition("#")[0] for href in Page(path).hrefs if ".html" in href]
    assert seen == {path.resolve() for path in site.rglob("*.html")}


def test_the_first_page_names_every_paper_with_its_state_and_scale(site: Path) -> None:
    text = text_of(site / "index.html")
    assert text.count('<th scope="row" data-value=') == 27
    assert '<a href="papers/progressive-admm.html">progressive-admm</a>' in text
    assert text.count(" not implemented</span></td>") == 26
    assert " partly run</span></td>" in text
    assert "HeatViT: Hardware-Efficient Adaptive Token Pruning" in text
    assert "desk" in text
    assert '<a href="compare/methods.html">methods</a>' in text
    assert "20 of 20" in text


def test_a_papers_page_holds_its_figures(site: Path) -> None:
    text = text_of(site / "papers" / "progressive-admm.html")
    assert "98.45 ± 0.07 <small>yours, n = 2</small>" in text  # the mean of 98.4 and 98.5
    assert '<a class="ours" href="../runs/progressive-admm/lenet5/admm-70x.html#desk">98.45' in text
    assert "99.2 <small>published</small>" in text
    assert 'class="badge">secondary source</span>' in text
    assert re.search(r"<div>\? (<small>published</small> )?<span class=\"badge\">abstract</span>", text)  # an unknown figure stays unknown
    assert "scale: desk" in text
    assert "Not run at this scale: magnitude-70x." in text
    assert 'rows behind the claims <span class="badge">not run</span>' in text
    assert "Not to be set against the published figures (other scale or hardware): top1_pct" in text
    assert '<th scope="col">pruned, rate</th><th scope="col">progressive ADMM' in text  # the form the paper prints
    assert '<th scope="row">96.7 %, 30x</th>' in text
    assert 'aria-label="admm-70x, published: rate 71.2 x, top-1 99.20 %"' in text
    assert 'aria-label="admm-70x, yours: rate 71.2 x, top-1 98.45 ± 0.07 %"' in text


def test_a_rows_page_holds_the_record_and_the_command(site: Path) -> None:
    text = text_of(site / "runs" / "progressive-admm" / "lenet5" / "admm-70x.html")
    assert "<code>espalier run progressive-admm/lenet5 row=admm-70x scale=desk seed=1</code>" in text
    assert 'data-copy="espalier run progressive-admm/lenet5 row=admm-70x scale=desk seed=1"' in text
    assert '<th scope="row">weights_nonzero</th><td>6,050</td><td>6,050</td>' in text
    dense = text_of(site / "runs" / "compare" / "methods" / "dense.html")
    assert '<th scope="row">seed</th><td>0</td><td>1</td><td>2</td>' in dense  # they differ in this setting
    assert '<th scope="row">model.depth</th><td>8</td>' in dense  # and share this one
    assert "cpu A, 2 threads, batch 1, fp32, pytorch-eager, cpu" in dense


def test_a_comparison_shows_fronts_ranks_and_commands(site: Path) -> None:
    text = text_of(site / "compare" / "methods.html")
    assert re.findall(r"<figcaption>([^<]+)", text) == [
        f"Accuracy against {cost}" for cost in ("rate", "multiply-adds", "bytes", "latency")
    ]
    assert "Pareto front (grey steps): ADMM-block-8x, ADMM-block-4x, ADMM-block-2x, dense." in text
    assert '<th scope="row">ADMM</th><td>1.00</td><td>6</td>' in text
    assert "rate; multiply-adds; bytes; latency" in text
    assert "ADMM-block-4x: top1_pct 91.50 ± 0.10 %, rate 4 x; n = 3" in text
    assert 'href="../runs/compare/methods/' + slug("ADMM-block-4x") + ".html#desk" in text
    assert "espalier run compare/methods &#39;row=ADMM-block-4x&#39; seed=2" in text


def test_what_is_not_run_is_said_and_the_only_setting_is_told_once(tmp_path: Path) -> None:
    paper, records, measurements = compared(tmp_path)
    run = [one for one in records if one.row != "MEST-block-8x"]
    text = text_of(write_report([paper], run, measurements, tmp_path / "out").parent / "compare" / "methods.html")
    assert "Not run at this scale: MEST-block-8x." in text
    assert "<small>cpu A, 2 threads" not in text
    assert "Ran on: cpu A; cpu A, 2 threads, batch 1, fp32, pytorch-eager, cpu." in text
    assert "rate; multiply-adds; bytes; latency" in text


def test_break_even_rates_are_a_map_that_says_where_they_were_measured(site: Path, tmp_path: Path) -> None:
    text = text_of(site / "break-even.html")
    assert "Measured: the pruning rate" in text
    assert "CPU, date, versions: cpu A (2 cores; avx2), 2026-01-02, torch 2.13.0, mnn 3.2.0." in text
    assert text.count("CPU, date, versions:") == 1
    assert re.findall(r"<h2[^>]*>([^<]+)", text) == ["1 thread", "2 threads"]
    assert "<small>mnn, 0.0803 ms</small>" in text
    assert "<small>no engine was timed</small>" in text
    row = re.search(r'data-value="64-64_3x3_56x56">.*?</tr>', text, re.DOTALL)
    assert row is not None
    assert re.findall(r'<td data-value="[^"]+"( class="t\d")?>([^<]+)', row[0]) == [
        (' class="t4"', "any rate"),
        (' class="t3"', "from 1.37x"),
        (' class="t1"', "from 3.21x"),
        ("", "not up to 8x"),
        ("", "0.04"),
    ], "the highest rate is that of the structure, not of the page"
    assert "0.04, CPUs moved" in text
    assert 'break-even.html">Break-even</a>' in text_of(site / "index.html")
    alone = write_report([made_up(tmp_path)], [], [], tmp_path / "out").parent
    assert not (alone / "break-even.html").exists()
    assert "Break-even" not in text_of(alone / "index.html")


def test_times_of_one_computation_earn_no_place_on_the_front(tmp_path: Path) -> None:
    paper, records, measurements = compared(tmp_path)
    masked = [one.model_copy(update={"metrics": {**one.metrics, "macs": 4e7, "parameters": 1e5}}) for one in records]
    text = text_of(write_report([paper], masked, measurements, tmp_path / "out").parent / "compare" / "methods.html")
    assert "Pareto front (grey steps): dense." in text
    assert "rate; multiply-adds; bytes; latency" in text  # the dense row is on all of them
    assert text.count("; latency</td>") == 1
    assert "latency_ms_p50: all rows are timings of one computation" in text


def test_times_of_two_devices_never_share_a_chart(tmp_path: Path) -> None:
    paper, records, measurements = compared(tmp_path)
    other = [one.model_copy(update={"device": "cpu B"}) for one in measurements]
    text = text_of(write_report([paper], records, [*measurements, *other], tmp_path / "out").parent / "compare" / "methods.html")
    assert text.count("<figcaption>Accuracy against latency</figcaption>") == 2
    assert text.count('<p class="note">cpu A, 2 threads') == 1
    assert "latency (cpu B, 2 threads, batch 1, fp32, pytorch-eager, cpu)" in text


def test_names_and_notes_from_outside_stay_text(tmp_path: Path) -> None:
    paper, records, measurements = compared(tmp_path / "one")
    hostile = [
        one.model_copy(update={"device": HOSTILE, "command": f"espalier {HOSTILE}", "scale": HOSTILE, "table": HOSTILE, "variant": True})
        for one in lenet5_records()
    ]
    timed = measurement(hostile[0].checkpoint, 1.0, engine=HOSTILE)
    root = write_report([unshipped_paper(tmp_path), paper], [*records, *hostile], [*measurements, timed], tmp_path / "out").parent
    for page in pages(root):
        assert "img" not in page.tags, page.path
        assert page.tags.count("script") == 1
        assert all(re.fullmatch(r"[\w./#-]+", href) for href in page.hrefs), page.path
    assert "&lt;img src=x onerror=" in text_of(root / "runs.html")


def test_stale_runs_and_variants_are_marked(tmp_path: Path) -> None:
    records = lenet5_records()
    odd = record(
        "dense",
        5,
        paper="progressive-admm",
        table="lenet5",
        identity="odd555",
        variant=True,
        command="espalier run a/b row=dense trainer.lr=1",
    )
    dense = next(one.name for one in records if one.row == "dense")
    home = write_report([unshipped_paper(tmp_path)], [*records, odd], [], tmp_path / "out", stale={dense})
    page = text_of(home.parent / "papers" / "progressive-admm.html")
    assert '<th scope="row">dense <span class="badge unsure">stale: code changed since</span></th>' in page
    assert page.count("stale: code") == 1
    assert f"stand in no cell: {odd.name}." in page
    runs = text_of(home.parent / "runs.html")
    assert "<small>trainer.lr=1</small>" in runs
    assert "<td>variant</td>" in runs
    assert runs.count("<td>stale: code changed since</td>") == 1


def test_the_number_of_pages_is_known_before_the_first_is_written(tmp_path: Path) -> None:
    paper, records, measurements = compared(tmp_path)
    seen: list[tuple[str, int]] = []
    write_report(
        [unshipped_paper(tmp_path), paper],
        [*lenet5_records(), *records],
        measurements,
        tmp_path / "out",
        break_even=break_even(),
        told=lambda path, of: seen.append((path, of)),
    )
    assert {of for _, of in seen} == {len(seen)}
    assert len(list((tmp_path / "out").rglob("*.html"))) == len(seen)


def test_pages_of_what_is_gone_are_removed_and_nothing_else(tmp_path: Path) -> None:
    paper = made_up(tmp_path)
    out = tmp_path / "out"
    write_report([paper], [record("dense"), record("admm")], [], out)
    (out / "runs" / "mine.html").write_text("kept")
    (out / ".pages").write_text((out / ".pages").read_text() + "../outside.html\n")
    (tmp_path / "outside.html").write_text("kept")
    write_report([paper], [record("dense")], [], out)
    assert (out / row_page("made-up", "tab", "dense")).is_file()
    assert not (out / row_page("made-up", "tab", "admm")).exists()
    assert (out / "runs" / "mine.html").read_text() == "kept"
    assert (tmp_path / "outside.html").read_text() == "kept"


def test_a_sweep_of_hundreds_of_runs_keeps_its_pages_small(tmp_path: Path) -> None:
    config = {"model": {f"key{i}": i for i in range(60)}}
    runs = [
        record(
            "dense",
            i,
            identity=f"{i:06x}",
            variant=True,
            config={**config, "rate": i},
            metrics={f"layer/rate/{j}": i / 7 for j in range(40)},
        )
        for i in range(400)
    ]
    root = write_report([made_up(tmp_path)], runs, [], tmp_path / "out").parent
    assert max(path.stat().st_size for path in root.rglob("*.html")) < 2 * MEGABYTE
    text = text_of(root / row_page("made-up", "tab", "dense"))
    assert "61 settings that all of them share" not in text
    assert "60 settings that all of them share" in text
    assert text.count('<section class="run"') == 400


def test_file_names_are_plain_and_each_its_own() -> None:
    names = ["a", "A", "a b", "a/b", "../a", "", ".", "a" * 300, "ä", "a?b#c", HOSTILE]
    slugs = [slug(name) for name in names]
    assert slugs[0] == "a"
    assert len({one.lower() for one in slugs}) == len(names)
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,90}", one) for one in slugs)

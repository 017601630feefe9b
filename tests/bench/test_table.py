"""The tables say what the reports say, and every table stands in a document."""

import click
import pytest

from bench import table

ROW = {"wall_s": 12.4, "peak_gb": 1.56, "timings_ms": {"step": 33.6}, "tokens": 32}
OURS = {"generate": ROW, "describe": ROW, "export": {**ROW, "bundle_gb": 1.61}, "verify": ROW}
THEIRS = {"generate": {**ROW, "wall_s": 380.6, "peak_gb": 8.84}, "describe": {**ROW, "wall_s": 60.0}}
REPORT = {
    "machine": {"cpu": "AMD EPYC", "cores": 2}, "versions": {"onnxruntime": "1.32.0"}, "max_tokens": 32,
    "results": {"int4": OURS, "int8": OURS, "transformers fp32": THEIRS},
}  # fmt: skip


def test_int4_beside_transformers():
    assert table.glance(REPORT).splitlines()[2:] == [
        "| janus-rt int4 (default) | 12 s, 1.6 GB | 12 s, 1.6 GB |",
        "| transformers fp32 | 381 s, 8.8 GB | 60 s, 1.6 GB |",
    ]


def test_instructions_of_the_machine():
    report = {**REPORT, "machine": {**REPORT["machine"], "instructions": ["avx2", "avx512_vnni"]}}
    assert table.glance(report).startswith("| AMD EPYC with AVX512 VNNI, 2 cores |")


def test_int4_alone_where_transformers_was_not_measured():
    old = {**REPORT, "results": {"int4": {stage: {**ROW, "tokens": 32} for stage in OURS}}}
    del old["results"]["int4"]["describe"]["tokens"]  # Reports before transformers was measured do not have it.
    assert len(table.glance(old).splitlines()) == 3


def test_answers_of_different_lengths_make_no_table():
    short = {**REPORT, "results": {"int4": OURS, "transformers bf16": {**THEIRS, "describe": {**ROW, "tokens": 9}}}}
    with pytest.raises(click.ClickException, match="answer of transformers bf16 ended before 32 tokens"):
        table.glance(short)


def test_every_precision_and_no_rival():
    lines = table.speed(REPORT).splitlines()
    assert lines[4:] == [f"| {name} | 12 s, 1.6 GB, bundle 1.6 GB | 12 s, 1.6 GB | 34 ms | 12 s, 1.6 GB |" for name in ("int4", "int8")]


def test_the_best_of_each_stage_is_bold_whoever_it_is():
    """Where a system is alone nobody is best; of equal cells as they are printed the faster is."""
    ours = {
        "image step": {"p50": 29.4, "reads": 500e6},
        "image preview": {"p50": 600, "reads": 0},
        "text prefill": {"p50": 5000, "reads": 0},
    }
    theirs = {"image step": {"p50": 29.2, "reads": 0}, "text prefill": {"p50": 5100.0, "reads": 0}}
    machine = {"cpu": "Any", "instructions": ["avx2", "amx_int8"], "cores": 2}
    systems = {"ours": ours, "theirs": theirs, "earlier ours": {"image step": {"p50": 1, "reads": 0}}}  # which is not for this table
    report = {"machine": machine, "rows": 2, "bandwidth_gb_per_s": 34, "results": systems}
    assert table.latency(report).startswith("Any with AMX INT8, 2 cores; 2 rows, ")
    assert table.latency(report).splitlines()[2:] == [
        "| stage | ours | theirs |",
        "| --- | --- | --- |",
        "| image step | 29 ms (50%) | **29 ms** |",
        "| image preview | 600 ms |  |",
        "| text prefill | **5.0 s** | 5.1 s |",
    ]


def test_only_the_text_between_marks_changes():
    text = "before\n<!-- table: flow -->\nold\n<!-- end of table -->\nbetween\n<!-- table: quality -->\n<!-- end of table -->\nafter\n"
    new = table.replaced(text)
    assert table.names(new) == ["flow", "quality"] and table.replaced(new) == new and "old" not in new
    assert new.startswith("before\n<!--") and "-->\nbetween\n<!--" in new and new.endswith("-->\nafter\n")


def test_a_table_that_nothing_makes():
    with pytest.raises(click.ClickException, match="no results for a table named floww"):
        table.replaced("<!-- table: floww -->\n<!-- end of table -->\n")


@pytest.fixture
def document(tmp_path, monkeypatch):
    path = tmp_path / "some.md"
    path.write_text("<!-- table: flow -->\nold\n<!-- end of table -->\n")
    monkeypatch.setattr(table, "DOCUMENTS", (path,))
    return path


def test_a_table_that_no_document_has(run, document, monkeypatch):
    monkeypatch.setattr(table, "TABLES", {name: table.TABLES[name] for name in ("flow", "speed")})
    result = run(table.main)
    assert result.exit_code == 1 and "no document has the marks of speed" in result.output and "old" in document.read_text()


def test_check_only_compares(run, document, monkeypatch):
    monkeypatch.setattr(table, "TABLES", {"flow": table.TABLES["flow"]})
    result = run(table.main, "--check")
    assert result.exit_code == 1 and "the tables of some.md are not those" in result.output and "old" in document.read_text()
    assert run(table.main).exit_code == 0 and "old" not in document.read_text()
    assert run(table.main, "--check").exit_code == 0

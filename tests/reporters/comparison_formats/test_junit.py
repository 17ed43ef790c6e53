"""A test per gated metric, as Jenkins and GitLab read them."""

from moeprof.reporters.comparison_formats.junit import render

from .findings import HOSTILE, comparison, found, hostile, one_of_each, read_xml


def test_every_gated_metric_is_a_case_with_its_outcome() -> None:
    root = read_xml(render(one_of_each()))
    outcomes = {case.get("name"): [element.tag for element in case] for case in root.iter("testcase")}
    assert outcomes == {
        "throughput (score, static)": ["failure"],
        "throughput (score, dynamic)": ["skipped"],
        "memory_total_peak (score, static)": [],
        "waste_factor (score, static)": [],
        "perplexity (score, static)": ["skipped"],
        "dead_experts (score, static)": ["skipped"],
    }
    assert {case.get("classname") for case in root.iter("testcase")} == {"lm-tiny.score"}


def test_the_totals_stand_on_the_suite() -> None:
    root = read_xml(render(one_of_each()))
    totals = {"name": "moeprof compare", "tests": "6", "failures": "1", "errors": "0"}
    assert dict(root[0].attrib) == {**totals, "skipped": "3"}
    assert dict(root.attrib) == totals


def test_a_failure_says_by_how_much() -> None:
    failure = read_xml(render(one_of_each())).find(".//failure")
    message = "worse: 1,000 tokens/s -> 880 tokens/s, -12% [-14% to -10%], p 0.0013"
    assert (failure.get("type"), failure.get("message")) == ("worse", message)
    assert failure.text == f"throughput (lm-tiny, score, static) {message}"


def test_a_skipped_case_says_why() -> None:
    messages = [element.get("message") for element in read_xml(render(one_of_each())).iter("skipped")]
    assert messages[0].endswith("about 40 rounds per side would decide")
    assert messages[1].endswith("different routing")
    assert messages[2] == "removed: 1,000 experts in the baseline only"


def test_a_metric_without_phase_belongs_to_the_whole() -> None:
    case = read_xml(render(comparison(found("same", "memory_static", phase="", variant="")))).find(".//testcase")
    assert (case.get("classname"), case.get("name")) == ("lm-tiny.whole", "memory_static (whole)")


def test_namesakes_are_told_apart() -> None:
    root = read_xml(render(comparison(found("same"), found("same"), found("worse"))))
    names = [case.get("name") for case in root.iter("testcase")]
    assert names == [f"throughput (score, static){number}" for number in ("", " #2", " #3")]


def test_nothing_that_could_be_decided_is_an_error_and_never_a_success() -> None:
    for one in (comparison(), comparison(found("new")), comparison(found("not comparable", why="different machines"))):
        root = read_xml(render(one))
        assert root.get("errors") == "1"
        assert root.find(".//error").get("message").startswith("Nothing is comparable")


def test_a_metric_that_is_only_described_has_no_case() -> None:
    described = [found("not comparable", metric, why="x") for metric in ("region_time", "step_latency", "steps")]
    assert len(read_xml(render(comparison(found("same"), *described))).findall(".//testcase")) == 1


def test_hostile_names_read_back() -> None:
    names = " ".join(case.get("name") for case in read_xml(render(hostile())).iter("testcase"))
    for text in (HOSTILE[0], "../../x", "a|b", "]]>", "&lt;&amp;", r"a\n\n# b"):
        assert text in names

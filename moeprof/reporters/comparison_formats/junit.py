"""A comparison as JUnit XML for Jenkins, GitLab and others: one test case per gated metric."""

from collections.abc import Iterator
from xml.etree import ElementTree as ET

from moeprof.analysis.comparison.compare import UNDECIDED, Comparison
from moeprof.analysis.comparison.measurement import is_gated
from moeprof.analysis.comparison.verdicts import Finding
from moeprof.records.metrics.registry import METRICS
from moeprof.reporters.comparison_formats.names import WHOLE, case_name, distinct
from moeprof.reporters.comparison_formats.verdict import sentence
from moeprof.reporters.comparison_formats.words import described, one_line, place

DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'
SUITE = "moeprof compare"

OUTCOMES = {"worse": "failure", "inconclusive": "skipped", "not comparable": "skipped", "removed": "skipped"}
"""The XML element of a test case that did not pass."""


def render(comparison: Comparison) -> str:
    """One test suite with the elements and attributes of Jenkins' `junit-10.xsd`."""
    suites = ET.Element("testsuites", name=SUITE)
    suite = ET.SubElement(suites, "testsuite", name=SUITE)
    found = list(cases_of(comparison))
    # GitLab keeps only one of two cases with the same class and name
    for one, name in zip(found, distinct(case_name(one) for one in found), strict=True):
        suite.append(case(one, name))
    suite.extend(undecided(comparison))
    totals = {"tests": "testcase", "failures": "testcase/failure", "errors": "testcase/error", "skipped": "testcase/skipped"}
    for attribute, path in totals.items():
        suite.set(attribute, str(len(suite.findall(path))))
        if attribute != "skipped":  # testsuites has no such attribute
            suites.set(attribute, suite.attrib[attribute])
    ET.indent(suites)
    return DECLARATION + ET.tostring(suites, encoding="unicode") + "\n"


def cases_of(comparison: Comparison) -> Iterator[Finding]:
    """The gated metrics, and those that would be gated if both sides were comparable."""
    for one in comparison.findings:
        if one.gated or (one.verdict in ("not comparable", "removed") and would_be_gated(one)):
            yield one


def would_be_gated(finding: Finding) -> bool:
    """Whether a finding counts as gated: timed metrics of the test family, and others with a direction or unknown here."""
    if finding.kind == "timed":
        return is_gated(finding.address)
    return finding.metric not in METRICS or METRICS[finding.metric].better != "neither"


def case(finding: Finding, name: str) -> ET.Element:
    """A test case that passes if the metric is better or the same."""
    classname = one_line(f"{finding.recipe}.{finding.address.phase or WHOLE}")
    element = ET.Element("testcase", classname=classname, name=name)
    if outcome := OUTCOMES.get(finding.verdict):
        message = f"{finding.verdict}: {described(finding)}"
        detail = ET.SubElement(element, outcome, type=finding.verdict, message=message)
        detail.text = f"{one_line(finding.metric)} ({place(finding)}) {message}"
    return element


def undecided(comparison: Comparison) -> Iterator[ET.Element]:
    """An error if nothing was decided, because skipped cases alone would look like success."""
    if comparison.exit_code(strict=False) == UNDECIDED:
        element = ET.Element("testcase", classname=SUITE, name="at least one metric is decided")
        ET.SubElement(element, "error", type="undecided", message=sentence(comparison))
        yield element

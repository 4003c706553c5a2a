"""The report as JUnit XML, in the form that the readers of Jenkins and GitLab take (Jenkins' `junit-10.xsd`)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

from ref_engine.verify.run import Result

# what XML 1.0 cannot hold, not even as a reference
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_xml(results: Sequence[Result], properties: Mapping[str, str]) -> bytes:
    """One suite; the classname of a case is its id up to the last slash."""
    suite = ElementTree.Element(
        "testsuite",
        name="ref-engine verify",
        tests=str(len(results)),
        failures=str(sum(r.status == "failed" for r in results)),
        errors="0",
        skipped=str(sum(r.status == "skipped" for r in results)),
        time=f"{sum(r.seconds for r in results):.3f}",
    )
    about = ElementTree.SubElement(suite, "properties")
    for name, value in properties.items():
        ElementTree.SubElement(about, "property", name=name, value=_clean(value))
    for result in results:
        group, _, name = result.case.id.rpartition("/")
        case = ElementTree.SubElement(
            suite,
            "testcase",
            classname=_clean(group.replace("/", ".")),
            name=_clean(name),
            time=f"{result.seconds:.3f}",
        )
        if result.status == "failed":
            fault = ElementTree.SubElement(case, "failure", message=_clean(result.finding.message), type="divergence")
            fault.text = _clean(_detail(result))
        elif result.status == "skipped":
            ElementTree.SubElement(case, "skipped", message=_clean(result.finding.message))
        else:
            ElementTree.SubElement(case, "system-out").text = _clean(_detail(result))
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _detail(result: Result) -> str:
    finding = result.finding
    lines = [f"id: {result.case.id}", f"operation: {result.case.operation}"]
    if result.case.type:
        lines.append(f"type: {result.case.type}")
    if finding.limit:
        lines.append(f"asked: {finding.limit}")
    lines += [f"{name}: {value:.6g}" for name, value in finding.figures.items()]
    if finding.worst is not None:
        lines.append(f"worst index: {list(finding.worst)}, got {finding.got!r}, expected {finding.want!r}")
    if finding.message:
        lines.append(finding.message)
    return "\n".join(lines)


def _clean(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)

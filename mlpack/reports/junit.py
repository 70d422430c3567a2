"""A gate as JUnit XML, the form that CI servers read: one test case per check.

Source of the form: the schema that Jenkins' JUnit plugin publishes; GitLab reads the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from mlpack.core.gate import Check, Gated

_GOOD = {"pass", "likely"}


def junit(found: Gated) -> str:
    """The document. A failed check is a `failure`, one that cannot tell an `error`: CI shows both as red."""
    suite = ET.Element(
        "testsuite",
        name=f"mlpack gate {found.label} against {found.against}",
        tests=str(len(found.checks)),
        failures=str(sum(check.verdict == "fail" for check in found.checks)),
        errors=str(sum(_unsure(check) for check in found.checks)),
        skipped=str(sum(check.verdict == "skipped" for check in found.checks)),
    )
    for check in found.checks:
        suite.append(_case(check, found))
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _case(check: Check, found: Gated) -> ET.Element:
    case = ET.Element("testcase", classname=f"mlpack.gate.{found.name}", name=check.name)
    said = f"{check.says}; allowed: {check.allowed}" if check.allowed else check.says
    if check.verdict == "skipped":
        ET.SubElement(case, "skipped", message=check.says)
    elif check.verdict == "fail":
        ET.SubElement(case, "failure", type="fail", message=said)
    elif _unsure(check):
        ET.SubElement(case, "error", type=check.verdict, message=f"{check.verdict}: {said}")
    else:
        ET.SubElement(case, "system-out").text = f"{check.verdict}: {said}"
    return case


def _unsure(check: Check) -> bool:
    return check.verdict not in {*_GOOD, "fail", "skipped"}

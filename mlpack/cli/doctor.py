"""`mlpack doctor`: is this machine fit?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlpack.core.wording import count
from mlpack.errors import MissingLibrary

if TYPE_CHECKING:
    from mlpack.cli.screen import Screen


def command(screen: Screen) -> None:
    """Check this machine: libraries with their tested range, CPU, NVIDIA devices, disk space, names."""
    from mlpack.api.doctor import doctor

    diagnosis = doctor()

    def human(screen: Screen) -> None:
        for area in ("library", "machine", "disk", "name"):
            checks = [check for check in diagnosis.checks if check.area == area]
            rows = [(check.name, check.status, check.found, check.wanted) for check in checks]
            has_wanted = any(check.wanted for check in checks)
            columns = (area, "", "found", "wanted") if has_wanted else (area, "", "found")
            screen.table(columns, [row[: len(columns)] for row in rows])
        for check in diagnosis.checks:
            if check.status == "warning":
                screen.warn(f"{check.name}: {check.hint}")

    document = {**diagnosis.model_dump(mode="json"), "ok": not diagnosis.wrong}
    screen.result(document, human)
    if diagnosis.wrong:
        said = "; ".join(f"{check.name}: {check.found}" for check in diagnosis.wrong)
        hint = " && ".join(dict.fromkeys(check.hint for check in diagnosis.wrong))
        raise MissingLibrary(f"{count(len(diagnosis.wrong), 'thing')} to mend: {said}", hint)

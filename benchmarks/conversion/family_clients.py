"""What of each family of models is exact, and which clients opened its files, out of a run of ``make test-clients``.

    make test-clients
    python benchmarks/conversion/family_clients.py .clients/families --output benchmarks/results/families.json

The run measured the differences while it made the models (tests/clients/make_families.py). A client is listed where it
made the right vectors of every file that it opens.
"""

import argparse
import json
from pathlib import Path

from distilrubert.common.errors import UserError
from distilrubert.common.measurements import Measurements, Row


def with_clients(report: Measurements, opened: list[dict[str, str]]) -> Measurements:
    """The report, each row with its `clients` in the order in which they ran.

    Raises:
        UserError: if a model was not opened by a client that opened another: the run was not complete.
    """
    clients = dict.fromkeys(entry["client"] for entry in opened)
    found = {(entry["model"], entry["client"]) for entry in opened}
    rows = []
    for row in report.rows:
        if missing := [client for client in clients if (row.case, client) not in found]:
            raise UserError(f"{row.case}: was not opened by {', '.join(missing)}; make test-clients runs all")
        rows.append(Row(row.case, {**row.values, "clients": list(clients)}))
    return Measurements(report.environment, rows, details=report.details)


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    lines = (arguments.folder / "opened.jsonl").read_text(encoding="utf-8").splitlines()
    report = Measurements.load(arguments.folder / "families.json")
    with_clients(report, [json.loads(line) for line in lines]).save(arguments.output)


if __name__ == "__main__":
    main()

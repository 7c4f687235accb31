"""One meaning for each option, and the table of them is what the commands say."""

from scripts.options_table import PAGE, table, uses

COMPUTE_NOTHING = {
    *("list", "describe", "doctor", "schema", "completion", "new", "fetch", "plan"),
    *("compare", "merge", "export", "track"),
    *("report", "verify", "clean", "leaderboard", "status", "cancel", "logs", "vbench table"),
}

OTHER_SPELLINGS = {
    "--budget": {"--budget", "--budget-time", "--budget-memory"},  # the unit decides: 6000, 10m, 40GB
}


def test_an_option_means_the_same_for_every_command() -> None:
    meanings: dict[str, set[str]] = {}
    for use in uses():
        meanings.setdefault(use.spellings[0], set()).add(use.meaning)
    assert {option: found for option, found in meanings.items() if len(found) > 1 or "" in found} == {}


def test_a_spelling_belongs_to_one_option() -> None:
    owners: dict[str, set[str]] = {}
    for use in uses():
        for spelling in use.spellings:
            owners.setdefault(spelling, set()).add(use.spellings[0])
    shared = {spelling: found for spelling, found in owners.items() if len(found) > 1}
    assert shared == OTHER_SPELLINGS


def test_the_table_in_the_documentation_is_up_to_date() -> None:
    assert table() in PAGE.read_text(encoding="utf-8"), "run: python -m scripts.options_table"


def test_what_computes_takes_a_device_and_what_tells_takes_json() -> None:
    having: dict[str, set[str]] = {}
    for use in uses():
        having.setdefault(use.spellings[0], set()).add(use.command)
    assert having["--device"] == having["--quiet"] - COMPUTE_NOTHING
    assert having["--json"] >= {"list", "describe", "doctor", "plan", "status", "report"}

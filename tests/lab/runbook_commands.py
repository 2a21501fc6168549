"""What of the runbooks is typed where: in a lab, or by a test that is named, for what no lab can show."""

ELSEWHERE: dict[tuple[str, str], str] = {
    ("agent-silent", "penstock agent enrol"): "tests/relay/test_enrolment.py",
    ("agent-stolen", "penstock gateway revoke"): "tests/relay/test_enrolment.py",
    ("agent-stolen", "penstock agent enrol"): "tests/relay/test_enrolment.py",
    ("certificate-ends", "penstock agent renew"): "tests/relay/test_enrolment.py",
    ("certificate-ends", "penstock agent certify"): "tests/drivers/test_certificate_renewal.py",
    ("host-refuses", "penstock agent break-glass"): "tests/drivers/test_host_orders_real.py",
    ("index-ends", "penstock release refresh"): "tests/drivers/test_index_renewal.py",
    ("index-ends", "penstock release index"): "tests/service/test_release_commands.py",
    ("index-ends", "penstock release sign"): "tests/service/test_release_commands.py",
    ("signature-refused", "penstock release verify"): "tests/service/test_release_commands.py",
    ("signer-compromised", "penstock release verify"): "tests/service/test_release_commands.py",
    ("signer-compromised", "penstock release yank"): "tests/service/test_release_commands.py",
    ("agent-stolen", "penstock sessions"): "tests/lab/test_standing.py",
    ("agent-stolen", "penstock gateway return"): "tests/lab/readme_commands.py",
    ("drain-past-deadline", "penstock drain end"): "tests/lab/readme_commands.py",
    ("held-decide", "penstock promote"): "tests/lab/readme_commands.py",
    ("ledger-lost", "penstock release add"): "tests/service/test_release_commands.py",
    ("ledger-lost", "penstock release yank"): "tests/service/test_release_commands.py",
    ("ledger-lost", "penstock window freeze add"): "tests/service/test_window_commands.py",
    ("ledger-restore", "penstock gateway revoke"): "tests/relay/test_enrolment.py",
    ("ledger-restore", "penstock release yank"): "tests/service/test_release_commands.py",
    ("ledger-restore", "penstock token revoke"): "tests/service/test_cli.py",
    ("ledger-restore", "penstock chat unlink"): "tests/service/test_chat_links.py",
    ("ledger-restore", "penstock window freeze add"): "tests/service/test_window_commands.py",
    ("ledger-restore", "penstock gateway quarantine"): "tests/lab/readme_commands.py",
    ("removal", "penstock gateway revoke"): "tests/relay/test_enrolment.py",
    ("signature-refused", "penstock status"): "tests/service/test_every_state.py",
    ("signature-refused", "penstock plan"): "tests/service/test_approvals.py",
    ("signature-refused", "penstock approve"): "tests/service/test_approvals.py",
    ("signer-compromised", "penstock check"): "tests/lab/readme_commands.py",
    ("signer-compromised", "penstock resume"): "tests/lab/readme_commands.py",
    ("penstock-upgrade", "penstock check /"): "tests/lab/readme_commands.py",
    ("worker-or-temporal-down", "penstock worker"): "tests/service/test_bad_inputs.py",
}
"""The commands of a page that a lab cannot show, or that would take from it what other pages need."""

OF_HOSTS = {
    "removal": "tests/drivers/test_removal.py",
    "user-locked-out": "tests/drivers/test_user_locked_out.py",
}
"""Pages whose lines for a host are typed there by a test of their own, with people on the gateway."""

WITHOUT_FAULT = {
    "control-host-lost": "no lab would be left, and its commands are for the new host",
    "removal": "nothing is wrong, and no lab would be left; tests/drivers/test_removal.py does it",
    "user-locked-out": "nothing is wrong; tests/drivers/test_user_locked_out.py has the user to keep out",
    "node-event": "this lab has hosts; tests/cluster/test_nodes_lab.py has nodes to which that happens",
}
"""Pages that are typed in a lab where all is well, each with why."""

SILENT = ("nft flush map", "cp ", "sed -i", "mkdir ")
"""Commands that print nothing when they did what they are for."""


def typed_elsewhere(page: str, command: str, *, on_host: bool) -> str | None:
    """Return the test that types the command, None when it is typed in a lab."""
    if on_host and page in OF_HOSTS and not command.startswith("penstock "):
        return OF_HOSTS[page]
    found = (
        test for (where, start), test in ELSEWHERE.items() if where == page and command.startswith(start)
    )
    return next(found, None)

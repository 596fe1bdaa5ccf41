"""Every command: where it is, and what the list of commands says of it.

A test compares the sentences with the commands' own help.
"""

from __future__ import annotations

from pacs.cli.lazy import Group, Lazy

COMMANDS: dict[str, Lazy | Group] = {
    "serve": Lazy(
        "pacs.cli.serving",
        "serve_command",
        "Start the archive and serve until SIGTERM or Ctrl-C.",
    ),
    "import": Lazy(
        "pacs.cli.importing",
        "import_command",
        "Store DICOM files, folders of them, zip archives, and what a DICOMDIR names.",
    ),
    "find": Lazy("pacs.cli.query", "find_command", "Send a C-FIND and list the matches."),
    "move": Lazy(
        "pacs.cli.query",
        "move_command",
        "Send a C-MOVE: have the remote AE send instances to a third one that it knows.",
    ),
    "echo": Lazy(
        "pacs.cli.echo",
        "echo_command",
        "Send a C-ECHO: is the remote AE there, and does it let us in?",
    ),
    "health": Lazy(
        "pacs.cli.health",
        "health_command",
        "Ask the server of this machine, or container, whether it can find and store.",
    ),
    "ae": Group(
        "Register remote AEs: who may call, from where, and where C-MOVE may send.",
        {
            "add": Lazy(
                "pacs.cli.registering",
                "ae_add",
                "Register AE TITLE at HOST:PORT, or change what is registered.",
            ),
            "set": Lazy(
                "pacs.cli.registering",
                "ae_set",
                "Change what is named of the registered AE TITLE, and nothing else.",
            ),
            "remove": Lazy("pacs.cli.registering", "ae_remove", "Forget AE TITLE."),
            "list": Lazy(
                "pacs.cli.remote",
                "ae_list",
                "List the registered AEs and those of the remote_aes setting.",
            ),
            "echo": Lazy("pacs.cli.remote", "ae_echo", "Send a C-ECHO to the registered AE TITLE."),
        },
    ),
    "retrieve": Group(
        "Look at what was retrieved: every C-MOVE and C-GET, and each of its sub-operations.",
        {
            "list": Lazy("pacs.cli.retrieves", "retrieve_list", "List retrieves, newest first."),
            "show": Lazy(
                "pacs.cli.retrieves",
                "retrieve_show",
                "Show retrieve NUMBER: who asked for what, and how each sub-operation ended.",
            ),
            "retry": Lazy(
                "pacs.cli.retrieves",
                "retrieve_retry",
                "Send again what failed or was not tried in C-MOVE NUMBER, to the same destination.",
            ),
        },
    ),
    "commitment": Group(
        "Look at storage commitment: who asked for which instances, and what was reported.",
        {
            "list": Lazy(
                "pacs.cli.commitments",
                "commitment_list",
                "List storage commitment transactions, newest first.",
            ),
            "show": Lazy(
                "pacs.cli.commitments",
                "commitment_show",
                "Show transaction NUMBER: who asked, and whether each instance is committed.",
            ),
        },
    ),
    "explain": Lazy(
        "pacs.cli.explaining", "explain_command", "Say what went wrong, why, and what to change."
    ),
    "check": Lazy(
        "pacs.cli.checking",
        "check_command",
        "Compare the index with the storage: missing, unindexed and damaged files.",
    ),
    "reindex": Lazy(
        "pacs.cli.checking", "reindex_command", "Write the index again from the stored files."
    ),
    "db": Group(
        "Look after the index: its schema, and which storage it belongs to.",
        {
            "upgrade": Lazy(
                "pacs.cli.administration",
                "db_upgrade",
                'Migrate the index to the newest schema; "pacs serve" does the same at start.',
            ),
            "current": Lazy(
                "pacs.cli.administration",
                "db_current",
                "Show the schema revision of the index, and the newest one; exit code 1 if they differ.",
            ),
            "accept-storage": Lazy(
                "pacs.cli.administration",
                "db_accept_storage",
                "Let the index belong to the storage that the settings name.",
            ),
        },
    ),
    "stats": Lazy(
        "pacs.cli.administration",
        "stats_command",
        "Count patients, studies, series, instances and the bytes of their data sets.",
    ),
    "patient": Group(
        "Look after the identity of patients.",
        {
            "conflicts": Lazy(
                "pacs.cli.patients",
                "conflicts_command",
                "List patients whose studies disagree in name, birth date or sex.",
            ),
        },
    ),
    "conformance": Group(
        "Test other AEs against the Standard, clause by clause.",
        {
            "scp": Lazy("pacs.cli.conformance", "scp_command", "Test a remote SCP."),
            "scu": Lazy(
                "pacs.cli.conformance_scu",
                "scu_command",
                "Be an SCP that does what a scenario says, and judge the SCU that calls.",
            ),
            "control": Lazy(
                "pacs.cli.conformance_scu",
                "control_command",
                "Change a running `pacs conformance scu --control` from elsewhere.",
            ),
            "statement": Lazy(
                "pacs.cli.statement",
                "statement_command",
                "Write the DICOM Conformance Statement from the settings in force and the tables in the code.",
            ),
        },
    ),
    "config": Group(
        "Look at the settings.",
        {
            "show": Lazy(
                "pacs.cli.settings",
                "config_show",
                "Show every setting, its value and where it comes from; secrets are masked.",
            ),
        },
    ),
}

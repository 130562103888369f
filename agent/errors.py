"""What can end a command, and with which exit code.

Eni53Error
├─ UsageError        exit 2   the caller's words: a flag, a key, a value, a file
├─ NeedError         exit 2   what this node lacks: root, a capability, BCC, an interface, a port
└─ SourceError       never ends anything: a runtime or metadata service did not answer well

Every message is one line: what is wrong, why, and what to do about it.
"""


class Eni53Error(Exception):
    """Ends the command with its one line on stderr and `exit_code`."""

    exit_code = 2


class UsageError(Eni53Error):
    """The command line, the environment or the configuration file is wrong."""


class NeedError(Eni53Error):
    """This node cannot run what was asked, and the message says what would mend it."""


class SourceError(Eni53Error):
    """An outside source (Docker, IMDS, …) failed; costs that source, never a count."""

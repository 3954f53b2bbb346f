"""The commands, one module each, and the table of their names.

A module holds these constants, and ``run(ctx, options, args) -> exit status``:

``OPTIONS``
    rows ``(name, short, type, metavar, help)``; short is one letter or ``""``; type is
    one of ``bool str list int uint`` (``list`` may be repeated, ``int`` and ``uint``
    are checked here, the rest is for the daemon to judge).
``ARGUMENTS``
    rows ``(name, count, metavar)``; count is ``"1"``, ``"+"`` or ``"*"``.
``MISCOUNT``
    the text and the exit status for a wrong number of arguments.
``EXAMPLES``
    lines for the help.
``ALIASES`` (may be left out)
    other names of options: ``{"network": "net"}``.
``INTERSPERSED = False`` (may be left out)
    the first argument ends the flags, because what follows is for another program.
``ENGINE_EXIT = 125`` (may be left out)
    exit status of an error that has none of its own; 1 otherwise.
"""

from __future__ import annotations

__all__ = ["COMMANDS", "COMMON", "GROUPS", "module_name"]

COMMANDS = {
    "attach": "Join the input and output of a running container",
    "create": "Create a container without starting it",
    "emulator install": "Have the kernel run programs of other architectures",
    "emulator ls": "List architectures and what runs their programs here",
    "emulator rm": "Have the kernel run an architecture's programs no more",
    "events": "Show what happens in the engine as it happens",
    "exec": "Run a command in a running container",
    "export": "Write a container's root file system as a tar archive",
    "images": "List images",
    "import": "Make an image of a root file system tarball",
    "info": "Show facts about the engine and its host",
    "inspect": "Show everything known about containers or images, as JSON",
    "kill": "Send a signal to containers",
    "load": "Load images from an archive",
    "login": "Log in to a registry",
    "logout": "Log out of a registry",
    "logs": "Show the logged output of a container",
    "pause": "Freeze the processes of containers",
    "ps": "List containers",
    "pull": "Fetch an image from a registry",
    "rename": "Give a container another name",
    "restart": "Stop containers and start them again",
    "rm": "Remove containers",
    "rmi": "Remove images",
    "run": "Create a container and start it",
    "save": "Write images to an archive",
    "search": "Search a registry for images",
    "start": "Start containers",
    "stop": "Stop running containers",
    "system check": "Verify everything that is stored, and repair it",
    "system df": "Show what takes space on the disk",
    "system events": "Show what happens in the engine as it happens",
    "system info": "Show facts about the engine and its host",
    "system prune": "Remove what nobody uses",
    "tag": "Give an image another name",
    "top": "Show the processes of a container",
    "unpause": "Thaw the processes of paused containers",
    "version": "Show the versions of client and daemon",
    "wait": "Wait until containers have ended and print their exit codes",
}
"""Every command and the line that describes it; ``GROUP NAME`` for one of a group."""

GROUPS = {
    "emulator": "Programs of other architectures",
    "system": "Disk space, checks and facts of the engine",
}
"""Every group of commands and the line that describes it."""

COMMON = (
    ("host", "H", "str", "HOST", "the daemon's socket: unix:///PATH or tcp://ADDRESS:PORT"),
    ("debug", "D", "bool", "", "show a traceback when the client itself fails"),
    ("tls", "", "bool", "", "use TLS on a tcp:// host"),
    ("tlsverify", "", "bool", "", "use TLS and check the daemon's certificate"),
    ("tlscacert", "", "str", "PATH", "certificates of the authorities to trust"),
    ("tlscert", "", "str", "PATH", "the client's certificate"),
    ("tlskey", "", "str", "PATH", "the key of the client's certificate"),
)
"""Options that every command has."""


def module_name(command: str) -> str:
    """Name of the module of a command (``import`` is a word of the language)."""
    name = "import_" if command == "import" else command.replace(" ", "_")
    return "isula_cli.commands." + name

"""The request that ``create`` and ``run`` send, and pulling the image when it is missing.

The client's own work: variables and labels are read from its environment and files,
a seccomp profile is read from its file, ``--pull`` decides whether to pull first.
Everything else is sent as it was typed and judged by the daemon.
"""

from __future__ import annotations

__all__ = ["check_cidfile", "made", "request", "with_image", "write_cidfile"]

import posix

from isula_cli.parser import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from isula_cli.context import Context

_OWN = (
    "cidfile",
    "debug",
    "detach",
    "detach-keys",
    "env-file",
    "host",
    "label-file",
    "name",
    "platform",
    "pull",
    "quiet",
    "runtime",
    "sig-proxy",
    "tls",
    "tlscacert",
    "tlscert",
    "tlskey",
    "tlsverify",
)
"""Options that are not part of the ``options`` of a request."""
_CIDFILE_EXISTS = "Container ID file found, make sure its container is not running or delete "


def request(options: dict[str, Any], args: list[str]) -> dict[str, Any]:
    """Parameters of ``container.create``; raises UsageError for what is wrong here."""
    sent = {name.replace("-", "_"): value for name, value in options.items() if name not in _OWN}
    for kind in ("env", "label"):
        files = options.get(kind + "-file")
        if files or kind in sent:
            from isula_cli import keyvalues

            sent[kind] = keyvalues.collect(kind, files or [], sent.get(kind, []))
    if "security_opt" in sent:
        from isula_cli.keyvalues import read_file

        sent["security_opt"] = [_security_option(text, read_file) for text in sent["security_opt"]]
    params = {"image": args[0], "command": args[1:], "options": sent}
    for name in ("name", "runtime", "platform"):
        if options.get(name):
            params[name] = options[name]
    return params


def _security_option(text: str, read_file: Callable[[str, str], str]) -> str:
    key, equals, value = text.partition("=")
    if key != "seccomp" or not equals or value in ("", "unconfined"):
        return text
    return "seccomp=" + read_file("seccomp profile", value)


def with_image(
    ctx: Context,
    options: dict[str, Any],
    image: str,
    ask: Callable[[], dict[str, Any]],
) -> dict[str, Any]:
    """Result of ``ask``, pulling the image before it or when it is missing (``--pull``)."""
    when = options.get("pull", "missing")
    if when not in ("always", "missing", "never"):
        raise UsageError('invalid --pull option, only "always"|"missing"|"never" is allowed')
    if when == "always":
        _pull(ctx, options, image)
    if when != "missing":
        return ask()
    try:
        return ask()
    except Exception as error:
        if getattr(error, "code", "") != "not_found" or not str(error).startswith("No such image"):
            raise
    if not options.get("quiet"):
        platform = options.get("platform", "")
        wanted = f" for {platform}" if platform else ""
        ctx.err(f"Unable to find image '{image}' locally{wanted}\n")
    _pull(ctx, options, image)
    return ask()


def _pull(ctx: Context, options: dict[str, Any], image: str) -> None:
    from isula_cli.pulling import pull

    quiet = bool(options.get("quiet"))
    pull(ctx, image, options.get("platform", ""), quiet=quiet, bars_on=2)


def made(ctx: Context, options: dict[str, Any], result: dict[str, Any]) -> None:
    """Show the warnings about a new container and write its id file."""
    for text in result.get("warnings") or []:
        ctx.err(f"WARNING: {text}\n")
    if options.get("cidfile"):
        write_cidfile(options["cidfile"], result["id"])


def check_cidfile(options: dict[str, Any]) -> None:
    """Refuse an id file that exists, before there is a container."""
    path = options.get("cidfile")
    if path:
        try:
            posix.lstat(path)
        except OSError:
            return
        raise UsageError(_CIDFILE_EXISTS + path)


def write_cidfile(path: str, container_id: str) -> None:
    """Write the id to a file that must not exist yet."""
    try:
        with open(path, "x", encoding="ascii") as file:
            file.write(container_id)
    except FileExistsError:
        raise UsageError(_CIDFILE_EXISTS + path) from None

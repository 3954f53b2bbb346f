"""The small languages of option values: sizes, CPUs, signals, limits."""

from __future__ import annotations

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isula_edge import errors
from isula_edge.oci import values

SIZES = [
    ("0", 0),
    ("1", 1),
    ("512b", 512),
    ("10B", 10),
    ("1k", 1 << 10),
    ("1K", 1 << 10),
    ("64m", 64 << 20),
    ("64MB", 64 << 20),
    ("64mib", 64 << 20),
    ("64 MiB", 64 << 20),
    ("2g", 2 << 30),
    ("1t", 1 << 40),
    ("1p", 1 << 50),
    ("1.5g", 3 << 29),
    ("0.5k", 512),
    ("1.5", 1),
    ("0.001m", 1048),
    ("  7m ", 7 << 20),
    ("8191p", 8191 << 50),
    ("9223372036854775807", 2**63 - 1),
]


@pytest.mark.parametrize(("text", "size"), SIZES)
def test_sizes(text: str, size: int) -> None:
    assert values.parse_size("memory", text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "m",
        "-1",
        "-5m",
        "+5m",
        "1e3",
        "5x",
        "5mm",
        "5 m b",
        "1.",
        ".5g",
        "0x10",
        "1,5g",
        "5m\n6",
    ],
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(errors.InvalidArgument) as found:
        values.parse_size("memory", text)
    assert str(found.value) == f'Invalid value "{text}" for flag --memory: Invalid argument'
    assert found.value.ref == "memory"


@pytest.mark.parametrize("text", ["9223372036854775808", "8192p", "99999999999999999999g"])
def test_a_size_beyond_64_bits_is_refused(text: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="Numerical result out of range"):
        values.parse_size("memory", text)


def test_minus_one_is_unlimited_only_where_that_can_be() -> None:
    assert values.parse_size("memory-swap", "-1", unlimited=True) == -1
    assert values.parse_size("memory-swap", " -1 ", unlimited=True) == -1
    with pytest.raises(errors.InvalidArgument):
        values.parse_size("memory-swap", "-2", unlimited=True)


@given(st.integers(0, 2**63 - 1))
def test_a_number_is_its_own_size(number: int) -> None:
    assert values.parse_size("memory", str(number)) == number


@given(st.integers(0, 999), st.integers(0, 999), st.sampled_from("kmgt"))
def test_fractions_are_exact(whole: int, part: int, unit: str) -> None:
    shift = {"k": 10, "m": 20, "g": 30, "t": 40}[unit]
    expected = ((whole * 1000 + part) << shift) // 1000
    assert values.parse_size("memory", f"{whole}.{part:03}{unit}") == expected


@pytest.mark.parametrize(
    ("text", "number"), [("0", 0), ("-5", -5), ("+7", 7), (" 10 ", 10), ("007", 7)]
)
def test_integers(text: str, number: int) -> None:
    assert values.parse_int("cpu-shares", text) == number


@pytest.mark.parametrize("text", ["", "-", "1.0", "1k", "0x1", "1_0", "ten", "1 2"])
def test_what_is_no_integer_is_refused(text: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="for flag --cpu-shares: Invalid argument"):
        values.parse_int("cpu-shares", text)


def test_integers_have_their_bounds() -> None:
    assert values.parse_int("x", "-1", -1, 5) == -1
    assert values.parse_int("x", "5", -1, 5) == 5
    for text in ("-2", "6", str(2**63), str(-(2**63) - 1)):
        with pytest.raises(errors.InvalidArgument, match="Numerical result out of range"):
            values.parse_int("x", text, -1, 5)
    with pytest.raises(errors.InvalidArgument, match="out of range"):
        values.parse_int("x", str(2**63))


@pytest.mark.parametrize(
    ("text", "nano"),
    [
        ("0", 0),
        ("1", 10**9),
        ("1.5", 15 * 10**8),
        ("0.01", 10**7),
        (".5", 5 * 10**8),
        ("4", 4 * 10**9),
        ("4.", 4 * 10**9),
        ("0.333333333", 333333333),
        ("0.3333333339", 333333333),
    ],
)
def test_cpus(text: str, nano: int) -> None:
    assert values.parse_cpus(text, 4) == nano


@pytest.mark.parametrize("text", ["0.009", "4.000000001", "5", "100"])
def test_more_cpus_than_there_are(text: str) -> None:
    with pytest.raises(errors.InvalidArgument) as found:
        values.parse_cpus(text, 4)
    assert str(found.value) == (
        "Range of CPUs is from 0.01 to 4.00, as there are only 4 CPUs available"
    )


@pytest.mark.parametrize("text", ["", ".", "-1", "1e2", "one", "1,5", "1.5.0", "0x1"])
def test_what_is_no_number_of_cpus(text: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="for flag --cpus: Invalid argument"):
        values.parse_cpus(text, 4)


@pytest.mark.parametrize("text", ["0", "3", "0-3", "0,2", "1-2,0", "0-1,3-3"])
def test_cpusets(text: str) -> None:
    assert values.parse_cpuset("cpuset-cpus", text, "0-3") == text


@pytest.mark.parametrize("text", ["4", "0-4", "0,7"])
def test_a_cpuset_of_what_is_not_there(text: str) -> None:
    with pytest.raises(errors.InvalidArgument) as found:
        values.parse_cpuset("cpuset-cpus", text, "0-3")
    assert str(found.value) == (
        f"Requested CPUs are not available - requested {text}, available: 0-3."
    )


def test_memory_nodes_are_called_so() -> None:
    with pytest.raises(errors.InvalidArgument, match="Requested memory nodes are not available"):
        values.parse_cpuset("cpuset-mems", "1", "0")


def test_without_a_list_of_what_is_there_nothing_is_missing() -> None:
    assert values.parse_cpuset("cpuset-cpus", "0-99", "") == "0-99"


@pytest.mark.parametrize("text", ["", "-", "a", "1-", "-1", "3-1", "0,,1", "0-1-2", "0-99999999"])
def test_what_is_no_cpuset(text: str) -> None:
    with pytest.raises(errors.InvalidArgument) as found:
        values.parse_cpuset("cpuset-cpus", text, "0-3")
    assert str(found.value) == f"Checking cpuset.cpus got invalid format: {text}."


@pytest.mark.parametrize("text", ["+1", "0_1", " 1", "0\n", "٣", "9" * 5000, "0-٣"])
def test_a_cpuset_that_only_python_reads_is_refused(text: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        values.parse_cpuset("cpuset-cpus", text, "0-3")


@pytest.mark.parametrize("word", [True, "1", "t", "T", "true", "TRUE", "True"])
def test_true(word: object) -> None:
    assert values.parse_bool("tty", word) is True


@pytest.mark.parametrize("word", [False, "0", "f", "F", "false", "FALSE", "False", ""])
def test_false(word: object) -> None:
    assert values.parse_bool("tty", word) is False


@pytest.mark.parametrize("word", ["yes", "on", "2", "tRUE", None])
def test_what_is_no_boolean(word: object) -> None:
    with pytest.raises(errors.InvalidArgument) as found:
        values.parse_bool("tty", word)
    assert str(found.value) == f'Invalid boolean value "{word}" for flag --tty'


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("9", 9),
        ("KILL", 9),
        ("SIGKILL", 9),
        ("sigterm", 15),
        (" term ", 15),
        ("1", 1),
        ("64", 64),
        ("USR1", signal.SIGUSR1),
        ("RTMIN", signal.SIGRTMIN),
        ("SIGRTMIN+3", signal.SIGRTMIN + 3),
        ("RTMAX", signal.SIGRTMAX),
        ("RTMAX-14", signal.SIGRTMAX - 14),
    ],
)
def test_signals(text: str, number: int) -> None:
    assert values.parse_signal(text) == number


@pytest.mark.parametrize(
    "text",
    ["", "0", "-1", "65", "999", "NONE", "SIG", "TERM+1", "RTMAX+1", "RTMIN+40", "SIG_DFL",
     "KILL KILL"],
)  # fmt: skip
def test_what_is_no_signal(text: str) -> None:
    with pytest.raises(errors.InvalidArgument) as found:
        values.parse_signal(text)
    assert str(found.value) == f"Invalid signal: {text}"


@pytest.mark.parametrize("text", ["²", "٩", "RTMIN+²", "RTMIN+٣", "9" * 5000])
def test_digits_of_other_scripts_are_no_signal(text: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        values.parse_signal(text)


@pytest.mark.parametrize("digits", ["٣", "9" * 5000], ids=["arabic", "many"])
def test_numbers_that_only_python_reads_are_refused(digits: str) -> None:
    for refuse in (
        lambda: values.parse_size("memory", digits),
        lambda: values.parse_int("cpu-shares", digits),
        lambda: values.parse_cpus(digits, 4),
        lambda: values.parse_ulimit(f"nofile={digits}"),
    ):
        with pytest.raises(errors.InvalidArgument):
            refuse()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nofile=1024", ("nofile", 1024, 1024)),
        ("nofile=1024:2048", ("nofile", 1024, 2048)),
        ("core=0:0", ("core", 0, 0)),
        ("core=-1", ("core", -1, -1)),
        ("memlock=unlimited", ("memlock", -1, -1)),
        ("stack=5:unlimited", ("stack", 5, -1)),
        ("nproc=7:7", ("nproc", 7, 7)),
    ],
)
def test_ulimits(text: str, expected: tuple[str, int, int]) -> None:
    assert values.parse_ulimit(text) == expected


@pytest.mark.parametrize("name", values.RLIMITS)
def test_every_kind_of_limit(name: str) -> None:
    assert values.parse_ulimit(f"{name}=1") == (name, 1, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("=1", "delimiter '=' can't be the first or the last character"),
        ("nofile=", "delimiter '=' can't be the first or the last character"),
        ("", "Invalid ulimit argument"),
        ("nofile", "Invalid ulimit argument"),
        ("nofile=1=2", "Invalid ulimit argument"),
        ("nofile=:1", "delimiter ':' can't be the first or the last character"),
        ("nofile=1:", "delimiter ':' can't be the first or the last character"),
        ("nofile=1:2:3", "Too many limit value arguments"),
        ("files=1", "Invalid ulimit type"),
        ("NOFILE=1", "Invalid ulimit type"),
        ("nofile=2:1", "Ulimit soft limit must be less than or equal to hard limit"),
        ("nofile=-1:5", "Ulimit soft limit must be less than or equal to hard limit"),
    ],
)
def test_what_is_no_ulimit(text: str, message: str) -> None:
    with pytest.raises(errors.InvalidArgument) as found:
        values.parse_ulimit(text)
    assert str(found.value) == f'Invalid ulimit "{text}": {message}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nofile=x:5", 'Invalid ulimit soft value: "x"'),
        ("nofile=5:x", 'Invalid ulimit hard value: "x"'),
        ("nofile=x", 'Invalid ulimit hard value: "x"'),
        ("nofile=-2:5", 'Invalid ulimit soft value: "-2"'),
        ("nofile=1.5", 'Invalid ulimit hard value: "1.5"'),
    ],
)
def test_what_is_no_number_of_a_ulimit(text: str, message: str) -> None:
    with pytest.raises(errors.InvalidArgument) as found:
        values.parse_ulimit(text)
    assert str(found.value) == message


def test_labels() -> None:
    items = ["a=1", "b", "c=", "d=e=f", "a=2"]
    assert values.key_values("label", items) == {"a": "2", "b": "", "c": "", "d": "e=f"}


def test_a_label_needs_a_name() -> None:
    with pytest.raises(errors.InvalidArgument) as found:
        values.key_values("label", ["a=1", "=x"])
    assert str(found.value) == "Invalid label '=x': empty name"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("SIGRTMIN", 34), ("SIGRTMINPLUS1", 35), ("SIGRTMINPLUS15", 49), ("SIGRTMAXMINUS14", 50),
        ("SIGRTMAXMINUS1", 63), ("SIGRTMAX", 64), ("SIGCLD", 17), ("SIGIOT", 6), ("SIGPOLL", 29),
        ("SIGSTKFLT", 16),
    ],
)  # fmt: skip
def test_signals_of_the_cri(text: str, number: int) -> None:
    assert values.parse_signal(text) == number


@pytest.mark.parametrize("text", ["SIGRTMINPLUS", "SIGTERMPLUS1", "RTMAXPLUS1"])
def test_what_is_no_signal_of_the_cri(text: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        values.parse_signal(text)

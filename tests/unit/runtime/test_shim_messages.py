"""Messages of shims: the same bytes as protobuf's own package makes, and what is no message."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import typing
from dataclasses import fields
from typing import Annotated, Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given, settings
from hypothesis import strategies as st

from isula_edge.runtime import shim_messages as m
from isula_edge.runtime.protobuf import Message, field, number

many = settings(max_examples=100, deadline=None)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NUMBER = st.integers(0, 2**32 - 1)
TIME = st.none() | st.integers(0, 2**62)
_OPTIONAL = 1
_REPEATED = 3
# the field numbers of the specification, written down a second time: name, number, type
PROTOS = {
    "Timestamp": "seconds 1 int64, nanos 2 int32",
    "AnyValue": "type_url 1 string, value 2 bytes",
    "Target": "id 1 string, exec_id 2 string",
    "StateResponse": "id 1 string, bundle 2 string, pid 3 uint32, status 4 uint32, "
    "stdin 5 string, stdout 6 string, stderr 7 string, terminal 8 bool, exit_status 9 uint32, "
    "exited_ns 10 Timestamp, exec_id 11 string",
    "Mount": "type 1 string, source 2 string, target 3 string, options 4 string*",
    "CreateRequest": "id 1 string, bundle 2 string, rootfs 3 Mount*, terminal 4 bool, "
    "stdin 5 string, stdout 6 string, stderr 7 string, checkpoint 8 string, "
    "parent_checkpoint 9 string, options 10 AnyValue",
    "PidResponse": "pid 1 uint32",
    "DeleteResponse": "pid 1 uint32, exit_status 2 uint32, exited_ns 3 Timestamp",
    "ProcessInfo": "pid 1 uint32, info 2 AnyValue",
    "PidsResponse": "processes 1 ProcessInfo*",
    "KillRequest": "id 1 string, exec_id 2 string, signal 3 uint32, all 4 bool",
    "ExecRequest": "id 1 string, exec_id 2 string, terminal 3 bool, stdin 4 string, "
    "stdout 5 string, stderr 6 string, spec 7 AnyValue",
    "ResizeRequest": "id 1 string, exec_id 2 string, width 3 uint32, height 4 uint32",
    "CloseIORequest": "id 1 string, exec_id 2 string, stdin 3 bool",
    "Pair": "key 1 string, value 2 string",
    "UpdateRequest": "id 1 string, resources 2 AnyValue, annotations 3 Pair*",
    "WaitResponse": "exit_status 1 uint32, exited_ns 2 Timestamp",
    "StatsResponse": "stats 1 AnyValue",
    "ConnectResponse": "shim_pid 1 uint32, task_pid 2 uint32, version 3 string",
    "ShutdownRequest": "id 1 string, now 2 bool",
    "BootstrapResult": "version 1 int32, address 2 string, protocol 3 string",
    "RuncOptions": "no_pivot_root 1 bool, no_new_keyring 2 bool, shim_cgroup 3 string, "
    "io_uid 4 uint32, io_gid 5 uint32, binary_name 6 string, root 7 string, "
    "criu_path 8 string, systemd_cgroup 9 bool",
    "KataOptions": "type_url 1 string, config_path 2 string",
    "Envelope": "timestamp_ns 1 Timestamp, namespace 2 string, topic 3 string, event 4 AnyValue",
    "ForwardRequest": "envelope 1 Envelope",
    "TaskExit": "container_id 1 string, id 2 string, pid 3 uint32, exit_status 4 uint32, "
    "exited_ns 5 Timestamp",
    "TaskOOM": "container_id 1 string",
    "TaskProcess": "container_id 1 string",
    "NetworkMetrics": "name 1 string, rx_bytes 2 uint64, rx_packets 3 uint64, "
    "rx_errors 4 uint64, rx_dropped 5 uint64, tx_bytes 6 uint64, tx_packets 7 uint64, "
    "tx_errors 8 uint64, tx_dropped 9 uint64",
    # statistics are only read: these are the shims' messages, in their own names
    "Pids": "current 1 uint64, limit 2 uint64",
    "Usage1": "total 1 uint64, kernel 2 uint64, user 3 uint64, per_cpu 4 uint64*",
    "Throttling1": "periods 1 uint64, throttled_periods 2 uint64, throttled_time 3 uint64",
    "Cpu1": "usage 1 Usage1, throttling 2 Throttling1",
    "Entry1": "limit 1 uint64, usage 2 uint64, max 3 uint64, failcnt 4 uint64",
    "Memory1": "cache 1 uint64, rss 2 uint64, total_inactive_file 30 uint64, usage 33 Entry1, "
    "swap 34 Entry1, kernel 35 Entry1, kernel_tcp 36 Entry1",
    "Blkio1": "op 1 string, device 2 string, major 3 uint64, minor 4 uint64, value 5 uint64",
    "Blkios1": "io_service_bytes_recursive 1 Blkio1*, io_serviced_recursive 2 Blkio1*",
    "Metrics1": "pids 2 Pids, cpu 3 Cpu1, memory 4 Memory1, blkio 5 Blkios1, "
    "network 7 NetworkMetrics*",
    "Cpu2": "usage_usec 1 uint64, user_usec 2 uint64, system_usec 3 uint64, nr_periods 4 uint64, "
    "nr_throttled 5 uint64, throttled_usec 6 uint64",
    "Memory2": "anon 1 uint64, file 2 uint64, inactive_file 13 uint64, usage 32 uint64, "
    "usage_limit 33 uint64, swap_usage 34 uint64, swap_limit 35 uint64",
    "Io2": "major 1 uint64, minor 2 uint64, rbytes 3 uint64, wbytes 4 uint64, rios 5 uint64, "
    "wios 6 uint64",
    "Ios2": "usage 1 Io2*",
    "Metrics2": "pids 1 Pids, cpu 2 Cpu2, memory 4 Memory2, io 6 Ios2",
}
_KINDS = {"int64": 3, "uint64": 4, "int32": 5, "bool": 8, "string": 9, "bytes": 12, "uint32": 13}


def _described() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="shim.proto", syntax="proto3")
    for name, text in PROTOS.items():
        message = file.message_type.add(name=name)
        for part in text.split(", "):
            key, place, kind = part.split()
            repeated = kind.endswith("*")
            kind = kind.rstrip("*")
            made = message.field.add(name=key, number=int(place))
            made.label = _REPEATED if repeated else _OPTIONAL
            made.type = _KINDS.get(kind, 11)
            if kind not in _KINDS:
                made.type_name = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(name)) for name in PROTOS
    }


THEIRS = _described()
OURS: list[type[Any]] = [
    kind
    for name, kind in vars(m).items()
    if name in m.__all__ and isinstance(kind, type) and issubclass(kind, Message)
]


def _strategy(kind: type[Any]) -> st.SearchStrategy[Any]:
    """Any values of one of our messages."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return st.builds(kind, **{part.name: _value(hints[part.name]) for part in fields(kind)})


def _value(hint: Any) -> st.SearchStrategy[Any]:
    kind = typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint
    if typing.get_origin(kind) is tuple:
        return st.lists(_value(typing.get_args(kind)[0]), max_size=3).map(tuple)
    if kind == int | None:
        return TIME
    if typing.get_args(kind):
        return st.none() | _strategy(typing.get_args(kind)[0])
    known: dict[Any, st.SearchStrategy[Any]] = {
        str: TEXT,
        bytes: st.binary(max_size=20),
        bool: st.booleans(),
        int: st.integers(0, 2**31 - 1),
    }
    return known[kind] if kind in known else _strategy(kind)


def _fill(theirs: Any, ours: Message) -> None:
    for part in fields(ours):  # type: ignore[arg-type]  # every message is a dataclass
        value = getattr(ours, part.name)
        target = getattr(theirs, part.name)
        if value is None:
            continue
        if part.name.endswith("_ns"):
            target.SetInParent()
            target.seconds, target.nanos = divmod(value, 10**9)
        elif isinstance(value, Message):
            target.SetInParent()
            _fill(target, value)
        elif isinstance(value, tuple):
            for one in value:
                if isinstance(one, Message):
                    _fill(target.add(), one)
                else:
                    target.append(one)
        else:
            setattr(theirs, part.name, value)


def test_every_message_is_compared() -> None:
    assert {kind.__name__ for kind in OURS} <= set(PROTOS)
    assert len(OURS) > 25


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: str(kind.__name__))
def test_a_message_is_what_protobuf_makes_of_it(kind: type[Any]) -> None:
    @given(_strategy(kind))
    @settings(max_examples=25, deadline=None)
    def same(ours: Any) -> None:
        theirs = THEIRS[kind.__name__]()
        _fill(theirs, ours)
        data = theirs.SerializeToString(deterministic=True)
        assert ours.encode() == data
        assert kind.decode(data) == ours

    same()


@given(st.sampled_from(OURS), st.binary(max_size=60))
@many
def test_any_bytes_are_a_message_or_a_value_error(kind: type[Any], data: bytes) -> None:
    with contextlib.suppress(ValueError):
        kind.decode(data)


def test_a_message_that_is_cut_off_anywhere() -> None:
    whole = m.CreateRequest(
        "c1", "/b", (m.Mount("bind", "/s", "", ("ro", "")),), True, "i", "o", "e",
        options=m.RuncOptions(root="/r").pack(),
    )  # fmt: skip
    data = whole.encode()
    found = []
    for size in range(len(data)):
        try:
            found.append(m.CreateRequest.decode(data[:size]))
        except ValueError:
            continue
    # only the ends of fields are ends of messages
    assert whole not in found
    assert len(found) == 8
    assert m.CreateRequest.decode(data) == whole


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (number(1, 5), "StateResponse.id: is a number"),
        (field(3, b"abc"), "StateResponse.pid: is no number"),
        (field(1, b"\xff"), "StateResponse.id: .*utf-8"),
        (number(10, 7), "StateResponse.exited_ns: is a number"),
        (field(10, b"\x08"), "StateResponse.exited_ns: a number does not end"),
        (b"\x0a\x7fabc", "ends behind its message"),
    ],
)
def test_what_is_no_state(data: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        m.StateResponse.decode(data)


def test_fields_that_are_not_known_are_skipped() -> None:
    extra = b"\xa0\x06\x07" + b"\xa9\x06" + b"8" * 8 + b"\xad\x06" + b"4" * 4 + b"\xb2\x06\x02hi"
    assert m.WaitResponse.decode(m.WaitResponse(3, 5).encode() + extra) == m.WaitResponse(3, 5)


def test_times_before_1970_are_none_at_all() -> None:
    year_1 = THEIRS["Timestamp"](seconds=-62135596800).SerializeToString()
    assert m.WaitResponse.decode(number(1, 4) + field(2, year_1)) == m.WaitResponse(4, None)
    assert m.WaitResponse.decode(field(2, b"", empty=True)).exited_ns == 0


def test_a_document_of_the_runtime_spec() -> None:
    made = m.document("Process", {"args": ["sh", "ä"]})
    assert made.type_url == "types.containerd.io/opencontainers/runtime-spec/1/Process"
    assert made.value == '{"args": ["sh", "ä"]}'.encode()


def test_options_have_the_types_that_the_shims_look_for() -> None:
    assert m.RuncOptions(binary_name="crun").pack().type_url == "containerd.runc.v1.Options"
    assert m.KataOptions(config_path="/k").pack().type_url == "runtimeoptions.v1.Options"
    assert m.KataOptions().pack(old=True).type_url == "cri.runtimeoptions.v1.Options"


def _stats(name: str, version: int, text: Any) -> m.AnyValue:
    made = THEIRS[name](**text)
    url = f"type.googleapis.com/io.containerd.cgroups.v{version}.Metrics"
    return m.AnyValue(url, made.SerializeToString())


def test_statistics_of_version_1() -> None:
    entry = {"limit": 64 << 20, "usage": 5000, "max": 9000, "failcnt": 3}
    devices = [
        {"op": "Read", "major": 8, "value": 10},
        {"op": "Write", "major": 8, "value": 20},
        {"op": "Read", "major": 9, "value": 5},
        {"op": "Total", "major": 8, "value": 30},
    ]
    found = m.metrics(
        _stats("Metrics1", 1, {
            "pids": {"current": 4, "limit": 100},
            "cpu": {
                "usage": {"total": 30, "kernel": 10, "user": 20, "per_cpu": [1, 2]},
                "throttling": {"periods": 7, "throttled_periods": 2, "throttled_time": 99},
            },
            "memory": {
                "cache": 11, "rss": 12, "total_inactive_file": 13, "usage": entry,
                "swap": {"usage": 5500, "limit": 0x7FFFFFFFFFFFF000}, "kernel": {"usage": 17},
            },
            "blkio": {"io_service_bytes_recursive": devices},
            "network": [{"name": "eth0", "rx_bytes": 1, "tx_dropped": 9}],
        })
    )  # fmt: skip
    assert found == m.Metrics(
        cpu_ns=30, cpu_user_ns=20, cpu_kernel_ns=10, periods=7, throttled_periods=2,
        throttled_ns=99, memory_usage=5000, memory_limit=64 << 20, memory_max_usage=9000,
        memory_failures=3, memory_kernel=17, memory_rss=12, memory_cache=11, inactive_file=13,
        swap_usage=500, swap_limit=None, pids=4, pids_limit=100, read_bytes=15, write_bytes=20,
        networks=(m.NetworkMetrics("eth0", rx_bytes=1, tx_dropped=9),),
    )  # fmt: skip


def test_statistics_of_version_2() -> None:
    found = m.metrics(
        _stats("Metrics2", 2, {
            "pids": {"current": 4, "limit": 2**64 - 1},
            "cpu": {
                "usage_usec": 30, "user_usec": 20, "system_usec": 10, "nr_periods": 7,
                "nr_throttled": 2, "throttled_usec": 99,
            },
            "memory": {
                "anon": 12, "file": 11, "inactive_file": 13, "usage": 5000,
                "usage_limit": 64 << 20, "swap_usage": 500, "swap_limit": 2**64 - 1,
            },
            "io": {"usage": [{"rbytes": 10, "wbytes": 20}, {"rbytes": 5}]},
        })
    )  # fmt: skip
    assert found == m.Metrics(
        cpu_ns=30_000, cpu_user_ns=20_000, cpu_kernel_ns=10_000, periods=7, throttled_periods=2,
        throttled_ns=99_000, memory_usage=5000, memory_limit=64 << 20, memory_rss=12,
        memory_cache=11, inactive_file=13, swap_usage=500, swap_limit=None, pids=4,
        pids_limit=None, read_bytes=15, write_bytes=20,
    )  # fmt: skip


@pytest.mark.parametrize("version", [1, 2])
def test_statistics_of_nothing(version: int) -> None:
    assert m.metrics(m.AnyValue(f"io.containerd.cgroups.v{version}.Metrics")) == m.Metrics()


def test_statistics_of_another_kind() -> None:
    with pytest.raises(ValueError, match=r"wasm\.Metrics"):
        m.metrics(m.AnyValue("wasm.Metrics", b"\x08\x01"))


def test_protobuf_and_grpc_are_not_imported() -> None:
    code = (
        "import sys, isula_edge.runtime.shim_task, isula_edge.runtime.shim_process,"
        "isula_edge.runtime.shim_events;"
        "sys.exit(any(name.startswith(('google', 'grpc')) for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

import os

import pytest

from reelserve.server.engines.session_settings import SessionSettings


def config(level: int | None = None, **parameters: str) -> dict:
    return {
        "parameters": {
            key.replace("__", "."): {"string_value": value} for key, value in parameters.items()
        },
        "optimization": {} if level is None else {"graph": {"level": level}},
    }


def settings(level: int | None = None, **parameters: str) -> SessionSettings:
    return SessionSettings.from_config(config(level, **parameters), "CPU", 0)


def test_session_settings_use_every_allowed_core_when_not_told():
    assert settings().intra_op_threads == len(os.sched_getaffinity(0))
    assert settings(intra_op_thread_count="0") == settings()


def test_session_settings_read_the_official_parameters():
    read = settings(
        intra_op_thread_count="3",
        inter_op_thread_count="2",
        execution_mode="1",
        enable_mem_arena="0",
        enable_mem_pattern="0",
        memory__enable_memory_arena_shrinkage="cpu:0",
    )

    assert (read.intra_op_threads, read.inter_op_threads, read.parallel) == (3, 2, True)
    assert (read.mem_arena, read.mem_pattern, read.arena_shrinkage) == (False, False, "cpu:0")


@pytest.mark.parametrize(
    ("level", "name"),
    [
        (None, "ORT_ENABLE_ALL"),
        (0, "ORT_ENABLE_ALL"),
        (-1, "ORT_ENABLE_BASIC"),
        (1, "ORT_ENABLE_EXTENDED"),
        (2, "ORT_DISABLE_ALL"),
    ],
)
def test_session_settings_read_the_graph_level(level, name):
    assert settings(level).graph_level == name


@pytest.mark.parametrize(
    ("kind", "provider"), [("CPU", "CPUExecutionProvider"), ("GPU", "CUDAExecutionProvider")]
)
def test_session_settings_choose_the_provider_by_instance_kind(kind, provider):
    read = SessionSettings.from_config(config(), kind, 1)

    assert (read.provider, read.device_id) == (provider, 1)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"intra_op_thread_count": "-1"}, "intra_op_thread_count is '-1'; it must be a whole"),
        ({"inter_op_thread_count": "two"}, "inter_op_thread_count is 'two'"),
        ({"execution_mode": "2"}, "execution_mode is '2'; it must be 0 or 1"),
        ({"enable_mem_arena": "false"}, "enable_mem_arena is 'false'; it must be 0 or 1"),
        ({"level": 3}, r"optimization.graph.level is 3; it must be one of \[-1, 1, 2\]"),
    ],
    ids=str,
)
def test_session_settings_refuse_when_a_parameter_is_unknown(parameters, message):
    with pytest.raises(ValueError, match=message):
        settings(**parameters)


def test_session_settings_refuse_when_the_kind_is_unknown():
    with pytest.raises(ValueError, match="instance kind is MODEL"):
        SessionSettings.from_config(config(), "MODEL", 0)

import pytest

from automl.executor import InlineExecutor


def test_runs_at_result_with_handles_resolved():
    executor, calls = InlineExecutor(), []
    handle = executor.put([1, 2])
    ticket = executor.submit(lambda *args: calls.append(args) or sum(args[0]) + args[1], handle, 4)
    assert calls == []
    assert executor.result(ticket) == 7
    assert calls == [([1, 2], 4)]


def test_result_raises_what_the_function_raised():
    executor = InlineExecutor()
    with pytest.raises(ZeroDivisionError):
        executor.result(executor.submit(lambda: 1 // 0))
